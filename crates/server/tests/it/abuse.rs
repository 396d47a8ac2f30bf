//! E7: bad input on the sockets. Each is answered or dropped, and the next caller is served.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use testkit::{TestServer, raw};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

const LIST: &str = "/spire.api.server.entry.v1.Entry/ListEntries";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A gRPC frame whose header tells `length`, whatever follows.
fn frame(compressed: u8, length: u32, message: &[u8]) -> Bytes {
    let mut frame = vec![compressed];
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    frame.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_broken_grpc_frames_get_a_status() {
    let server = TestServer::start().await;
    for (name, body, codes) in [
        ("nothing at all", Bytes::new(), &["13"][..]),
        ("half a header", Bytes::from_static(&[0, 0]), &["13"]),
        ("less than told", frame(0, 100, b"abc"), &["13"]),
        ("more than allowed", frame(0, 5 << 20, b"abc"), &["11", "8"]),
        ("4 GiB told", frame(0, u32::MAX, b"abc"), &["11", "8"]),
        (
            "compressed with nothing named",
            frame(1, 3, b"abc"),
            &["13", "12"],
        ),
        ("a flag that is none", frame(7, 3, b"abc"), &["13"]),
        (
            "no protobuf",
            frame(0, 3, &[0xff, 0xff, 0xff]),
            &["13", "3"],
        ),
        (
            "a field that never ends",
            frame(0, 3, &[0x0a, 0xff, 0x01]),
            &["13", "3"],
        ),
    ] {
        let request = request(Method::POST, LIST, "application/grpc", body);
        let status = status(send(&server, request).await).await;
        assert!(
            codes.contains(&status.as_str()),
            "{name}: grpc-status {status}"
        );
    }
    assert_served(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_oversize_messages_are_refused() {
    let server = TestServer::start().await;
    let message = Bytes::from(vec![0; 5 << 20]);
    let status = raw::call(&server.local(), LIST, message).await.unwrap_err();
    let code = status.code();
    assert!(
        matches!(
            code,
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted
        ),
        "{status:?}"
    );
    assert_served(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_what_is_no_grpc_is_refused() {
    let server = TestServer::start().await;
    let get = request(Method::GET, LIST, "application/grpc", Bytes::new());
    let plain = request(
        Method::POST,
        LIST,
        "text/plain",
        Bytes::from_static(b"hello"),
    );
    for (name, request) in [("GET", get), ("text", plain)] {
        let response = send(&server, request).await;
        let refused = response.status().as_u16() >= 400 || status(response).await != "0";
        assert!(refused, "{name}");
    }
    assert_served(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_garbage_on_the_sockets_is_dropped() {
    let server = TestServer::start().await;
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0; 4096],
        &[0xff; 4096],
        b"\x16\x03\x01\xff\xff\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        // HEADERS on stream 1 whose HPACK block points beyond the table.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
    ];
    for bytes in garbage {
        let stream = UnixStream::connect(&server.addresses().socket)
            .await
            .unwrap();
        assert_dropped(stream, bytes).await;
        let stream = TcpStream::connect(server.addresses().tcp).await.unwrap();
        assert_dropped(stream, bytes).await;
        let connector = TlsConnector::from(Arc::new(server.tls(None).await.client_config()));
        let stream = TcpStream::connect(server.addresses().tcp).await.unwrap();
        let name = ServerName::IpAddress(server.addresses().tcp.ip().into());
        assert_dropped(connector.connect(name, stream).await.unwrap(), bytes).await;
    }
    assert_served(&server).await;
    server.stop().await;
}

/// Clients that connect and go, or stay and say nothing, do no harm.
#[tokio::test(flavor = "multi_thread")]
async fn e7_silent_clients_do_no_harm() {
    let server = TestServer::start().await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(server.addresses().tcp).await.unwrap());
        drop(
            UnixStream::connect(&server.addresses().socket)
                .await
                .unwrap(),
        );
        let mut half = UnixStream::connect(&server.addresses().socket)
            .await
            .unwrap();
        half.write_all(PREFACE).await.unwrap();
    }
    assert_served(&server).await;
    drop(silent);
    server.stop().await;
}

/// Headers beyond the limit end the call, not the server.
#[tokio::test(flavor = "multi_thread")]
async fn e7_huge_headers_are_refused() {
    let server = TestServer::start().await;
    let mut request = request(Method::POST, LIST, "application/grpc", frame(0, 0, b""));
    let value = "x".repeat(1 << 20).parse().unwrap();
    request.headers_mut().insert("x-long", value);
    let io = TokioIo::new(
        UnixStream::connect(&server.addresses().socket)
            .await
            .unwrap(),
    );
    let (mut sender, connection) = handshake(io).await;
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer.ok(),
        _ = connection => None,
    };
    assert!(answer.is_none_or(|answer| answer.status() == 431));
    assert_served(&server).await;
    server.stop().await;
}

fn request(method: Method, path: &str, kind: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .header("content-type", kind)
        .header("te", "trailers")
        .body(Full::new(body))
        .unwrap()
}

async fn handshake<I>(
    io: TokioIo<I>,
) -> (
    hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    hyper::client::conn::http2::Connection<TokioIo<I>, Full<Bytes>, TokioExecutor>,
)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    handshake.await.unwrap()
}

async fn send(server: &TestServer, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
    let io = TokioIo::new(
        UnixStream::connect(&server.addresses().socket)
            .await
            .unwrap(),
    );
    let (mut sender, connection) = handshake(io).await;
    let calling = async {
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let collected = body.collect().await.unwrap();
        let mut response = Response::from_parts(head, Full::default());
        if let Some(trailers) = collected.trailers() {
            response.headers_mut().extend(trailers.clone());
        }
        response
    };
    tokio::select! {
        response = calling => response,
        ended = connection => panic!("the connection ended first: {ended:?}"),
    }
}

async fn status(response: Response<Full<Bytes>>) -> String {
    let status = response.headers().get("grpc-status");
    status.map_or_else(String::new, |status| status.to_str().unwrap().to_owned())
}

/// The server ends the connection by itself.
async fn assert_dropped(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    // The server may end it before all is written.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(
        std::time::Duration::from_secs(20),
        stream.read_to_end(&mut rest),
    );
    let _ = ended.await.expect("the connection must end");
}

async fn assert_served(server: &TestServer) {
    raw::call(&server.local(), LIST, Bytes::new())
        .await
        .unwrap();
    assert_eq!(server.bundle().await.x509_authorities.len(), 1);
}
