//! A fake API server: the three answers an attestation needs, over plain HTTP.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use runtime::{Supervisor, Tasks};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What the cluster knows; a test may change it at any time.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// The `status` of a token's review, by token.
    pub(crate) tokens: BTreeMap<String, Value>,
    /// Pods and nodes, by path.
    pub(crate) objects: BTreeMap<String, Value>,
    /// Answer these paths with this status.
    pub(crate) refuse: BTreeMap<String, u16>,
    /// Answer nothing at all.
    pub(crate) hang: bool,
    /// What was asked: method, path, and a review's audiences.
    pub(crate) asked: Vec<String>,
}

/// A running API server.
pub(crate) struct Api {
    pub(crate) world: Arc<Mutex<World>>,
    kubeconfig: PathBuf,
    tasks: Tasks,
    _supervisor: Supervisor,
}

impl Api {
    /// Starts one; its kubeconfig is written into `folder`.
    pub(crate) async fn start(folder: &Path, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World::default()));
        let (supervisor, tasks) = Supervisor::new();
        let serving = serve(listener, world.clone(), tasks.clone());
        tasks.spawn("API server", serving);
        let kubeconfig = folder.join(format!("{name}.kubeconfig"));
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "it", "user": {"token": "server-credentials"}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        std::fs::write(&kubeconfig, content.to_string()).unwrap();
        Self {
            world,
            kubeconfig,
            tasks,
            _supervisor: supervisor,
        }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// Ends it: nobody listens there any more.
    pub(crate) fn stop(&self) {
        self.tasks.stop();
    }
}

async fn serve(
    listener: TcpListener,
    world: Arc<Mutex<World>>,
    tasks: Tasks,
) -> Result<(), runtime::BoxError> {
    let shutdown = tasks.shutdown();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let (world, shutdown) = (world.clone(), tasks.shutdown());
        tasks.job("connection", async move {
            let service = service_fn(|request| answer(world.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

async fn answer(
    world: Arc<Mutex<World>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let body = body.collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let hang = world.lock().unwrap().hang;
    if hang {
        std::future::pending::<()>().await;
    }
    let mut world = world.lock().unwrap();
    let audiences = &review["spec"]["audiences"];
    world
        .asked
        .push(format!("{} {path} {audiences}", head.method));
    let refused = |code: u16| {
        let message = "it is so";
        (
            code,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}),
        )
    };
    let (code, body) = if let Some(code) = world.refuse.get(&path) {
        refused(*code)
    } else if head.method == Method::POST {
        assert_eq!(path, "/apis/authentication.k8s.io/v1/tokenreviews");
        let token = review["spec"]["token"].as_str().unwrap();
        let status = world.tokens.get(token).cloned();
        let unknown = json!({"user": {}, "error": "[invalid bearer token]"});
        let status = status.unwrap_or(unknown);
        (
            201,
            json!({"metadata": {}, "spec": review["spec"], "status": status}),
        )
    } else {
        match world.objects.get(&path) {
            Some(object) => (200, object.clone()),
            None => refused(404),
        }
    };
    let body = Full::new(Bytes::from(body.to_string()));
    let answer = Response::builder()
        .status(StatusCode::from_u16(code).unwrap())
        .header("content-type", "application/json");
    Ok(answer.body(body).unwrap())
}
