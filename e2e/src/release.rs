//! Signet installed from its chart on a [`Cluster`] with a test node: every program a pod, as on a real cluster.

pub mod shop;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kubelet::{Images, Kubelet, Settings};
use crate::{binaries, wait};

/// The namespace of Signet's own pods.
pub const NAMESPACE: &str = "spire-system";

/// The name of the release, which begins the names of its objects.
pub const NAME: &str = "signet";

/// A machine that builds beside the tests starts six programs slowly.
const READY_BOUND: Duration = Duration::from_secs(180);

/// The label of Signet's pods.
const OURS: &str = "app.kubernetes.io/part-of=signet";

/// Server, agent, CSI driver and injector, at the least.
const PODS: usize = 4;

/// An installed chart and the node it runs on.
#[derive(Debug)]
pub struct Release {
    /// The node.
    pub node: Kubelet,
}

/// The chart's objects with these values, rendered by helm.
///
/// # Errors
/// When helm is missing, or refuses the values.
pub fn render(values: &Value) -> Result<Vec<Value>> {
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    fs::write(file.path(), values.to_string())?;
    let path = file.path().to_string_lossy();
    template(&[
        NAME,
        "helm/signet",
        "--namespace",
        NAMESPACE,
        "--values",
        &path,
    ])
}

/// What `helm install` with these words would apply.
fn template(words: &[&str]) -> Result<Vec<Value>> {
    let version = crate::cluster::KUBERNETES_VERSION;
    let output = Command::new(binaries::helm()?)
        .current_dir(binaries::repository("."))
        .arg("template")
        .args(words)
        .args(["--kube-version", version, "--skip-tests"])
        .stdin(Stdio::null())
        .output()
        .context("start helm")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm template: {said}");
    let text = String::from_utf8(output.stdout)?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).context("parse helm's output")?;
    Ok(objects
        .into_iter()
        .filter(|object| !object.is_null())
        .collect())
}

/// What follows `helm install` in the commands of docs/kubernetes.md.
fn documented() -> Result<Vec<String>> {
    let text = fs::read_to_string(binaries::repository("docs/kubernetes.md"))?;
    let text = text.replace("\\\n", " ");
    let commands = text.lines();
    let commands = commands.filter_map(|line| line.strip_prefix("$ helm install "));
    Ok(commands.map(str::to_owned).collect())
}

/// What a test changes of the chart's defaults.
#[must_use]
pub fn values(trust_domain: &str) -> Value {
    json!({
        "global": {"spire": {"trustDomain": trust_domain, "clusterName": "demo"}},
        "spire-server": {"logLevel": "debug"},
        "spire-agent": {"logLevel": "debug", "experimental": {"syncInterval": "1s"}},
        "injector": {"replicaCount": 1},
    })
}

impl Release {
    /// A node with nothing of Signet on it yet.
    ///
    /// # Errors
    /// When the node cannot be made, or a program is missing.
    pub async fn prepare(cluster: &Cluster) -> Result<Self> {
        let settings = Settings {
            images: Images::usual()?,
            ..Settings::default()
        };
        Ok(Self {
            node: Kubelet::start(cluster, settings).await?,
        })
    }

