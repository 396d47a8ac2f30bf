//! What the test kubelet does as a real one: probes from the node, renewal of projected tokens, volumes of a group.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{API_SERVICE, Cluster};
use e2e::kubelet::{Images, Kubelet, Settings, unable};
use e2e::wait;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};

async fn node(cluster: &Cluster) -> Result<Kubelet> {
    let settings = Settings {
        images: Images::usual()?,
        ..Settings::default()
    };
    Kubelet::start(cluster, settings).await
}

/// The status of each container of the pod, once it is `such`.
async fn statuses(pods: &Api<Pod>, name: &str, such: impl Fn(&Value) -> bool) -> Result<()> {
    wait::until(&format!("{name} to fare so"), || async {
        let status = pods.get(name).await?.status.unwrap_or_default();
        let status = serde_json::to_value(status)?;
        let all = status["containerStatuses"].as_array();
        ensure!(all.is_some_and(|all| all.iter().all(&such)), "{status}");
        Ok(Some(()))
    })
    .await
}

/// Two containers that are well, and two whose probes of the same kinds must fail.
fn probed(namespace: &str) -> Value {
    let health = |name: &str, port: u16, service: &str| {
        json!({
            "name": name, "image": "app", "command": ["shim", "health", port.to_string()],
            "startupProbe": {
                "grpc": {"port": port, "service": service}, "periodSeconds": 1, "failureThreshold": 5,
            },
        })
    };
    let https = |name: &str, port: u16, path: &str| {
        json!({
            "name": name, "image": "app", "args": ["app", port.to_string()],
            "startupProbe": {
                "httpGet": {"host": API_SERVICE, "port": 443, "path": path, "scheme": "HTTPS"},
                "periodSeconds": 1, "failureThreshold": 5,
            },
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": "probed"},
        "spec": {"containers": [
            health("well-grpc", 9000, ""), health("ill-grpc", 9001, "unknown"),
            https("well-https", 9002, "/readyz"), https("ill-https", 9003, "/nothing"),
        ]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_kubelet_probes_by_grpc_and_https() -> Result<()> {
    if let Some(why) = unable() {
        testkit::skipped(why);
        return Ok(());
    }
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("probes", &[]).await?;
    let node = node(cluster).await?;
    cluster.apply(&probed(&namespace)).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, &namespace);
    statuses(&pods, "probed", |one| {
        let name = one["name"].as_str().unwrap_or_default();
        if name.starts_with("well") {
            one["ready"] == true && one["restartCount"] == 0
        } else {
            one["restartCount"].as_u64() > Some(0)
        }
    })
    .await?;
    node.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_kubelet_renews_projected_tokens_and_gives_volumes_to_their_group() -> Result<()> {
    if let Some(why) = unable() {
        testkit::skipped(why);
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let namespace = cluster.namespace("tokens", &[]).await?;
    let node = node(&cluster).await?;
    cluster.apply(&reader(&namespace)).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, &namespace);
    // It is ready once it could read the token and write beside it, as a member of the group alone.
    statuses(&pods, "reader", |one| one["ready"] == true).await?;
    let uid = pods.get("reader").await?.metadata.uid.context("a UID")?;
    let file: PathBuf = node
        .root()
        .join(format!("var/lib/kubelet/pods/{uid}/volumes"))
        .join("kubernetes.io~projected/token/token");
    let first = std::fs::read_to_string(&file)?;
    // A token of ten minutes is renewed after eight.
    node.go_ahead(481);
    wait::until("another token", || async {
        let now = std::fs::read_to_string(&file)?;
        Ok((now != first).then_some(()))
    })
    .await?;
    // The app has the new one, and may read it as well.
    let log = node.logs().join(format!("{namespace}_reader_reader.log"));
    wait::until("the app to see it", || async {
        let said = std::fs::read_to_string(&log)?;
        ensure!(said.contains("another"), "{said}");
        Ok(Some(()))
    })
    .await?;
    node.stop().await;
    Ok(())
}

fn reader(namespace: &str) -> Value {
    let script = "cat /token/token > /own/first && touch /own/ready \
        && while cmp -s /token/token /own/first; do sleep 0.1; done; \
        test -s /token/token && cat /token/token > /dev/null && echo another; exec sleep 3600";
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": "reader"},
        "spec": {
            "securityContext": {"runAsUser": 1234, "runAsGroup": 1234, "fsGroup": 4321},
            "containers": [{
                "name": "reader", "image": "app", "command": ["/bin/sh", "-c", script],
                "readinessProbe": {
                    "exec": {"command": ["/bin/sh", "-c", "test \"$(stat -c %g /own/ready)\" = 4321"]},
                    "periodSeconds": 1,
                },
                "volumeMounts": [
                    {"name": "token", "mountPath": "/token", "readOnly": true},
                    {"name": "own", "mountPath": "/own"},
                ],
            }],
            "volumes": [
                {"name": "own", "emptyDir": {}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {
                    "path": "token", "audience": "someone", "expirationSeconds": 600,
                }}]}},
            ],
        },
    })
}
