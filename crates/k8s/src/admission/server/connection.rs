//! One connection: handshake, HTTP/1.1 or HTTP/2 as the client chose, an end when nothing comes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use runtime::Tasks;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::respond::respond;

/// Reviews at once on one HTTP/2 connection. API servers speak HTTP/1.1 to webhooks; others may not.
const STREAMS: u32 = 256;
/// Bytes of headers in one request.
const HEADERS: u32 = 16 << 10;
/// How long HTTP/2 may be silent before it is pinged, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) async fn serve(tcp: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let Some(stream) = handshake(tcp, peer, &shared).await else {
        return;
    };
    let activity = Arc::new(Notify::new());
    let service = service_fn(|request| {
        let (shared, activity) = (Arc::clone(&shared), Arc::clone(&activity));
        async move {
            activity.notify_one();
            let response = respond(request, &shared).await;
            activity.notify_one();
            Ok::<_, Infallible>(response)
        }
    });
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let builder = builder(is_h2, &shared);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let idle = async {
        while timeout(shared.limits.idle, activity.notified())
            .await
            .is_ok()
        {}
    };
    tokio::select! {
        ended = connection.as_mut() => return log_end(peer, ended),
        () = idle => {}
        () = shared.drained() => {}
    }
    connection.as_mut().graceful_shutdown();
    // What is under way may end; a client that never sent a preface has nothing under way.
    match timeout(shared.limits.request, connection).await {
        Ok(ended) => log_end(peer, ended),
        Err(_) => tracing::debug!(%peer, "connection closed: it did not end in time"),
    }
}

async fn handshake(
    tcp: TcpStream,
    peer: SocketAddr,
    shared: &Shared,
) -> Option<TlsStream<TcpStream>> {
    let config = shared.tls.borrow().clone()?;
    let _ = tcp.set_nodelay(true);
    let accepting = TlsAcceptor::from(config).accept(tcp);
    let shaken = tokio::select! {
        shaken = timeout(shared.limits.greeting, accepting) => shaken,
        () = shared.drained() => return None,
    };
    match shaken {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => {
            // A certificate that the API server does not trust shows itself here, and only here.
            shared
                .metrics
                .counter("admission_handshakes_failed", &[])
                .increment();
            tracing::debug!(%peer, %error, "TLS handshake failed");
        }
        Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
    }
    None
}

fn builder(is_h2: bool, shared: &Shared) -> auto::Builder<Tasks> {
    // Told apart by ALPN, not by the first bytes, for which there is no limit of time.
    let builder = auto::Builder::new(shared.tasks.clone());
    let mut builder = if is_h2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.idle)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADERS)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

fn log_end(peer: SocketAddr, ended: Result<(), runtime::BoxError>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "connection ended");
    }
}
