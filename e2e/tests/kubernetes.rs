//! K1, its first half: the agent and a workload are attested by what Kubernetes vouches for. The second half, the mesh, is
//! in `k8s_mesh.rs`.

use anyhow::{Result, ensure};
use e2e::cluster::Cluster;
use e2e::installation::Installation;
use e2e::{Settings, kubelet, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn k1_agent_and_workload_are_attested_by_what_kubernetes_vouches_for() -> Result<()> {
    if let Some(why) = kubelet::unable() {
        eprintln!("not run: {why}");
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let installed = Installation::start(&cluster, Settings::default()).await?;
    let namespace = cluster.namespace("work", &[]).await?;
    installed.register(&namespace, "default").await?;
    let socket = "/run/spire/agent-sockets/spire-agent.sock";
    cluster
        .apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": "fetch"},
            "spec": {
                "restartPolicy": "OnFailure",
                "containers": [{
                    "name": "fetch", "image": "signet",
                    "args": ["agent", "api", "fetch", "x509", "-socketPath", socket],
                    "volumeMounts": [{
                        "name": "sockets", "mountPath": "/run/spire/agent-sockets", "readOnly": true,
                    }],
                }],
                "volumes": [{"name": "sockets", "hostPath": {"path": "/run/spire/agent-sockets"}}],
            },
        }))
        .await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, &namespace);
    let log = installed
        .node
        .logs()
        .join(format!("{namespace}_fetch_fetch.log"));
    wait::until("a pod to fetch its SVID", || async {
        let status = pods.get("fetch").await?.status.unwrap_or_default();
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(
            status.phase.as_deref() == Some("Succeeded"),
            "{status:?}: {said}"
        );
        Ok(Some(()))
    })
    .await?;
    let said = std::fs::read_to_string(&log)?;
    let id = format!("spiffe://example.org/ns/{namespace}/sa/default");
    ensure!(said.contains(&id), "{said}");
    installed.node.stop().await;
    Ok(())
}
