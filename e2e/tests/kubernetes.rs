//! K1, its first half: the agent and a workload are attested by what Kubernetes vouches for. The second half, the mesh, is
//! in `k8s_mesh.rs`.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::installation::Installation;
use e2e::release::shop;
use e2e::{Settings, kubelet, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn k1_agent_and_workload_are_attested_by_what_kubernetes_vouches_for() -> Result<()> {
    if let Some(why) = kubelet::unable() {
        testkit::skipped(why);
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

/// `signet k8s inject` on these objects.
async fn injected(installed: &Installation, objects: &Value) -> Result<String> {
    let rules = json!({"socket": {"kind": "hostPath"}, "trustDomain": "example.org"});
    let rules = installed.domain.write("rules.json", &rules.to_string())?;
    let mut command = tokio::process::Command::new(installed.domain.signet())
        .args(["k8s", "inject", "-f", "-", "--config"])
        .arg(rules)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = command.stdin.take().context("its input")?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    input.write_all(list.to_string().as_bytes()).await?;
    drop(input);
    let output = command.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_envoys_of_injected_manifests_speak_mtls_with_identities_attested_on_the_node()
-> Result<()> {
    if let Some(why) = kubelet::unable() {
        testkit::skipped(why);
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let installed = Installation::start(&cluster, Settings::default()).await?;
    // Sockets by hostPath, which only this level lets in; the CSI driver's are tested with the chart.
    shop::open(&cluster, "privileged").await?;
    for name in ["backend", "frontend", "stranger"] {
        installed.register(shop::NAMESPACE, name).await?;
        let app = shop::app(name, &shop::annotations("example.org", name));
        cluster
            .apply_yaml(&injected(&installed, &app).await?)
            .await?;
    }
    shop::ready_pod(&cluster, &installed.node, "backend").await?;
    let answer = shop::call(&cluster, &installed.node, "frontend", 200).await?;
    let expected = format!("hello {}", shop::id("example.org", "frontend"));
    ensure!(answer.body.trim() == expected, "{}", answer.body);
    // It has an identity too, but not one that the backend's annotation names.
    shop::call(&cluster, &installed.node, "stranger", 403).await?;
    installed.node.stop().await;
    Ok(())
}
