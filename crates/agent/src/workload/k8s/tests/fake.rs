//! A fake kubelet.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response, header};
use http_body_util::Full;
use hyper::service::service_fn;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use runtime::{BoxError, Supervisor, Tasks};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use hyper_util::rt::TokioIo;

/// What it answers to a request, by the number of that request (from 1) and its token.
pub(super) type Answers = Arc<dyn Fn(usize, Option<&str>) -> (u16, String) + Send + Sync>;

/// A kubelet; gone when dropped.
pub(super) struct FakeKubelet {
    pub(super) address: SocketAddr,
    /// How often it was.
    pub(super) asked: watch::Receiver<usize>,
    tasks: Tasks,
    _supervisor: Supervisor,
}

impl Drop for FakeKubelet {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl FakeKubelet {
    /// Over TLS with `tls`, else plain.
    pub(super) async fn start(tls: Option<ServerConfig>, answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asking, asked) = watch::channel(0);
        let (supervisor, tasks) = Supervisor::new();
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        tasks.spawn(
            "kubelet",
            serve(listener, acceptor, answers, asking, tasks.clone()),
        );
        Self {
            address,
            asked,
            tasks,
            _supervisor: supervisor,
        }
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    answers: Answers,
    asking: watch::Sender<usize>,
    tasks: Tasks,
) -> Result<(), BoxError> {
    let shutdown = tasks.shutdown();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let (acceptor, answers, asking) = (acceptor.clone(), answers.clone(), asking.clone());
        tasks.job("connection", async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                assert_eq!(request.uri().path(), "/pods");
                let token = request.headers().get(header::AUTHORIZATION);
                let token = token.map(|token| token.to_str().unwrap());
                asking.send_modify(|asked| *asked += 1);
                let (code, body) = answers(*asking.borrow(), token);
                let answer = Response::builder().status(code);
                let answer = answer.body(Full::new(bytes::Bytes::from(body)));
                std::future::ready(answer)
            });
            let http = hyper::server::conn::http1::Builder::new();
            // A client that goes away is no failure of the kubelet's.
            match acceptor {
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    }
                }
                None => {
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                }
            }
        });
    }
}

/// An authority, with what it issues.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key as PEM, for a DNS name.
    pub(super) fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A kubelet's TLS, its certificate for `name`; `clients` must have a certificate of this authority.
    pub(super) fn server(&self, name: &str, clients: bool) -> ServerConfig {
        use rustls_pki_types::pem::PemObject as _;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer};

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if clients {
            let mut roots = RootCertStore::empty();
            roots.add(self.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = self.issue(name);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        builder.with_single_cert(chain, key).unwrap()
    }
}
