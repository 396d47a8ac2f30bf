//! CTL-13, CTL-14: names of the services that lead to a pod, and the end of pods.

use anyhow::{Context, Result, ensure};
use e2e::cluster;
use e2e::controller::{OWN_NAMESPACE, Stage, of};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::NODE;

const RULE: &str = r#"
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata: {name: web}
spec:
  spiffeIDTemplate: "spiffe://example.org/{{ .PodMeta.Name }}"
  podSelector: {matchLabels: {app: web}}
  autoPopulateDNSNames: true
"#;

/// As a kubelet tells it.
async fn tell(stage: &Stage, pod: &str, status: Value) -> Result<()> {
    let (params, patch) = (
        PatchParams::default(),
        Patch::Merge(json!({ "status": status })),
    );
    stage
        .pods("shop")
        .patch_status(pod, &params, &patch)
        .await?;
    Ok(())
}

fn running(ready: &str) -> Value {
    json!({
        "phase": "Running", "podIP": "10.0.0.7", "podIPs": [{ "ip": "10.0.0.7" }],
        "conditions": [{ "type": "Ready", "status": ready }],
    })
}

fn service(name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["selector"] = json!({ "app": "web" });
    spec["ports"] = json!([{ "port": 80 }]);
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "shop", "name": name }, "spec": spec })
}

async fn named(stage: &Stage, what: &str, pod: &Pod, services: &[&str]) -> Result<()> {
    let ends = ["", ".shop", ".shop.svc", ".shop.svc.cluster.local"];
    let names = services
        .iter()
        .flat_map(|name| ends.map(|end| format!("{name}{end}")));
    let mut right: Vec<String> = names.collect();
    right.sort();
    let holds = |entries: &[_]| {
        of(entries, pod).is_some_and(|entry| {
            let mut names = entry.dns_names.clone();
            names.sort();
            names == right
        })
    };
    stage.entries().until(what, holds).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_13_ctl_14_services_name_a_pod_and_its_end_takes_its_entry() -> Result<()> {
    if let Some(why) = cluster::unable() {
        testkit::skipped(why);
        return Ok(());
    }
    let stage = Stage::new().await?;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
    stage.cluster.apply(&node).await?;
    stage.cluster.namespace_named("shop", &[]).await?;
    stage.cluster.apply_yaml(RULE).await?;
    let config = format!("{OWN_NAMESPACE}signet: {{readyEndpointsOnly: true}}\n");
    let _controller = stage.controller("controller", &config)?;
    let labels = json!({ "app": "web" });
    let pod = stage.pod(NODE, "shop", "web-0", "default", &labels).await?;
    stage.cluster.apply(&service("web", &json!({}))).await?;
    let headless = json!({ "clusterIP": "None", "publishNotReadyAddresses": false });
    stage.cluster.apply(&service("headless", &headless)).await?;
    // Its services do not lead to it before it is ready.
    tell(&stage, "web-0", running("False")).await?;
    named(&stage, "an entry without names", &pod, &[]).await?;
    tell(&stage, "web-0", running("True")).await?;
    named(&stage, "the services' names", &pod, &["web", "headless"]).await?;
    tell(&stage, "web-0", running("False")).await?;
    named(&stage, "the names to go", &pod, &[]).await?;

    // Deleted, but its kubelet has not said that it ended.
    let other = stage.pod(NODE, "shop", "web-1", "default", &labels).await?;
    let both = |entries: &[_]| of(entries, &pod).is_some() && of(entries, &other).is_some();
    stage.entries().until("both pods' entries", both).await?;
    let pods = stage.pods("shop");
    pods.delete("web-0", &DeleteParams::default()).await?;
    let ending = pods.get("web-0").await?.metadata.deletion_timestamp;
    ending.context("the pod is being deleted, and there")?;
    // The other one was evicted: once that is seen, so is what came before it.
    tell(
        &stage,
        "web-1",
        json!({ "phase": "Failed", "reason": "Evicted" }),
    )
    .await?;
    let evicted = |entries: &[_]| of(entries, &other).is_none();
    let entries = stage
        .entries()
        .until("the evicted pod's entry to go", evicted)
        .await?;
    ensure!(of(&entries, &pod).is_some(), "its process may still run");
    pods.delete("web-0", &DeleteParams::default().grace_period(0))
        .await?;
    stage
        .entries()
        .until("no entry", |entries| entries.is_empty())
        .await?;
    Ok(())
}
