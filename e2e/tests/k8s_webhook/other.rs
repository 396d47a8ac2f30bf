//! Another tool's mutating webhook: it adds a container to whatever pod has none of that name.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use e2e::cluster::Cluster;
use e2e::ports;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The container it adds.
pub(crate) const CONTAINER: &str = "other";

/// Serves it in `namespace`, for pods of the namespace `selects`; webhooks are asked in the order of their configurations' names.
pub(crate) async fn start(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    selects: &str,
) -> Result<()> {
    let host = format!("other.{namespace}.svc");
    let certified = rcgen::generate_simple_self_signed([host])?;
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let key = key.map_err(anyhow::Error::msg).context("a key")?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    let listener = TcpListener::bind(ports::local(0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config))));
    cluster.webhook_service(namespace, "other", port).await?;
    let ca_bundle = STANDARD.encode(certified.cert.pem());
    cluster
        .apply(&json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": "other.example.com",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {
                    "service": {"namespace": namespace, "name": "other", "port": port},
                    "caBundle": ca_bundle,
                },
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": selects}},
            }],
        }))
        .await
}

async fn serve(listener: TcpListener, tls: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        let tls = tls.clone();
        tokio::spawn(async move {
            if let Ok(stream) = tls.accept(stream).await {
                let connection = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                // The API server ends its connections as it likes.
                let _ = connection.await;
            }
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let containers = &review["request"]["object"]["spec"]["containers"];
    let mut all = containers.as_array().into_iter().flatten();
    let patch = match all.any(|one| one["name"] == CONTAINER) {
        true => json!([]),
        false => {
            json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": CONTAINER, "image": CONTAINER}}])
        }
    };
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"],
            "allowed": true,
            "patchType": "JSONPatch",
            "patch": STANDARD.encode(patch.to_string()),
        },
    });
    let mut answer = Response::new(Full::new(Bytes::from(review.to_string())));
    let json = http::HeaderValue::from_static("application/json");
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    Ok(answer)
}
