//! K6: what a stranger in the pod network may send to the webhook.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use k8s::admission::review::{AdmissionRequest, Answer};
use k8s::admission::server::{Handler, Handling, Limits, NoAnswer, Routes, Server};
use k8s::admission::serving::{TlsOptions, server_config};
use runtime::{Metrics, Readiness, Supervisor, Tasks};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
const REQUEST: Duration = Duration::from_secs(1);

/// Does as the object says.
struct Obedient;

impl Handler for Obedient {
    fn handle(&self, request: AdmissionRequest) -> Handling<'_> {
        let order = request.object.unwrap_or_default();
        Box::pin(async move {
            match order["do"].as_str() {
                Some("panic") => panic!("as asked"),
                Some("hang") => std::future::pending().await,
                Some("fail") => Err(NoAnswer("as asked".to_owned())),
                _ => Ok(Answer::allow()),
            }
        })
    }
}

struct Served {
    address: SocketAddr,
    connector: TlsConnector,
    supervisor: Supervisor,
    tasks: Tasks,
}

impl Served {
    async fn start(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits {
            request: REQUEST,
            greeting: REQUEST,
            drain: Duration::from_millis(300),
            ..Limits::default()
        };
        change(&mut limits);
        let id = SpiffeId::parse("spiffe://example.org/webhook").unwrap();
        let svid = testkit::forge(
            &id,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000),
        );
        let config = server_config(&svid, &TlsOptions::default()).unwrap();
        let (_configs, tls) = watch::channel(Some(config));
        let (supervisor, tasks) = Supervisor::new();
        let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = server.address();
        let ready = Readiness::new().part("webhook");
        let metrics = Metrics::with_labels("test", &[]);
        server.serve(
            Routes::new().with("/do", Obedient),
            tls,
            limits,
            metrics,
            ready,
            &tasks,
        );
        let connector = TlsConnector::from(Arc::new(client()));
        Self {
            address,
            connector,
            supervisor,
            tasks,
        }
    }

    async fn dial(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("webhook").unwrap();
        self.connector.connect(name, tcp).await
    }

    /// The status and the body that answer these bytes.
    async fn send(&self, request: &[u8]) -> (u16, String) {
        let mut stream = self.dial().await.unwrap();
        // The server may answer, and close, before it has taken everything.
        let _ = stream.write_all(request).await;
        let _ = stream.flush().await;
        let mut answer = Vec::new();
        timeout(LONG, stream.read_to_end(&mut answer))
            .await
            .expect("an answer")
            .ok();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.unwrap_or_default(), body.to_owned())
    }

    async fn post(&self, body: &[u8]) -> (u16, String) {
        self.send(&post(body)).await
    }

    async fn works(&self) {
        let (status, body) = self.post(review(&json!({})).as_bytes()).await;
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, &answer["response"]["allowed"]),
            (200, &json!(true))
        );
        assert_eq!(answer["response"]["uid"], "the-uid");
    }
}

fn post(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /do HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn review(object: &Value) -> String {
    let request = json!({"uid": "the-uid", "operation": "CREATE", "object": object});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
        .to_string()
}

/// Takes any certificate: what is shown is not what is tested here.
fn client() -> ClientConfig {
    #[derive(Debug)]
    struct Any;
    impl rustls::client::danger::ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls_pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth()
}

#[tokio::test]
async fn k6_abuse_gets_clear_answers_and_good_reviews_go_on() {
    let served = Served::start(|_| {}).await;
    let good = review(&json!({}));
    let wrong = |from: &str, to: &str| {
        let request = String::from_utf8(post(good.as_bytes())).unwrap();
        request.replace(from, to).into_bytes()
    };
    for (request, status) in [
        (wrong("POST", "GET"), 405),
        (wrong("/do", "/elsewhere"), 404),
        (wrong("application/json; charset=utf-8", "text/yaml"), 415),
        (wrong("Content-Type", "X-Type"), 415),
        (post(&vec![b' '; (4 << 20) + 1]), 413),
        (post(&[b'['].repeat(1 << 20)), 400),
        (post(b"\x00\xff\xfe"), 400),
        (post(b""), 400),
        (post(b"null"), 400),
        (wrong("admission.k8s.io/v1\"", "admission.k8s.io/v2\""), 400),
    ] {
        let head = String::from_utf8_lossy(&request[..60.min(request.len())]).into_owned();
        let (got, body) = served.send(&request).await;
        assert_eq!(got, status, "{head}: {body}");
        assert!(!body.is_empty(), "{head}");
    }
    let v1beta1 = good.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let (status, body) = served.post(v1beta1.as_bytes()).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &answer["response"]["uid"]),
        (400, &json!("the-uid"))
    );
    assert_eq!(answer["response"]["allowed"], false);
    served.works().await;
}

