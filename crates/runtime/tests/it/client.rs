//! A small HTTP/2 client, and the service it asks.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use http_body_util::{Empty, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use runtime::{Peer, RequestId, Tasks, TlsPeer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;

pub(crate) type Client = SendRequest<Empty<bytes::Bytes>>;

/// Connects over `stream`; `tasks` drives it.
pub(crate) async fn connect<S>(stream: S, tasks: &Tasks) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tasks.job("client", async move {
        let _ = connection.await;
    });
    client
}

/// One request; the response's header `peer`.
pub(crate) async fn ask(client: &mut Client) -> hyper::Result<String> {
    let request = Request::get("http://localhost/ask")
        .body(Empty::new())
        .unwrap();
    client.ready().await?;
    let response = client.send_request(request).await?;
    Ok(response.headers()["peer"].to_str().unwrap().to_owned())
}

/// Answers each request with who asked.
#[derive(Clone)]
pub(crate) struct WhoAsks;

impl tower::Service<Request<Body>> for WhoAsks {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let extensions = request.extensions();
        assert!(extensions.get::<RequestId>().is_some());
        let peer = match (extensions.get::<Peer>(), extensions.get::<TlsPeer>()) {
            (Some(peer), None) => format!("pid {}", peer.pid().unwrap()),
            (None, Some(peer)) => format!("certificates {}", peer.chain.len()),
            _ => "nobody".to_owned(),
        };
        let mut response = Response::new(Body::empty());
        let value = HeaderValue::from_str(&peer).unwrap();
        response.headers_mut().insert("peer", value);
        ready(Ok(response))
    }
}

/// Answers with more than any client takes unread.
#[derive(Clone)]
pub(crate) struct Flood;

impl tower::Service<Request<Body>> for Flood {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let much = bytes::Bytes::from(vec![0; 16 << 20]);
        ready(Ok(Response::new(Body::new(Full::new(much)))))
    }
}
