//! A TLS client that trusts anybody and shows no certificate: it looks at who answers, and at how it is sent away.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use e2e::ports;
use identity::Certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What a caller without a certificate sees.
pub(crate) struct Seen {
    /// The server's certificate.
    pub(crate) leaf: Certificate,
    /// Why the server ended the connection.
    pub(crate) refusal: String,
}

/// Calls `port` without a certificate. An error when it is let in.
pub(crate) async fn without_certificate(port: u16) -> Result<Seen> {
    let provider = Arc::new(default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let tcp = TcpStream::connect(ports::local(port)).await?;
    let name = ServerName::try_from("backend")?;
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let leaf = Certificate::from_der(leaf.context("the server shows a certificate")?)?;
    // In TLS 1.3 the server judges after the client has finished: the refusal comes with the first read.
    let mut answer = Vec::new();
    let request = b"GET / HTTP/1.1\r\nhost: backend\r\nconnection: close\r\n\r\n";
    let exchange = async {
        stream.write_all(request).await?;
        stream.read_to_end(&mut answer).await
    };
    match exchange.await {
        Err(error) => Ok(Seen {
            leaf,
            refusal: error.to_string(),
        }),
        Ok(_) => bail!(
            "a caller without certificate got {}",
            String::from_utf8_lossy(&answer)
        ),
    }
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
