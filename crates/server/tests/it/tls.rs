//! What the TCP endpoint's TLS allows.

use std::sync::{Arc, Mutex};

use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_pki_types::ServerName;
use testkit::TestServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// HTTP/2's greeting and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

#[tokio::test(flavor = "multi_thread")]
async fn as_26_tls_1_3_with_post_quantum_exchange_and_h2() {
    let server = TestServer::start().await;
    let stream = connect(&server, server.tls(None).await.client_config())
        .await
        .unwrap();
    let (_, connection) = stream.get_ref();
    assert_eq!(
        connection.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    let group = connection.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_26_tls_1_2_is_refused_unless_allowed() {
    let server = TestServer::start().await;
    let mut tls = server.tls(None).await;
    tls.versions = vec![&TLS12];
    connect(&server, tls.client_config()).await.unwrap_err();
    server.stop().await;

    let server = TestServer::start_with(|config| config.tls.allow_1_2 = true).await;
    let mut tls = server.tls(None).await;
    tls.versions = vec![&TLS12];
    let stream = connect(&server, tls.client_config()).await.unwrap();
    let (_, connection) = stream.get_ref();
    assert_eq!(
        connection.protocol_version(),
        Some(ProtocolVersion::TLSv1_2)
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_26_only_h2_is_spoken() {
    let server = TestServer::start().await;
    let mut tls = server.tls(None).await;
    tls.alpn = vec![b"http/1.1".to_vec()];
    connect(&server, tls.client_config()).await.unwrap_err();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_26_post_quantum_exchange_can_be_required() {
    let server = TestServer::start_with(|config| config.tls.require_pq = true).await;
    let classic = |group| {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![group];
        provider
    };
    let mut tls = server.tls(None).await;
    connect(&server, tls.client_config()).await.unwrap();
    tls.provider = Arc::new(classic(aws_lc_rs::kx_group::X25519));
    connect(&server, tls.client_config()).await.unwrap_err();
    server.stop().await;
    let server = TestServer::start().await;
    let mut tls = server.tls(None).await;
    tls.provider = Arc::new(classic(aws_lc_rs::kx_group::X25519));
    connect(&server, tls.client_config()).await.unwrap();
    server.stop().await;
}

/// S-17: no tickets, no sessions, so nothing to resume.
#[tokio::test(flavor = "multi_thread")]
async fn s_17_nothing_can_be_resumed() {
    let server = TestServer::start_with(|config| config.tls.allow_1_2 = true).await;
    for version in [&TLS12, &TLS13] {
        let sessions = Arc::new(Sessions::default());
        let mut tls = server.tls(Some(server.attest().await)).await;
        tls.versions = vec![version];
        let mut config = tls.client_config();
        config.resumption = Resumption::store(Arc::clone(&sessions) as Arc<_>);
        for _ in 0..2 {
            let mut stream = connect(&server, config.clone()).await.unwrap();
            stream.write_all(HELLO).await.unwrap();
            // The answer would follow any ticket.
            stream.read_exact(&mut [0; 9]).await.unwrap();
            let (_, connection) = stream.get_ref();
            assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        }
        assert_eq!(
            *sessions.0.lock().unwrap(),
            0,
            "tickets or sessions for {version:?}"
        );
    }
    server.stop().await;
}

async fn connect(
    server: &TestServer,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let address = server.addresses().tcp;
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    // In TLS 1.3 a refusal may come only now.
    stream.write_all(HELLO).await?;
    stream.read_exact(&mut [0; 1]).await?;
    Ok(stream)
}

/// Counts what could be resumed.
#[derive(Debug, Default)]
struct Sessions(Mutex<usize>);

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {
        *self.0.lock().unwrap() += 1;
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        *self.0.lock().unwrap() += 1;
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}
