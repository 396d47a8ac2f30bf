//! Captured pods: apps and callers that know nothing of Envoy, and a kubelet that asks from the node.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use e2e::release::shop;
use e2e::wait;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use serde_json::{Value, json};

use crate::scene::{self, Scene, TRUST_DOMAIN};

const PROBES: u16 = 15021;

/// Deployments of the app: one that may be called, one that may call, one that may not.
async fn open(scene: &Scene, namespace: &str) -> Result<()> {
    let app = json!({
        "image": "app",
        "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/echo", "port": "web"}, "periodSeconds": 1},
        "livenessProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 1},
    });
    let health = json!({
        "name": "health", "image": "app", "command": ["shim", "health", "9000"],
        "ports": [{"containerPort": 9000}],
        "readinessProbe": {"grpc": {"port": 9000}, "periodSeconds": 1},
    });
    let upstream = format!("9090=backend.{namespace}:80={namespace}/backend");
    for name in ["backend", "frontend", "stranger"] {
        let mut annotations = json!({"signet.dev/inject": "envoy", "signet.dev/capture": "all"});
        let (key, value) = match name {
            "backend" => ("signet.dev/allow", format!("{namespace}/frontend")),
            _ => ("signet.dev/upstreams", upstream.clone()),
        };
        annotations[key] = json!(value);
        let containers: &[Value] = match name {
            "backend" => &[app.clone(), health.clone()],
            _ => &[json!({"image": "app"})],
        };
        let pod = shop::pod_of(name, &annotations, containers);
        let deployment = shop::deployment((namespace, name), &pod);
        scene.cluster.apply(&deployment).await?;
    }
    let plain = shop::pod_of("plain", &json!({}), &[json!({"image": "app"})]);
    let plain = shop::deployment((namespace, "plain"), &plain);
    scene.cluster.apply(&plain).await
}

/// Its address on the pods' network, and its name.
async fn pod(scene: &Scene, namespace: &str, name: &str) -> Result<(Pod, String, IpAddr)> {
    let node = &scene.release.node;
    let pod = shop::ready_pod_in(scene.cluster, node, (namespace, name)).await?;
    let own = pod.metadata.name.clone().context("a name")?;
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let address = address.context("an address")?.parse()?;
    Ok((pod, own, address))
}

#[test]
fn k1_captured_pods_speak_mtls_at_their_own_ports_and_the_kubelet_sees_their_health() -> Result<()>
{
    scene::on(async |scene: &Scene| {
        let node = &scene.release.node;
        // NET_ADMIN is more than the other levels allow.
        let privileged = [("pod-security.kubernetes.io/enforce", "privileged")];
        let namespace = scene.cluster.namespace("captured", &privileged).await?;
        let service: Service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": namespace, "name": "backend"},
            "spec": {"selector": {"app": "backend"}, "ports": [{"port": 80, "targetPort": "web"}]},
        }))?;
        scene
            .cluster
            .apply(&serde_json::to_value(&service)?)
            .await?;
        open(scene, &namespace).await?;

        // Ready by three kinds of probes, each asked of Envoy from the node.
        let (backend, _, address) = pod(scene, &namespace, "backend").await?;
        probes_are_asked_of_envoy(&backend)?;
        let seen = node.get(SocketAddr::new(address, PROBES), "/signet/app/readiness");
        let seen = seen.await?;
        ensure!(
            (seen.status, seen.body.trim()) == (200, "/echo -"),
            "{seen:?}"
        );

        // Apps connect to the service as ever, in the clear.
        let services: Api<Service> = Api::namespaced(scene.cluster.client()?, &namespace);
        let spec = services.get("backend").await?.spec.context("a spec")?;
        let service = spec.cluster_ip.context("an address")?.parse()?;
        let service = SocketAddr::new(service, 80);
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/frontend");
        for (caller, status, body) in [
            ("frontend", 200, format!("hello {id}")),
            ("stranger", 403, "RBAC: access denied".to_owned()),
        ] {
            let (_, name, _) = pod(scene, &namespace, caller).await?;
            wait::until(&format!("{caller}'s request to be answered"), || async {
                let answer = node.get_from((&namespace, &name), service, "/").await?;
                let seen = (answer.status, answer.body.trim());
                ensure!(seen == (status, body.as_str()), "{answer:?}");
                Ok(Some(()))
            })
            .await?;
        }

        // Without an SVID nobody gets in: not the node, and not a pod that goes around its Envoy or has none.
        let direct = SocketAddr::new(address, 8080);
        let answer = node.get(direct, "/").await;
        ensure!(answer.is_err(), "the node was answered: {answer:?}");
        let (_, name, _) = pod(scene, &namespace, "plain").await?;
        for at in [direct, service] {
            let answer = node.get_from((&namespace, &name), at, "/").await;
            ensure!(answer.is_err(), "{at} answers in the clear: {answer:?}");
        }
        Ok(())
    })
}

fn probes_are_asked_of_envoy(backend: &Pod) -> Result<()> {
    let spec = serde_json::to_value(backend.spec.as_ref().context("a spec")?)?;
    for probe in [
        "/containers/0/readinessProbe",
        "/containers/0/livenessProbe",
        "/containers/1/readinessProbe",
    ] {
        let port = spec.pointer(&format!("{probe}/httpGet/port"));
        ensure!(port == Some(&json!(PROBES)), "{probe}: {spec}");
    }
    Ok(())
}
