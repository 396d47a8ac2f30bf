//! A scheduler for one node: whatever asks for no other node comes here.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::watcher;
use serde_json::{Value, json};

use super::node::{Node, follow};
use super::{list, text};

pub(super) async fn run(node: Arc<Node>) {
    let pods: Api<Pod> = Api::all(node.admin());
    let unbound = watcher::Config::default().fields("spec.nodeName=");
    let (orders, mut inbox) = tokio::sync::mpsc::unbounded_channel();
    let watching = follow(pods, unbound, |pods: Vec<Arc<Pod>>| {
        let pods = pods.iter().filter(|pod| {
            let gated = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.scheduling_gates.as_ref());
            gated.is_none_or(Vec::is_empty) && pod.metadata.deletion_timestamp.is_none()
        });
        for pod in pods {
            let _ = orders.send(Arc::clone(pod));
        }
    });
    let binding = async {
        while let Some(pod) = inbox.recv().await {
            if let Ok(pod) = serde_json::to_value(&*pod)
                && fits(&pod, node.name(), &node.labels())
            {
                // A pod that was bound or deleted meanwhile is refused; nothing is to be done then.
                let _ = bind(&node, &pod).await;
            }
        }
    };
    tokio::join!(watching, binding);
}

async fn bind(node: &Node, pod: &Value) -> anyhow::Result<()> {
    let (namespace, name) = (
        text(pod, "/metadata/namespace")?,
        text(pod, "/metadata/name")?,
    );
    let pods: Api<Pod> = Api::namespaced(node.admin(), namespace);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node.name()},
    });
    let _: Value = pods
        .create_subresource("binding", name, &PostParams::default(), &binding)
        .await?;
    Ok(())
}

/// Whether the pod's node selector, and the node name that a DaemonSet asks for, allow this node.
fn fits(pod: &Value, name: &str, labels: &std::collections::BTreeMap<String, String>) -> bool {
    let selector = pod.pointer("/spec/nodeSelector").and_then(Value::as_object);
    let selected = selector.is_none_or(|wanted| {
        wanted
            .iter()
            .all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
    });
    let terms = list(
        pod,
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
    );
    let names: Vec<&Value> = terms
        .iter()
        .flat_map(|term| list(term, "/matchFields"))
        .filter(|field| field["key"] == "metadata.name")
        .flat_map(|field| list(field, "/values"))
        .collect();
    selected && (names.is_empty() || names.iter().any(|wanted| *wanted == name))
}
