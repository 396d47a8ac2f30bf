//! As much of an API server as the injector asks: a version, a node, a namespace, and a watch in which nothing happens.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::{Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::ports;

type Silence = StreamBody<stream::Pending<Result<Frame<Bytes>, Infallible>>>;
type Body = http_body_util::Either<Full<Bytes>, Silence>;

/// Starts it; it ends with this program.
pub(super) async fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind(ports::local(0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request| async move { answer(&request) });
            connections
                .spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

fn answer(request: &Request<Incoming>) -> Result<Response<Body>, http::Error> {
    let is_watch = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
    let list = |kind: &str, item: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {"resourceVersion": "1"}, "items": [item]});
    let found = match request.uri().path() {
        "/version" => json!({
            "major": "1", "minor": "37", "gitVersion": "v1.37.1", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        }),
        "/api/v1/nodes" => list(
            "NodeList",
            json!({"metadata": {"name": "node"}, "status": {"nodeInfo": {
                "kubeletVersion": "v1.37.1", "architecture": "", "bootID": "", "containerRuntimeVersion": "",
                "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                "systemUUID": "",
            }}}),
        ),
        "/api/v1/namespaces" => list(
            "PartialObjectMetadataList",
            json!({"metadata": {"name": "shop"}}),
        ),
        _ => Value::Null,
    };
    let body = match is_watch {
        true => Body::Right(StreamBody::new(stream::pending())),
        false => Body::Left(Full::from(found.to_string())),
    };
    Response::builder()
        .status(if found.is_null() {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::OK
        })
        .header(CONTENT_TYPE, "application/json")
        .body(body)
}
