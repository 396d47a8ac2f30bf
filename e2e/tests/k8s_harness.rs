//! What the Kubernetes tests stand on: the real control plane and the test kubelet.
#![expect(
    clippy::disallowed_methods,
    reason = "a webhook of the tests runs on plain tasks"
)]

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use e2e::cluster::{Cluster, Identity};
use e2e::kubelet::{self, Kubelet};
use e2e::wait;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A Deployment of one container that satisfies PodSecurity's `restricted`.
fn deployment(namespace: &str, name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 1000,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "app", "image": "app",
                        "ports": [{"containerPort": 8080}],
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                },
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_a_pod_and_podsecurity_holds() -> Result<()> {
    if let Some(why) = e2e::cluster::unable() {
        testkit::skipped(why);
        return Ok(());
    }
    let cluster = Cluster::shared().await?;
    let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
    let namespace = cluster.namespace("shop", &restricted).await?;
    cluster
        .apply(&deployment(&namespace, "web", &json!({})))
        .await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, &namespace);
    let pod = wait::until("the Deployment's pod", || async {
        let list = pods.list(&ListParams::default().labels("app=web")).await?;
        Ok(list.items.into_iter().next())
    })
    .await?;
    let owner = pod.metadata.owner_references.unwrap_or_default();
    ensure!(owner.iter().any(|owner| owner.kind == "ReplicaSet"));

    let privileged = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": "bad"},
        "spec": {"containers": [{"name": "app", "image": "app", "securityContext": {"privileged": true}}]},
    });
    let refusal = cluster.apply(&privileged).await.err();
    let refusal = format!("{:#}", refusal.context("a privileged pod was let in")?);
    ensure!(refusal.contains("PodSecurity"), "{refusal}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_accounts_token_is_reviewed_for_its_audience_and_rbac_holds() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("tokens", &[]).await?;
    let token = cluster
        .token(&namespace, "default", &["spire-server"], None)
        .await?;
    let reviews: Api<TokenReview> = Api::all(cluster.client()?);
    for (audience, good) in [("spire-server", true), ("other", false)] {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.clone(),
                audiences: Some(vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await?;
        let status = answer.status.context("a status")?;
        ensure!(
            status.authenticated.unwrap_or_default() == good,
            "audience {audience}: {status:?}"
        );
    }
    let stranger = cluster.client_of(&namespace, "default").await?;
    let pods: Api<Pod> = Api::namespaced(stranger, &namespace);
    let refusal = pods.list(&ListParams::default()).await.err();
    let refusal = refusal
        .context("a default service account may list pods")?
        .to_string();
    ensure!(refusal.contains("forbidden"), "{refusal}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_comes_back_with_its_data() -> Result<()> {
    let cluster = Cluster::start().await?;
    let namespace = cluster.namespace("kept", &[]).await?;
    cluster.stop_api_server()?;
    cluster.start_api_server().await?;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client()?);
    namespaces.get(&namespace).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_kubelet_runs_a_deployments_pod_and_leaves_nothing() -> Result<()> {
    if let Some(why) = kubelet::unable() {
        testkit::skipped(why);
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let namespace = cluster.namespace("run", &[]).await?;
    let settings = kubelet::Settings {
        images: kubelet::Images::usual()?,
        ..kubelet::Settings::default()
    };
    let node = Kubelet::start(&cluster, settings).await?;
    cluster
        .apply(&deployment(&namespace, "web", &json!({})))
        .await?;
    let pod = ready_pod(&cluster, &namespace, "web").await?;
    let name = pod.metadata.name.unwrap_or_default();
    let address = node.forward(&namespace, &name, 8080).await?;
    let answer = e2e::load::get(address, "/").await?;
    ensure!(answer.body.trim() == "hello nobody", "{}", answer.body);

    let id = pod.status.and_then(|status| status.container_statuses);
    let id = id.and_then(|list| list.first()?.container_id.clone());
    let id = id.context("a container ID")?;
    let id = id.strip_prefix("containerd://").context("its form")?;
    ensure!(id.len() == 64, "{id}");
    let uid = pod.metadata.uid.unwrap_or_default();
    let group = format!("kubepods/besteffort/pod{uid}/{id}");
    ensure!(group_exists(&group), "no cgroup {group}");
    node.stop().await;
    ensure!(!group_exists(&group), "the cgroup {group} is left");
    Ok(())
}

fn group_exists(group: &str) -> bool {
    let trees = ["", "unified", "pids"].map(|tree| Path::new("/sys/fs/cgroup").join(tree));
    trees.iter().any(|tree| tree.join(group).exists())
}

/// The pod of this Deployment, once it is ready.
async fn ready_pod(cluster: &Cluster, namespace: &str, app: &str) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, namespace);
    wait::until(&format!("the pod of {app} to be ready"), || async {
        let list = pods
            .list(&ListParams::default().labels(&format!("app={app}")))
            .await?;
        let pod = list.items.into_iter().next().context("no pod")?;
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.clone().unwrap_or_default();
        let ready = conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        ensure!(ready, "{}", serde_json::to_string(&status)?);
        Ok(Some(pod))
    })
    .await
}

/// A Service in front of a Deployment, and a pod that finds it by name, after a sidecar that must have started.
fn service_and_client(namespace: &str) -> Value {
    let words = |script: &str| json!(["/bin/sh", "-c", script]);
    json!([
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "config"},
            "data": {"key": "value"},
        },
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": "client", "labels": {"app": "client"}},
            "spec": {
                "restartPolicy": "OnFailure",
                "initContainers": [{
                    "name": "side", "image": "app", "restartPolicy": "Always",
                    "args": ["app", "9000"],
                    "startupProbe": {"httpGet": {"port": 9000, "path": "/"}, "periodSeconds": 1},
                    "readinessProbe": {"exec": {"command": words("test -e /run/shared/up")}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "shared", "mountPath": "/run/shared"}],
                }, {
                    "name": "first", "image": "app",
                    "command": words("shim get localhost:9000 / && touch /run/shared/up"),
                    "volumeMounts": [{"name": "shared", "mountPath": "/run/shared"}],
                }],
                "containers": [{
                    "name": "get", "image": "app",
                    "command": words("test \"$POD/$(cat /config/name)/$KEY\" = client/value/value \
                        && test -s /var/run/secrets/kubernetes.io/serviceaccount/token \
                        && test \"$(id -u)\" = 1234 && ! touch /anything 2>/dev/null \
                        && shim get web.$NS:80 / && shim get web.$NS.svc.cluster.local:80 /"),
                    "env": [
                        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "config", "key": "key"}}},
                    ],
                    "securityContext": {
                        "runAsUser": 1234, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                    },
                    "volumeMounts": [{"name": "config", "mountPath": "/config", "readOnly": true}],
                }],
                "volumes": [
                    {"name": "shared", "emptyDir": {}},
                    {"name": "config", "configMap": {"name": "config", "items": [{"key": "key", "path": "name"}]}},
                ],
            },
        },
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_kubelet_keeps_the_order_of_containers_and_pods_find_services() -> Result<()> {
    if let Some(why) = kubelet::unable() {
        testkit::skipped(why);
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let namespace = cluster.namespace("order", &[]).await?;
    let settings = kubelet::Settings {
        images: kubelet::Images::usual()?,
        ..kubelet::Settings::default()
    };
    let node = Kubelet::start(&cluster, settings).await?;
    cluster
        .apply(&deployment(&namespace, "web", &json!({})))
        .await?;
    cluster.apply(&service_and_client(&namespace)).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, &namespace);
    let log = node.logs().join(format!("{namespace}_client_get.log"));
    wait::until("the client to get its answer", || async {
        let status = pods.get("client").await?.status.unwrap_or_default();
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(
            status.phase.as_deref() == Some("Succeeded"),
            "{}: {said}",
            serde_json::to_string(&status)?
        );
        Ok(Some(()))
    })
    .await?;
    let said = std::fs::read_to_string(&log)?;
    ensure!(said.contains("hello nobody\nhello nobody"), "{said}");
    node.stop().await;
    Ok(())
}

