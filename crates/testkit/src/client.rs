//! gRPC channels to a server under test, as any caller.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use hyper_util::rt::TokioIo;
use identity::{Bundle, BundleSet, Certificate, X509Svid, verify_x509_svid};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// A channel over a unix socket; connects at the first call.
pub fn local_channel(socket: &Path) -> Channel {
    let socket: PathBuf = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// How a client goes about TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// What it shows of itself.
    pub svid: Option<X509Svid>,
    /// The bundle the server's SVID must lead to.
    pub bundle: Arc<Bundle>,
    /// What it speaks.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// How it computes.
    pub provider: Arc<CryptoProvider>,
    /// The protocols it offers.
    pub alpn: Vec<Vec<u8>>,
}

impl Tls {
    /// TLS 1.3 and HTTP/2.
    pub fn new(bundle: Arc<Bundle>, svid: Option<X509Svid>) -> Self {
        Self {
            svid,
            bundle,
            versions: vec![&rustls::version::TLS13],
            provider: Arc::new(aws_lc_rs::default_provider()),
            alpn: vec![b"h2".to_vec()],
        }
    }

    /// As rustls takes it. The server must be `spiffe://<trust domain>/spire/server`.
    pub fn client_config(&self) -> ClientConfig {
        let provider = Arc::clone(&self.provider);
        let verifier = Arc::new(IsServer {
            bundle: Arc::clone(&self.bundle),
            provider: Arc::clone(&provider),
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .expect("the versions must fit the provider")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.svid {
            Some(svid) => {
                let chain = svid.chain().iter();
                let chain = chain.map(|one| CertificateDer::from(one.der().to_vec()));
                let key = PrivatePkcs8KeyDer::from(svid.key().as_pkcs8_der().to_vec());
                builder
                    .with_client_auth_cert(chain.collect(), PrivateKeyDer::Pkcs8(key))
                    .expect("the SVID must be one")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }
}

/// A channel over TLS; connects at the first call.
pub fn remote_channel(address: SocketAddr, tls: &Tls) -> Channel {
    let connector = TlsConnector::from(Arc::new(tls.client_config()));
    let connector = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::IpAddress(address.ip().into());
            connector.connect(name, tcp).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

#[derive(Debug)]
struct IsServer {
    bundle: Arc<Bundle>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for IsServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refuse = |error: String| rustls::Error::General(error);
        let chain: Vec<Certificate> = std::iter::once(leaf)
            .chain(intermediates)
            .map(|der| Certificate::from_der(der))
            .collect::<Result<_, _>>()
            .map_err(|error| refuse(error.to_string()))?;
        let bundles = BundleSet::from_iter([Arc::clone(&self.bundle)]);
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
        let id =
            verify_x509_svid(&chain, &bundles, now).map_err(|error| refuse(error.to_string()))?;
        if id.path() != "/spire/server" {
            return Err(refuse(format!("{id} is not the server")));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
