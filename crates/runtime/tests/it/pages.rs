use std::net::SocketAddr;

use runtime::{Metrics, Readiness, Supervisor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn request(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn probes_and_figures() {
    let (_supervisor, tasks) = Supervisor::new();
    let readiness = Readiness::new();
    let part = readiness.part("server.ca");
    let (listener, probes) = bound().await;
    readiness.serve(listener, "/live", "/ready", &tasks);
    let ready = request(probes, "GET /ready").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.contains("\"server.ca\":\"not ready yet\""), "{ready}");
    assert!(
        request(probes, "GET /live")
            .await
            .starts_with("HTTP/1.1 200")
    );
    part.done();
    assert!(
        request(probes, "GET /ready")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        request(probes, "GET /other")
            .await
            .starts_with("HTTP/1.1 404")
    );
    assert!(
        request(probes, "POST /ready")
            .await
            .starts_with("HTTP/1.1 405")
    );

    let metrics = Metrics::new("spire_server");
    metrics.counter("svid_signed", &[]).increment();
    let (listener, figures) = bound().await;
    metrics.serve(listener, &tasks);
    let page = request(figures, "GET /metrics").await;
    assert!(
        page.contains("content-type: text/plain; version=0.0.4"),
        "{page}"
    );
    assert!(page.contains("spire_server_svid_signed{host=\""), "{page}");
}
