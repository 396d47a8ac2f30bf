//! The kubelet's own server: `GET /pods` over TLS, for bearer tokens that the API server authenticates and authorizes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::node::{NODE_ADDRESS, Node};
use crate::cluster::Cluster;
use crate::ports;

/// Its port in the node's network, where every kubelet has it.
pub(super) const PORT: u16 = 10250;

/// Starts it in the node's network, and on a free port of the machine's loopback, which it tells.
pub(super) async fn start(
    node: Arc<Node>,
    cluster: &Cluster,
    tasks: &mut JoinSet<()>,
) -> Result<u16> {
    let user = format!("system:node:{}", node.name());
    let address = NODE_ADDRESS.to_string();
    let names = [node.name(), "localhost", "127.0.0.1", &address];
    let identity = cluster.issue(&user, &["system:nodes"], &names)?;
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            chain.collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let inside = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let inside = node.network().listen(inside).await?;
    let listener = TcpListener::bind(ports::local(0)).await?;
    let port = listener.local_addr()?.port();
    for listener in [inside, listener] {
        tasks.spawn(serve(listener, acceptor.clone(), Arc::clone(&node)));
    }
    Ok(port)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, node: Arc<Node>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, node) = (acceptor.clone(), Arc::clone(&node));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request| answer(Arc::clone(&node), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

async fn answer(node: Arc<Node>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let (status, body) = if (request.method(), request.uri().path()) != (&Method::GET, "/pods") {
        (StatusCode::NOT_FOUND, json!("only GET /pods is served"))
    } else {
        match authenticated(&node, &request).await {
            Err(error) => (StatusCode::UNAUTHORIZED, json!(format!("{error:#}"))),
            Ok(user) => match allowed(&node, &user).await {
                Ok(()) => (StatusCode::OK, pods(&node)),
                Err(error) => (StatusCode::FORBIDDEN, json!(format!("{error:#}"))),
            },
        }
    };
    let response = Response::builder().status(status);
    let response = response.header(header::CONTENT_TYPE, "application/json");
    Ok(response.body(Full::from(body.to_string()))?)
}

async fn authenticated(node: &Node, request: &Request<Incoming>) -> Result<UserInfo> {
    let value = request.headers().get(header::AUTHORIZATION);
    let value = value.context("Unauthorized: no bearer token")?.to_str()?;
    let token = value
        .strip_prefix("Bearer ")
        .context("Unauthorized: no bearer token")?;
    let reviews: Api<TokenReview> = Api::all(node.client());
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: token.to_owned(),
            audiences: None,
        },
        ..TokenReview::default()
    };
    let review = reviews.create(&PostParams::default(), &review).await?;
    let status = review.status.context("a status")?;
    let user = status.user.filter(|_| status.authenticated == Some(true));
    user.context("Unauthorized")
}

/// Either the fine-grained permission or the coarse one serves, as in a kubelet.
async fn allowed(node: &Node, user: &UserInfo) -> Result<()> {
    let reviews: Api<SubjectAccessReview> = Api::all(node.client());
    for subresource in ["pods", "proxy"] {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username.clone(),
                groups: user.groups.clone(),
                uid: user.uid.clone(),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some("get".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(node.name().to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let review = reviews.create(&PostParams::default(), &review).await?;
        if review.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
    }
    let name = user.username.as_deref().unwrap_or_default();
    anyhow::bail!("Forbidden: {name} may neither get nodes/pods nor nodes/proxy")
}

fn pods(node: &Node) -> Value {
    let items: Vec<Value> = node
        .pods()
        .values()
        .map(|running| running.object.clone())
        .collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}