#[tokio::test]
async fn inj_17_a_handler_that_panics_hangs_or_fails_is_answered_for() {
    let served = Served::start(|_| {}).await;
    for (order, status) in [("panic", 500), ("hang", 408), ("fail", 503)] {
        let body = review(&json!({"do": order}));
        let (got, _) = served.post(body.as_bytes()).await;
        assert_eq!(got, status, "{order}");
    }
    served.works().await;
}

#[tokio::test]
async fn as_33_slow_and_silent_clients_are_let_go() {
    let served = Served::start(|limits| limits.idle = REQUEST).await;
    // Half a body, and no more.
    let whole = post(review(&json!({})).as_bytes());
    let (status, _) = served.send(&whole[..whole.len() - 5]).await;
    assert_eq!(status, 408);
    // A handshake, and nothing.
    let mut silent = served.dial().await.unwrap();
    let mut none = Vec::new();
    timeout(LONG, silent.read_to_end(&mut none))
        .await
        .expect("closed")
        .ok();
    assert!(none.is_empty());
    // Not even a handshake.
    let mut mute = TcpStream::connect(served.address).await.unwrap();
    timeout(LONG, mute.read_to_end(&mut none))
        .await
        .expect("closed")
        .ok();
    served.works().await;
}

#[tokio::test]
async fn as_33_one_peer_cannot_take_all_connections() {
    let served = Served::start(|limits| {
        limits.connections_per_peer = 8;
        limits.greeting = Duration::from_secs(3);
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(served.address).await.unwrap());
    }
    let mut refused = false;
    for _ in 0..100 {
        refused |= served.dial().await.is_err();
        if refused {
            break;
        }
    }
    assert!(refused, "a ninth is served");
    drop(held);
    timeout(LONG, async {
        while served.dial().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("places are free again");
}

/// API servers keep connections they opened and did not need at once: one that closes as it is taken up fails a pod.
#[tokio::test]
async fn inj_15_a_connection_that_was_not_used_yet_is_kept_as_long_as_any() {
    let served = Served::start(|limits| limits.greeting = Duration::from_millis(300)).await;
    let mut spare = served.dial().await.unwrap();
    // Opened later, and let go for want of a handshake.
    let mut mute = TcpStream::connect(served.address).await.unwrap();
    let closed = timeout(LONG, mute.read_to_end(&mut Vec::new())).await;
    closed.expect("closed").ok();
    spare
        .write_all(&post(review(&json!({})).as_bytes()))
        .await
        .unwrap();
    let mut answer = String::new();
    let read = timeout(LONG, spare.read_to_string(&mut answer)).await;
    read.expect("an answer").ok();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn inj_22_it_goes_on_serving_while_it_drains() {
    let served = Served::start(|_| {}).await;
    let mut open = served.dial().await.unwrap();
    served.tasks.stop();
    served.works().await;
    open.write_all(&post(review(&json!({})).as_bytes()))
        .await
        .unwrap();
    let mut answer = String::new();
    timeout(LONG, open.read_to_string(&mut answer))
        .await
        .expect("an answer")
        .ok();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    served
        .supervisor
        .run(Duration::from_secs(10))
        .await
        .unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}
