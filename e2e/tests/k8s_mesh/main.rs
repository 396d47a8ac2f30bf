//! K1, the whole: server, controller, agent, CSI driver and injector installed as docs/kubernetes.md says, word for word;
//! one annotation on a Deployment; and what its pods can do then.

mod capture;
mod modes;
mod scene;

use anyhow::{Context, Result, ensure};
use e2e::release::shop;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use scene::{Scene, TRUST_DOMAIN};

#[test]
fn k1_one_annotation_gives_an_identity_and_an_envoy() -> Result<()> {
    scene::on(async |scene: &Scene| {
        scene.open_shop().await?;
        let (cluster, node) = (scene.cluster, &scene.release.node);
        for name in ["stranger", "plain"] {
            let annotations = shop::annotations(TRUST_DOMAIN, name);
            cluster.apply(&shop::app(name, &annotations)).await?;
        }
        let plain = shop::ready_pod(cluster, node, "plain").await?;
        let plain = serde_json::to_value(plain)?;
        ensure!(
            plain["spec"].get("initContainers").is_none() && !plain.to_string().contains("signet"),
            "the pod that asked for nothing was changed: {plain}"
        );
        let answer = shop::call(cluster, node, "frontend", 200).await?;
        let expected = format!("hello {}", shop::id(TRUST_DOMAIN, "frontend"));
        ensure!(answer.body.trim() == expected, "{}", answer.body);
        // It has an identity too, but not one that the backend's annotation names.
        shop::call(cluster, node, "stranger", 403).await?;

        let entries = scene
            .release
            .server_cli(&["entry", "show", "-output", "json"]);
        let entries: Value = serde_json::from_str(&entries.await?)?;
        let entries = entries["entries"].as_array().context("entries")?.iter();
        let path = "/ns/shop/sa/backend";
        let found: Vec<&Value> = entries
            .filter(|entry| entry["spiffe_id"]["path"] == path)
            .collect();
        ensure!(found.len() == 1, "entries of {path}: {found:?}");
        Ok(())
    })
}

#[test]
fn inj_06_a_job_with_an_envoy_completes_and_its_envoy_ends_after_it() -> Result<()> {
    scene::on(async |scene: &Scene| {
        scene.open_shop().await?;
        let url = format!("127.0.0.1:{}", shop::UPSTREAM_PORT);
        let annotations = shop::annotations(TRUST_DOMAIN, "frontend");
        let container = json!({"image": "app", "command": ["shim", "get", url, "/"]});
        let mut pod = shop::pod_of("frontend", &annotations, &[container]);
        pod["spec"]["restartPolicy"] = json!("OnFailure");
        scene
            .cluster
            .apply(&json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": {"namespace": shop::NAMESPACE, "name": "once"}, "spec": {"template": pod},
            }))
            .await?;
        let jobs: Api<Job> = Api::namespaced(scene.cluster.client()?, shop::NAMESPACE);
        e2e::wait::until("the Job to be complete", || async {
            let status = jobs.get("once").await?.status.unwrap_or_default();
            let said = serde_json::to_string(&status)?;
            ensure!(status.succeeded == Some(1), "{said}");
            Ok(Some(()))
        })
        .await?;

        let pods: Api<Pod> = Api::namespaced(scene.cluster.client()?, shop::NAMESPACE);
        let params = ListParams::default().labels("batch.kubernetes.io/job-name=once");
        let pod = pods.list(&params).await?.items.into_iter().next();
        let pod = serde_json::to_value(pod.context("its pod")?)?;
        ensure!(pod["status"]["phase"] == "Succeeded", "{}", pod["status"]);
        let app = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        let envoy = &pod["status"]["initContainerStatuses"][0];
        let ended = &envoy["state"]["terminated"];
        ensure!(envoy["name"] == "signet-envoy", "{envoy}");
        // Told to end, not killed.
        ensure!(ended["exitCode"] == 0, "{envoy}");
        let times = (app["finishedAt"].as_str(), ended["finishedAt"].as_str());
        ensure!(times.0.is_some() && times.0 <= times.1, "{times:?}");
        let name = pod["metadata"]["name"].as_str().context("a name")?;
        let said = scene.log((shop::NAMESPACE, name), "app")?;
        ensure!(said.contains(&shop::id(TRUST_DOMAIN, "frontend")), "{said}");
        Ok(())
    })
}