    /// Applies the custom resource definitions and the chart.
    ///
    /// # Errors
    /// When helm or the API server refuses it.
    pub async fn install(&self, cluster: &Cluster, values: &Value) -> Result<usize> {
        let privileged = [("pod-security.kubernetes.io/enforce", "privileged")];
        cluster.namespace_named(NAMESPACE, &privileged).await?;
        let mut definitions: Vec<PathBuf> = fs::read_dir(binaries::repository("manifests/crds"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        definitions.sort();
        for path in &definitions {
            cluster.apply_yaml(&fs::read_to_string(path)?).await?;
        }
        let objects = render(values)?;
        apply(cluster, &objects).await?;
        Ok(objects.len())
    }

    /// Does what docs/kubernetes.md says, word for word.
    ///
    /// # Errors
    /// When helm or the API server refuses it.
    pub async fn install_documented(&self, cluster: &Cluster) -> Result<()> {
        let commands = documented()?;
        ensure!(
            commands.len() == 2,
            "the definitions and the programs: {commands:?}"
        );
        for command in commands {
            let words: Vec<&str> = command.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "--namespace");
            let namespace = at.and_then(|at| words.get(at + 1)).context("a namespace")?;
            if words.contains(&"--create-namespace") {
                cluster.namespace_named(namespace, &[]).await?;
            }
            apply(cluster, &template(&words)?).await?;
        }
        Ok(())
    }

    /// Waits until every pod of the release is ready; tells their names.
    ///
    /// # Errors
    /// When they are not in time: which, and why.
    pub async fn ready(&self, cluster: &Cluster) -> Result<Vec<String>> {
        let pods: Api<Pod> = Api::all(cluster.client()?);
        let logs = self.node.logs().display().to_string();
        wait::within(
            READY_BOUND,
            &format!("Signet's pods (logs {logs})"),
            || async {
                let list = pods.list(&ListParams::default().labels(OURS)).await?.items;
                ensure!(list.len() >= PODS, "there are {} pods yet", list.len());
                let unready = list.iter().filter(|pod| !is_ready(pod));
                let unready: Vec<String> = unready.map(|pod| why(pod, self.node.logs())).collect();
                ensure!(unready.is_empty(), "{}", unready.join("\n"));
                let names = list.into_iter().filter_map(|pod| pod.metadata.name);
                Ok(Some(names.collect()))
            },
        )
        .await
    }

    /// `signet server …` on the socket of the server's pod.
    ///
    /// # Errors
    /// When the command fails; with what it printed.
    pub async fn server_cli(&self, args: &[&str]) -> Result<String> {
        let socket = self.server_socket().await?;
        let mut command = tokio::process::Command::new(binaries::signet()?);
        command
            .arg("server")
            .args(args)
            .arg("-socketPath")
            .arg(socket)
            .kill_on_drop(true);
        let output = tokio::time::timeout(wait::PATIENCE, command.output());
        let output = output.await.context("signet hangs")??;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(
            output.status.success(),
            "signet server {}: {out}{err}",
            args.join(" ")
        );
        Ok(out.into_owned())
    }

    /// A short way to it: a socket's path may hold 107 bytes, and a pod's folder alone has more.
    async fn server_socket(&self) -> Result<PathBuf> {
        let link = self.node.root().with_file_name("server");
        if !link.exists() {
            let pods = self.node.root().join("var/lib/kubelet/pods");
            let folder = wait::until("the server's socket", || async { Ok(socket_in(&pods)) });
            match std::os::unix::fs::symlink(folder.await?, &link) {
                // Somebody else was faster.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made?,
            }
        }
        Ok(link.join("api.sock"))
    }
}

async fn apply(cluster: &Cluster, objects: &[Value]) -> Result<()> {
    for object in objects {
        let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
        // What the controller's webhook is to admit waits for the controller.
        wait::within(READY_BOUND, &what, || async {
            cluster.apply(object).await.map(Some)
        })
        .await?;
    }
    Ok(())
}

fn socket_in(pods: &Path) -> Option<PathBuf> {
    let volume = "volumes/kubernetes.io~empty-dir/server-socket/private";
    let folders = fs::read_dir(pods).ok()?;
    let mut folders = folders.filter_map(|entry| Some(entry.ok()?.path().join(volume)));
    folders.find(|folder| folder.join("api.sock").exists())
}

/// Whether the pod's condition `Ready` holds.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The containers that are not ready, with the ends of their logs.
#[must_use]
pub fn why(pod: &Pod, logs: &Path) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let first = status.init_container_statuses.unwrap_or_default();
    let rest = status.container_statuses.unwrap_or_default();
    let states = first.iter().chain(&rest).filter(|status| !status.ready);
    let states: Vec<String> = states
        .map(|status| {
            let state = serde_json::to_string(&status.state).unwrap_or_default();
            let log = logs.join(format!("{namespace}_{name}_{}.log", status.name));
            let log = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(6)..].join("\n    ");
            format!(
                "{} (restarts {}): {state}\n    {end}",
                status.name, status.restart_count
            )
        })
        .collect();
    format!("{name}: {}", states.join("\n  "))
}
