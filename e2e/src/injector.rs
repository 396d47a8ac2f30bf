//! The built injector beside a real API server: its webhook configuration, its process, its figures.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::wait::{self, PATIENCE};
use crate::{binaries, ports};

/// Its service's name in each namespace it runs in.
const SERVICE: &str = "injector";

/// Whose pods it is asked about, of those that carry the label `enabled` outside of the system's namespaces: tests share a
/// cluster.
#[derive(Clone, Copy, Debug)]
pub enum Among<'a> {
    /// Those in namespaces with this label.
    Namespaces(&'a str),
    /// Those whose label `scene` says so.
    Scene(&'a str),
}

/// The running injector; ends with this.
#[derive(Debug)]
pub struct Injector {
    /// The process.
    pub process: Process,
    /// The name of its webhook configuration.
    pub name: String,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Injector {
    /// The DNS name its certificate must hold in `namespace`.
    #[must_use]
    pub fn dns_name(namespace: &str) -> String {
        format!("{SERVICE}.{namespace}.svc")
    }

    /// Starts it as if in `namespace`, with a webhook asked about pods `among` those that want it. `certificate` is the source of
    /// its certificate, `rules` its section `inject`.
    ///
    /// # Errors
    /// When the API server refuses its objects, or it cannot be started.
    pub async fn start(
        cluster: &Cluster,
        namespace: &str,
        among: Among<'_>,
        folder: &Path,
        certificate: &Value,
        rules: &Value,
    ) -> Result<Self> {
        let (port, metrics) = (ports::free()?, ports::local(ports::free()?));
        let address = ports::local(port);
        let name = format!("signet-{namespace}");
        cluster.webhook_service(namespace, SERVICE, port).await?;
        let configuration = configuration(&name, namespace, among, port);
        cluster.apply(&configuration).await?;
        let mut certificate = certificate.clone();
        certificate["dns_names"] = json!([Self::dns_name(namespace)]);
        let config = json!({
            "listen": address,
            "metrics_address": metrics,
            "namespace": namespace,
            "drain": "1s",
            "certificate": certificate,
            "webhook_configurations": [{"kind": "MutatingWebhookConfiguration", "name": name}],
            "inject": rules,
        });
        let path = folder.join("injector.json");
        std::fs::write(&path, config.to_string())?;
        let args = [
            "k8s".as_ref(),
            "injector".as_ref(),
            "--config".as_ref(),
            path.as_os_str(),
            "--kubeconfig".as_ref(),
            cluster.kubeconfig().as_os_str(),
        ];
        let log = folder.join("injector.log");
        let process = Process::start("injector", &binaries::signet()?, args, &log)?;
        Ok(Self {
            process,
            name,
            address,
            metrics,
        })
    }

    /// Where its webhook is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a pod made in the namespace of `pods` comes out injected.
    ///
    /// # Errors
    /// When that takes too long; with the injector's log.
    pub async fn injects(&self, pods: &Api<Pod>) -> Result<()> {
        let first = asking("first", &json!({}))?;
        wait::within(PATIENCE, "an injected pod", async || {
            // Refused until the injector serves.
            let made = pods.create(&PostParams::default(), &first).await.ok();
            Ok(made.filter(is_injected))
        })
        .await
        .with_context(|| self.process.log().unwrap_or_default())?;
        Ok(())
    }

    /// The figure that begins so, off its metrics page.
    ///
    /// # Errors
    /// When there is none.
    pub async fn figure(&self, begins: &str) -> Result<f64> {
        let mut stream = TcpStream::connect(self.metrics).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        let line = page.lines().find(|line| line.starts_with(begins));
        let value = line.and_then(|line| line.rsplit(' ').next());
        Ok(value
            .with_context(|| format!("no {begins} in:\n{page}"))?
            .parse()?)
    }
}

/// A pod that asks, with this in its spec beside its one container.
///
/// # Errors
/// When that makes no pod.
pub fn asking(name: &str, spec: &Value) -> Result<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"signet.dev/inject": "enabled"}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "app", "image": "app"}]},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    Ok(serde_json::from_value(pod)?)
}

/// Whether the injector was at it.
#[must_use]
pub fn is_injected(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key("signet.dev/status"))
}

fn configuration(name: &str, namespace: &str, among: Among<'_>, port: u16) -> Value {
    let mut namespaces = vec![
        json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "kube-public", "kube-node-lease", namespace]}),
    ];
    let mut labels = json!({"signet.dev/inject": "enabled"});
    match among {
        Among::Namespaces(label) => namespaces.push(json!({"key": label, "operator": "Exists"})),
        Among::Scene(scene) => labels["scene"] = scene.into(),
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": "pods.inject.signet.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "timeoutSeconds": 10,
            "clientConfig": {"service": {"namespace": namespace, "name": SERVICE, "path": "/mutate-pods", "port": port}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchExpressions": namespaces},
            "objectSelector": {"matchLabels": labels},
        }],
    })
}
