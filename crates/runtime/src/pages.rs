//! Small pages over HTTP/1: probes and figures.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::{Shutdown, Tasks};

/// At once; probes and scrapers need few.
const CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole connection, idle time included: a scraper comes back with a new one.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

/// What a path gives.
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Page {
    pub(crate) fn not_found() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            content_type: "text/plain",
            body: "not found\n".to_owned(),
        }
    }
}

/// Answers GET and HEAD on `listener` with what `page` gives for the path, until shutdown.
pub(crate) fn serve<F>(name: &'static str, listener: TcpListener, tasks: &Tasks, page: F)
where
    F: Fn(&str) -> Page + Send + Sync + 'static,
{
    let page = Arc::new(page);
    let jobs = tasks.clone();
    tasks.spawn(name, async move {
        let shutdown = jobs.shutdown();
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return Ok(()),
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(permit) = connections.clone().try_acquire_owned() else {
                continue;
            };
            let connection = connection(stream, page.clone(), shutdown.clone());
            jobs.job(name, async move {
                let _permit = permit;
                let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            });
        }
    });
}

async fn connection<F>(stream: TcpStream, page: Arc<F>, shutdown: Shutdown)
where
    F: Fn(&str) -> Page + Send + Sync + 'static,
{
    let service = service_fn(move |request| {
        let response = respond(&request, &*page);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn respond(request: &Request<Incoming>, page: &impl Fn(&str) -> Page) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = Response::new(Full::default());
        *refused.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return refused;
    }
    let page = page(request.uri().path());
    let mut response = Response::new(Full::from(page.body));
    *response.status_mut() = page.status;
    let content_type = HeaderValue::from_static(page.content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
