//! TLS of the TCP endpoint.

use std::sync::Arc;

use identity::X509Svid;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, DistinguishedName, NamedGroup, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tokio::sync::watch;

use crate::config::TlsConfig;

/// HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";

/// The configuration that shows `svid`.
///
/// Session tickets and resumption are off: a resumed session would skip the proof of the client's key, and who the
/// client is must be told anew from a full handshake.
pub(super) fn server_config(
    svid: &X509Svid,
    allowed: TlsConfig,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut provider = aws_lc_rs::default_provider();
    if allowed.require_pq {
        provider
            .kx_groups
            .retain(|group| group.name() == NamedGroup::X25519MLKEM768);
    }
    let provider = Arc::new(provider);
    let versions: &[_] = if allowed.allow_1_2 {
        &[&TLS13, &TLS12]
    } else {
        &[&TLS13]
    };
    let chain = svid
        .chain()
        .iter()
        .map(|certificate| CertificateDer::from(certificate.der().to_vec()))
        .collect();
    let key = PrivatePkcs8KeyDer::from(svid.key().as_pkcs8_der().to_vec());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(Arc::new(Possession(provider)))
        .with_single_cert(chain, PrivateKeyDer::Pkcs8(key))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Keeps the configuration in step with the server's SVID; ends with its source.
pub(super) async fn follow(
    mut svids: watch::Receiver<Arc<X509Svid>>,
    allowed: TlsConfig,
    configs: watch::Sender<Arc<ServerConfig>>,
) {
    while svids.changed().await.is_ok() {
        let svid = Arc::clone(&svids.borrow_and_update());
        match server_config(&svid, allowed) {
            Ok(config) => {
                configs.send_replace(config);
            }
            Err(error) => {
                tracing::error!(%error, "the server's new SVID cannot be shown; the old one stays")
            }
        }
    }
}

/// Takes any client certificate whose key the client proves to hold, or none. Whose it is, and whether that counts, is
/// told for each call: see `caller`.
#[derive(Debug)]
struct Possession(Arc<CryptoProvider>);

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
