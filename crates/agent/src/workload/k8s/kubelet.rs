//! The kubelet's API, of which one question is asked: `GET /pods`.
//!
//! Token, certificate and authorities are read anew for each question: they are files that others replace.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::pods::{Pod, PodList};
use crate::config::{K8sAttestorConfig, KubeletAuth, KubeletPort};
use crate::fetch::beside;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read: some hundred pods have a few MiB.
const MAX_LEN: usize = 64 << 20;

/// Why the kubelet does not answer.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A file cannot be read.
    #[error("reading {path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path}: {reason}")]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The node's name cannot be a server's.
    #[error("the node name {0:?} is no name of a server")]
    NodeName(String),
    /// TLS cannot be set up.
    #[error("setting up TLS: {0}")]
    Setup(#[from] Error),
    /// No TCP connection.
    #[error("connecting to {0}: {1}")]
    Connect(String, std::io::Error),
    /// No TLS.
    #[error(
        "the TLS handshake with {0} failed: {1}; see kubelet_ca_path and skip_kubelet_verification"
    )]
    Tls(String, std::io::Error),
    /// No HTTP answer.
    #[error("asking: {0}")]
    Http(#[from] hyper::Error),
    /// It does not know us, or we may not.
    #[error(
        "it answers {0}: the agent's credentials will not do; its service account needs `get` on nodes/pods, before \
         Kubernetes 1.33 on nodes/proxy"
    )]
    Refused(StatusCode),
    /// Another answer than 200.
    #[error("it answers {0}")]
    Answer(StatusCode),
    /// The body could not be read.
    #[error("reading its answer: {0}")]
    Body(String),
    /// It took too long.
    #[error("it did not answer in {} s", TIMEOUT.as_secs())]
    Late,
}

/// One node's kubelet.
#[derive(Debug)]
pub(super) struct Kubelet {
    /// The node's name, or the loopback address.
    host: String,
    named: bool,
    port: KubeletPort,
}

impl Kubelet {
    pub(super) fn new(config: &K8sAttestorConfig) -> Self {
        let name = config.node_name.clone();
        Self {
            named: name.is_some(),
            host: name.unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: config.port.clone(),
        }
    }

    /// Its pods.
    pub(super) async fn pods(&self) -> Result<Vec<Pod>, KubeletError> {
        let body = tokio::time::timeout(TIMEOUT, self.ask());
        let body = body.await.map_err(|_| KubeletError::Late)??;
        let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice::<PodList>(&body));
        match parsed.await {
            Ok(Ok(list)) => Ok(list.items),
            Ok(Err(error)) => Err(KubeletError::Body(format!("no list of pods: {error}"))),
            Err(_) => Err(KubeletError::Body("reading was interrupted".to_owned())),
        }
    }

    async fn ask(&self) -> Result<Bytes, KubeletError> {
        let number = self.port.number();
        let address = format!("{}:{number}", self.host);
        let tcp = TcpStream::connect((self.host.as_str(), number)).await;
        let tcp = tcp.map_err(|error| KubeletError::Connect(address.clone(), error))?;
        let KubeletPort::Secure { ca_path, auth, .. } = &self.port else {
            return exchange(tcp, &address, None).await;
        };
        let config = tls_config(ca_path.as_deref(), self.named, auth)?;
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|_| KubeletError::NodeName(self.host.clone()))?;
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await;
        let tls = tls.map_err(|error| KubeletError::Tls(address.clone(), error))?;
        let token = match auth {
            KubeletAuth::Token(path) => Some(bearer(path)?),
            KubeletAuth::Certificate { .. } | KubeletAuth::Anonymous => None,
        };
        exchange(tls, &address, token).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    token: Option<HeaderValue>,
) -> Result<Bytes, KubeletError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static("/pods");
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(header::HOST, host);
    }
    headers.extend(token.map(|token| (header::AUTHORIZATION, token)));
    let exchange = async {
        let answer = sender.send_request(request).await?;
        match answer.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(KubeletError::Refused(status));
            }
            status => return Err(KubeletError::Answer(status)),
        }
        let body = Limited::new(answer.into_body(), MAX_LEN).collect().await;
        let body = body.map_err(|error| KubeletError::Body(error.to_string()))?;
        Ok(body.to_bytes())
    };
    beside(connection, exchange).await
}

/// `ca_path`: none means that whoever answers is believed. `named`: whether the certificate must be for the node's name, as
/// well as from an authority; on the loopback address it never is for that.
fn tls_config(
    ca_path: Option<&Path>,
    named: bool,
    auth: &KubeletAuth,
) -> Result<ClientConfig, KubeletError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let roots = ca_path.map(roots).transpose()?;
    let builder = match roots {
        Some(roots) if named => builder.with_root_certificates(roots),
        roots => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unnamed { roots, provider })),
    };
    let mut config = match auth {
        KubeletAuth::Certificate {
            certificate_path,
            private_key_path,
        } => builder.with_client_auth_cert(chain(certificate_path)?, key(private_key_path)?)?,
        KubeletAuth::Token(_) | KubeletAuth::Anonymous => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(path: &Path) -> Result<RootCertStore, KubeletError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(path)?);
    if roots.is_empty() {
        return Err(content(path, "holds no authority that can be used"));
    }
    Ok(roots)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, KubeletError> {
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(content(path, "holds no PEM certificates")),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, KubeletError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| content(path, "holds no unencrypted PEM key"))
}

fn bearer(path: &Path) -> Result<HeaderValue, KubeletError> {
    let token = read(path)?;
    let mut header = Zeroizing::new(b"Bearer ".to_vec());
    header.extend_from_slice(token.trim_ascii());
    let mut value = HeaderValue::from_bytes(&header)
        .map_err(|_| content(path, "holds something else than a token"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KubeletError> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| KubeletError::File {
            path: path.to_owned(),
            source,
        })
}

fn content(path: &Path, reason: &'static str) -> KubeletError {
    KubeletError::Content {
        path: path.to_owned(),
        reason,
    }
}

/// Does not ask whom a certificate is for; without `roots`, not even whom it is from.
#[derive(Debug)]
struct Unnamed {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unnamed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
