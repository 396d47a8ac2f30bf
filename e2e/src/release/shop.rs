//! The workloads of K1 and the demo: a backend behind an Envoy, a frontend that may call it, a stranger that may not, and
//! a pod that asked for nothing; all fit for Pod Security's `restricted`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{is_ready, why};
use crate::cluster::Cluster;
use crate::kubelet::Kubelet;
use crate::load::{self, Answer};
use crate::wait;

/// Their namespace.
pub const NAMESPACE: &str = "shop";

/// The local port at which callers reach the backend.
pub const UPSTREAM_PORT: u16 = 9090;

const READY_BOUND: Duration = Duration::from_secs(120);

/// `spiffe://{trust domain}/ns/shop/sa/{account}`.
#[must_use]
pub fn id(trust_domain: &str, account: &str) -> String {
    format!("spiffe://{trust_domain}/ns/{NAMESPACE}/sa/{account}")
}

/// The annotations of one of them; none for `plain`.
#[must_use]
pub fn annotations(trust_domain: &str, name: &str) -> Value {
    let backend = id(trust_domain, "backend");
    let upstream = format!("{UPSTREAM_PORT}=backend.{NAMESPACE}:8443={backend}");
    match name {
        "backend" => json!({"signet.dev/inject": "envoy", "signet.dev/allow": "shop/frontend"}),
        "plain" => json!({}),
        _ => json!({"signet.dev/inject": "envoy", "signet.dev/upstreams": upstream}),
    }
}

/// The namespace, which enforces this level of Pod Security, and the backend's Service.
///
/// # Errors
/// When the API server refuses them.
pub async fn open(cluster: &Cluster, level: &str) -> Result<()> {
    let enforced = [("pod-security.kubernetes.io/enforce", level)];
    cluster.namespace_named(NAMESPACE, &enforced).await?;
    cluster
        .apply(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": NAMESPACE, "name": "backend"},
            "spec": {
                "selector": {"app": "backend"},
                "ports": [{"port": 8443, "targetPort": "signet-mtls"}],
            },
        }))
        .await
}

/// A Deployment of the app with a service account of its own.
#[must_use]
pub fn app(name: &str, annotations: &Value) -> Value {
    let container = json!({"image": "app", "ports": [{"containerPort": 8080}]});
    let pod = pod_of(name, annotations, &[container]);
    deployment((NAMESPACE, name), &pod)
}

/// A pod's template that *restricted* lets in, with these containers; the first is called `app`.
#[must_use]
pub fn pod_of(account: &str, annotations: &Value, containers: &[Value]) -> Value {
    let mut containers = containers.to_vec();
    for (number, container) in containers.iter_mut().enumerate() {
        if number == 0 {
            container["name"] = json!("app");
        }
        container["securityContext"] = json!({
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        });
    }
    json!({
        "metadata": {"annotations": annotations},
        "spec": {
            "serviceAccountName": account,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": containers,
        },
    })
}

/// A Deployment of such pods, and its service account, both of this name.
#[must_use]
pub fn deployment((namespace, name): (&str, &str), pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]["labels"] = json!({"app": name});
    let metadata = json!({"namespace": namespace, "name": name});
    json!([
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {"selector": {"matchLabels": {"app": name}}, "template": pod},
        },
    ])
}

/// Waits for the pod of this Deployment of the shop to be ready.
///
/// # Errors
/// When it is not in time, and why.
pub async fn ready_pod(cluster: &Cluster, node: &Kubelet, name: &str) -> Result<Pod> {
    ready_pod_in(cluster, node, (NAMESPACE, name)).await
}

/// Waits for the pod of this Deployment to be ready.
///
/// # Errors
/// When it is not in time, and why.
pub async fn ready_pod_in(
    cluster: &Cluster,
    node: &Kubelet,
    (namespace, name): (&str, &str),
) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, namespace);
    let what = format!("the pod of {name} to be ready");
    wait::within(READY_BOUND, &what, || async {
        let params = ListParams::default().labels(&format!("app={name}"));
        let pod = pods.list(&params).await?.items.into_iter().next();
        let pod = pod.context("no pod")?;
        ensure!(is_ready(&pod), "{}", why(&pod, node.logs()));
        Ok(Some(pod))
    })
    .await
}

/// Asks the backend through the Envoy of this Deployment's pod, until the answer has this status.
///
/// # Errors
/// When it does not in time; with the last answer.
pub async fn call(cluster: &Cluster, node: &Kubelet, caller: &str, status: u16) -> Result<Answer> {
    let pod = ready_pod(cluster, node, caller).await?;
    let name = pod.metadata.name.context("a name")?;
    let forward = node.forward(NAMESPACE, &name, UPSTREAM_PORT);
    let upstream = forward.await?;
    wait::until(&format!("{caller}'s request to be answered"), || async {
        let answer = load::get(upstream, "/").await?;
        ensure!(
            answer.status == status,
            "{}: {}",
            answer.status,
            answer.body
        );
        Ok(Some(answer))
    })
    .await
}
