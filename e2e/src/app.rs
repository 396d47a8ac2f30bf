//! The small HTTP app behind the backend's Envoy: it answers with the caller Envoy vouches for.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::ports;

/// A running app; it ends when dropped.
#[derive(Debug)]
pub struct App {
    /// Where it listens on loopback.
    pub port: u16,
    task: AbortHandle,
}

impl App {
    /// Starts the app on a free port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(ports::local(0)).await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(serve(listener)).abort_handle();
        Ok(Self { port, task })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves on `listener` until it fails.
pub async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)),
        );
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/echo" {
        let probe = request.headers().get("x-probe");
        let probe = probe.and_then(|value| value.to_str().ok()).unwrap_or("-");
        let seen = format!("{} {probe}\n", request.uri());
        return Ok(Response::new(Full::new(Bytes::from(seen))));
    }
    let caller = request
        .headers()
        .get("x-forwarded-client-cert")
        .and_then(|value| value.to_str().ok());
    let caller = caller.and_then(uri).unwrap_or("nobody");
    Ok(Response::new(Full::new(Bytes::from(format!(
        "hello {caller}\n"
    )))))
}

/// The `URI=` element of Envoy's x-forwarded-client-cert.
fn uri(header: &str) -> Option<&str> {
    header
        .split([';', ','])
        .find_map(|part| part.trim().strip_prefix("URI="))
}
