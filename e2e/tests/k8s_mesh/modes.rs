//! The modes without an Envoy, in namespaces that enforce *restricted*.

use anyhow::{Context, Result, ensure};
use e2e::release::shop;
use e2e::wait;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::scene::{self, Scene, TRUST_DOMAIN};

/// A ready pod of a Deployment with this annotation, in a restricted namespace of its own, that runs `script` once.
async fn ran(scene: &Scene, mode: &str, image: &str, script: &str) -> Result<(String, Pod)> {
    let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
    let namespace = scene.cluster.namespace(mode, &restricted).await?;
    let script = format!("{script} && exec sleep 3600");
    let container = json!({"image": image, "command": ["/bin/sh", "-c", script]});
    let pod = shop::pod_of("client", &json!({"signet.dev/inject": mode}), &[container]);
    let deployment = shop::deployment((&namespace, "client"), &pod);
    scene.cluster.apply(&deployment).await?;
    let node = &scene.release.node;
    let pod = shop::ready_pod_in(scene.cluster, node, (&namespace, "client")).await?;
    Ok((namespace, pod))
}

/// What the app printed, once it has.
async fn said(scene: &Scene, namespace: &str, pod: &Pod, sign: &str) -> Result<String> {
    let pod = pod.metadata.name.as_deref().context("a name")?;
    wait::until("the app to have its SVID", || async {
        let said = scene.log((namespace, pod), "app")?;
        ensure!(said.contains(sign), "{said}");
        Ok(Some(said))
    })
    .await
}

#[test]
fn k1_csi_07_a_stock_client_gets_its_svid_by_a_volume_it_cannot_write_to_and_its_variable_alone()
-> Result<()> {
    scene::on(async |scene: &Scene| {
        let script = "stock x509 && ! touch /spiffe-workload-api/x && echo read-only";
        let (namespace, pod) = ran(scene, "socket", "stock", script).await?;
        let said = said(scene, &namespace, &pod, "read-only\n").await?;
        ensure!(said.contains("Read-only file system"), "{said}");
        let line = said.lines().find(|line| line.starts_with('{'));
        let seen: Value = serde_json::from_str(line.context("its JSON")?)?;
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/client");
        ensure!(seen["id"] == id, "{seen}");
        ensure!(seen["authorities"] == json!({TRUST_DOMAIN: 1}), "{seen}");

        let pod = serde_json::to_value(pod)?;
        let volumes = pod["spec"]["volumes"].as_array().context("volumes")?;
        let drivers = volumes
            .iter()
            .filter_map(|volume| volume["csi"]["driver"].as_str());
        ensure!(drivers.collect::<Vec<_>>() == ["csi.spiffe.io"], "{pod}");
        ensure!(
            volumes
                .iter()
                .all(|volume| volume.get("hostPath").is_none()),
            "{pod}"
        );
        let environment = &pod["spec"]["containers"][0]["env"];
        ensure!(
            *environment
                == json!([{
                    "name": "SPIFFE_ENDPOINT_SOCKET",
                    "value": "unix:///spiffe-workload-api/spire-agent.sock",
                }]),
            "{environment}"
        );
        Ok(())
    })
}

#[test]
fn k1_inj_08_an_app_reads_its_svid_from_files_that_are_there_when_it_starts() -> Result<()> {
    scene::on(async |scene: &Scene| {
        // Prints the ID when key and certificate belong together and the bundle vouches for them.
        let script = "shim svid /run/signet/files";
        let (namespace, pod) = ran(scene, "files", "app", script).await?;
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/client");
        let said = said(scene, &namespace, &pod, "spiffe://").await?;
        ensure!(said.trim() == id, "{said}");
        // The helper held it back until then, so that it need not start twice.
        let statuses = pod.status.unwrap_or_default().container_statuses;
        let app = statuses.into_iter().flatten().find(|one| one.name == "app");
        ensure!(app.context("its status")?.restart_count == 0);
        let names = pod.spec.context("a spec")?.init_containers;
        let names = names.into_iter().flatten().map(|one| one.name);
        ensure!(names.collect::<Vec<_>>() == ["signet-files"]);
        Ok(())
    })
}