/// Answers every review with a refusal.
async fn refuse(request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body)?;
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"], "allowed": false,
            "status": {"message": "the harness says no"},
        },
    });
    Ok(Response::new(Full::from(answer.to_string())))
}

async fn refusing_webhook(identity: &Identity) -> Result<u16> {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_no_client_auth()
    .with_single_cert(
        vec![CertificateDer::from_pem_slice(
            identity.certificate.as_bytes(),
        )?],
        PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
    )?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(e2e::ports::local(0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(refuse))
                        .await;
                }
            });
        }
    });
    Ok(port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_on_loopback_is_asked_by_its_services_name() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("hooked", &[]).await?;
    let name = format!("hook.{namespace}.svc");
    let port = refusing_webhook(&cluster.issue("hook", &[], &[&name])?).await?;
    cluster.webhook_service(&namespace, "hook", port).await?;
    cluster
        .apply(&json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": "hook.e2e.test", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {
                    "service": {"namespace": namespace, "name": "hook", "port": port, "path": "/"},
                    "caBundle": STANDARD.encode(cluster.ca_pem()),
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"],
                }],
            }],
        }))
        .await?;
    wait::until("the webhook to be asked", || async {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "any"},
        });
        let refusal = cluster.apply_dry_run(&map).await.err();
        let refusal = format!("{:#}", refusal.context("the ConfigMap was let in")?);
        ensure!(refusal.contains("the harness says no"), "{refusal}");
        Ok(Some(()))
    })
    .await
}
