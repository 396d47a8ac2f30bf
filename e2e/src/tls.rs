//! A TLS client that shows what it is told to, takes any server, and tells who that was.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use identity::Certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Domain;
use crate::load::{self, Answer};
use crate::wait::PATIENCE;

/// A client's certificate chain and key.
#[derive(Debug)]
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// An X.509-SVID for `path`, straight from the server.
    ///
    /// # Errors
    /// When the server mints none.
    pub async fn mint(domain: &Domain, path: &str) -> Result<Self> {
        let folder = domain.path(&format!("minted{}", path.replace('/', "-")));
        fs::create_dir(&folder)?;
        let (id, written) = (domain.id(path), folder.to_string_lossy().into_owned());
        let args = ["x509", "mint", "-spiffeID", &id, "-write", &written];
        domain.server_cli(&args).await?;
        Self::read(&folder)
    }

    /// Reads what `signet server x509 mint -write` has written into `folder`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(folder: &Path) -> Result<Self> {
        let chain = fs::read(folder.join("svid.pem"))?;
        let key = fs::read(folder.join("key.pem"))?;
        Ok(Self {
            chain: CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>()?,
            key: PrivateKeyDer::from_pem_slice(&key)?,
        })
    }
}

/// One GET over TLS, showing `credentials`.
///
/// # Errors
/// When the server does not take them: with TLS 1.3 that shows at the latest when it should answer.
pub async fn get(address: SocketAddr, credentials: Option<&Credentials>) -> Result<Answer> {
    let stream = connect(address, credentials).await?;
    timeout(PATIENCE, load::get_on(stream, "/")).await?
}

/// One GET over TLS on a connection that is there already, showing `credentials`.
///
/// # Errors
/// As [`get`].
pub async fn get_on(tcp: TcpStream, credentials: Option<&Credentials>) -> Result<Answer> {
    let stream = handshake(tcp, credentials).await?;
    timeout(PATIENCE, load::get_on(stream, "/")).await?
}

/// The chain that the server at `address` shows, leaf first.
///
/// # Errors
/// When it shows none.
pub async fn chain(address: SocketAddr) -> Result<Vec<Certificate>> {
    let stream = connect(address, None).await?;
    let chain = stream.get_ref().1.peer_certificates().context("a chain")?;
    chain
        .iter()
        .map(|der| Ok(Certificate::from_der(der)?))
        .collect()
}

/// Connects, takes any server, and shows `credentials`.
///
/// # Errors
/// When the handshake fails.
pub(crate) async fn connect(
    address: SocketAddr,
    credentials: Option<&Credentials>,
) -> Result<TlsStream<TcpStream>> {
    handshake(TcpStream::connect(address).await?, credentials).await
}

/// The same on a connection that is there already.
pub(crate) async fn handshake(
    tcp: TcpStream,
    credentials: Option<&Credentials>,
) -> Result<TlsStream<TcpStream>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let config = match credentials {
        None => config.with_no_client_auth(),
        Some(one) => config.with_client_auth_cert(one.chain.clone(), one.key.clone_key())?,
    };
    let name = ServerName::try_from("signet.test")?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    Ok(timeout(PATIENCE, stream).await??)
}

/// Takes every certificate whose key the server has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
