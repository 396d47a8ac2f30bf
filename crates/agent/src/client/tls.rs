//! Who the server must be, and how the agent shows itself.

use std::sync::{Arc, Mutex, PoisonError};

use identity::{
    BundleSet, Certificate, SpiffeId, X509Error, X509Svid, check_leaf, verify_x509_svid,
};
use runtime::Clock;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::sync::watch;

/// Whom the agent believes to be the server.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// Who has the server's SPIFFE ID under a bundle, the latest at the time of connecting.
    Bundle(watch::Receiver<Arc<BundleSet>>),
    /// Whoever calls itself so. What it shows is kept, to be held against the bundle it sends.
    Anybody(Shown),
}

/// The chain that an unproven server showed.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Vec<Certificate>>>);

impl Shown {
    /// Leaf first; empty before the first handshake.
    #[must_use]
    pub fn chain(&self) -> Vec<Certificate> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn keep(&self, chain: Vec<Certificate>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = chain;
    }
}

/// Why a server is refused.
#[derive(Debug, thiserror::Error)]
enum RefusedServer {
    #[error("the server's certificate is refused: {0}")]
    Certificate(#[from] X509Error),
    #[error(
        "the server is {got}, where {wanted} is expected; check server_address and trust_domain"
    )]
    OtherId { wanted: SpiffeId, got: SpiffeId },
}

/// The TLS side of one connection: TLS 1.3 or 1.2, HTTP/2, no resumption, so that every connection is
/// checked against the bundle of its time.
pub(super) fn client_config(
    server_id: SpiffeId,
    trust: ServerTrust,
    svid: Option<&X509Svid>,
    clock: Clock,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier {
        server_id,
        trust,
        clock,
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match svid {
        Some(svid) => {
            builder.with_client_cert_resolver(Arc::new(Own(certified_key(svid, &provider)?)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn certified_key(svid: &X509Svid, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let chain = svid
        .chain()
        .iter()
        .map(|one| CertificateDer::from(one.der().to_vec()))
        .collect();
    let key = PrivatePkcs8KeyDer::from(svid.key().as_pkcs8_der().to_vec());
    CertifiedKey::from_der(chain, PrivateKeyDer::from(key), provider).map(Arc::new)
}

/// Shows the agent SVID whatever authorities the server names.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Knows the server by its SPIFFE ID.
#[derive(Debug)]
struct Verifier {
    server_id: SpiffeId,
    trust: ServerTrust,
    clock: Clock,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn verify(&self, chain: &[Certificate]) -> Result<(), RefusedServer> {
        let id = match &self.trust {
            ServerTrust::Bundle(bundles) => {
                let bundles = bundles.borrow().clone();
                verify_x509_svid(chain, &bundles, self.clock.now())?
            }
            ServerTrust::Anybody(shown) => {
                let leaf = chain.first().ok_or(X509Error::EmptyChain)?;
                shown.keep(chain.to_vec());
                check_leaf(leaf)?.clone()
            }
        };
        if id != self.server_id {
            return Err(RefusedServer::OtherId {
                wanted: self.server_id.clone(),
                got: id,
            });
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused = |error: RefusedServer| Error::Other(OtherError(Arc::new(error)));
        let chain: Vec<Certificate> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|der| Certificate::from_der(der))
            .collect::<Result<_, _>>()
            .map_err(|error| refused(error.into()))?;
        self.verify(&chain).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
