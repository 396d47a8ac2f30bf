//! Row h, the controller: a pod is scheduled, to its entry and to its SVID inside it, and the memory that many pods take.
//!
//! The limit of an entry is what no controller can do without: the API server's watch telling of the pod, and one
//! entry created at the server. The limit of an SVID is the container: the first thing it does.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{Figure, Report, entries, percentile, usage};
use crate::cluster::Cluster;
use crate::controller::{self, Crowd, Entries, OWN_NAMESPACE, Stage};
use crate::installation::{self, Installation};
use crate::{Settings, kubelet, wait};

const PODS: usize = 5000;
const NODES: usize = 50;
const NAMESPACE: &str = "bench";
/// Over how many pods times are taken.
const TIMED: usize = 200;
const RUN: u32 = 20;
/// How often the agent asks, as by default.
const SYNC: Duration = Duration::from_secs(5);

/// Longer than anything here should take.
const BOUND: Duration = Duration::from_secs(60);
/// For all pods' entries.
const LONG: Duration = Duration::from_secs(300);
/// After so long freed memory has gone back.
const SETTLE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);
const KIB_PER_MIB: f64 = 1024.0;

/// Measures the row; tells why pods could not be run, if so.
///
/// # Errors
/// When something does not run.
pub async fn run(report: &mut Report) -> Result<Option<String>> {
    crowd(report).await?;
    let unable = kubelet::unable();
    if unable.is_none() {
        svids(report).await?;
    }
    Ok(unable)
}

fn add(
    report: &mut Report,
    case: String,
    value: f64,
    unit: &'static str,
    limit: Option<f64>,
    n: usize,
) {
    report.add(Figure {
        row: "h",
        case,
        value,
        unit,
        limit,
        n,
    });
}

fn add_times(report: &mut Report, case: &str, milliseconds: &[f64], limits: &[f64]) {
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let limit = Some(percentile(limits, part));
        let (case, value) = (format!("{case}, {name}"), percentile(milliseconds, part));
        add(report, case, value, "ms", limit, milliseconds.len());
    }
}

/// A rule that gives every pod an ID.
fn every_pod() -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID", "metadata": { "name": "all" },
        "spec": { "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}" },
    })
}

async fn crowd(report: &mut Report) -> Result<()> {
    let stage = Stage::new().await?;
    let crowd = Crowd::new(&stage, NODES).await?;
    stage.cluster.namespace_named(NAMESPACE, &[]).await?;
    stage.cluster.apply(&every_pod()).await?;
    let process = stage.controller("controller", OWN_NAMESPACE)?;
    crowd.arrive(NAMESPACE, 0..PODS, &json!({})).await?;
    let entries = stage.entries();
    wait::within(LONG, "every pod's entry", || async {
        let count = entries.count().await?;
        ensure!(count >= PODS, "{count} entries");
        Ok(Some(()))
    })
    .await?;
    sleep(SETTLE).await;
    let case = format!("controller RSS, {PODS} pods on {NODES} nodes");
    let memory = usage::resident(process.pid()?)? / KIB_PER_MIB;
    add(report, case, memory, "MiB", None, 1);

    let (mut told, mut there) = (Vec::new(), Vec::new());
    for number in 0..TIMED {
        let (watched, entry) = one(&stage, &entries, number).await?;
        told.push(watched);
        there.push(entry);
    }
    let created = round_trips(&stage).await?;
    let limits: Vec<f64> = told.iter().zip(&created).map(|(a, b)| a + b).collect();
    let case = format!("pod scheduled to its entry, {PODS} pods");
    add_times(report, &case, &there, &limits);
    Ok(())
}

/// A pod with a node is created: when a bare watch tells of it, and when its entry is there, in milliseconds.
async fn one(stage: &Stage, entries: &Entries, number: usize) -> Result<(f64, f64)> {
    let name = format!("timed-{number}");
    let pods = stage.pods(NAMESPACE);
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let latest = pods
        .list_metadata(&kube::api::ListParams::default().limit(1))
        .await?;
    let version = latest.metadata.resource_version.unwrap_or_default();
    let mut events = Box::pin(pods.watch(&params, &version).await?);
    let started = Instant::now();
    let milliseconds = |started: Instant| started.elapsed().as_secs_f64() * 1e3;
    let watched = async {
        while let Some(event) = events.next().await {
            if matches!(event?, WatchEvent::Added(_)) {
                return Ok(milliseconds(started));
            }
        }
        anyhow::bail!("the watch ended")
    };
    let entry = async {
        let pod = stage
            .pod("node-0", NAMESPACE, &name, "default", &json!({}))
            .await?;
        let uid = pod.metadata.uid.context("a UID")?;
        while entries.of_pod(&uid).await?.is_empty() {
            sleep(LOOK).await;
        }
        Ok(milliseconds(started))
    };
    timeout(BOUND, async { tokio::try_join!(watched, entry) }).await?
}

/// One entry created by one call, in milliseconds, as often as pods were timed.
async fn round_trips(stage: &Stage) -> Result<Vec<f64>> {
    let socket = stage.domain.server_socket();
    let mut took = Vec::new();
    for number in 0..TIMED {
        let started = Instant::now();
        entries::create(
            socket.clone(),
            std::iter::once(number..number + 1).collect(),
        )
        .await?;
        took.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// Pods that run on a test node, and ask its agent until they have an SVID.
async fn svids(report: &mut Report) -> Result<()> {
    let cluster = Cluster::start().await?;
    let settings = Settings {
        sync_interval: SYNC,
        ..Settings::default()
    };
    let installed = Installation::start(&cluster, settings).await?;
    let kubeconfig = controller::admit(&cluster).await?;
    cluster.apply(&every_pod()).await?;
    let more = format!("clusterName: {}\n{OWN_NAMESPACE}", installation::CLUSTER);
    let _controller = controller::start(&installed.domain, &kubeconfig, "controller", &more)?;
    cluster.namespace_named(NAMESPACE, &[]).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, NAMESPACE);
    let (mut began, mut had) = (Vec::new(), Vec::new());
    for number in 0..RUN {
        // Each pod ends with an answer of the server: the next one is not to begin right after it always.
        sleep(SYNC * number / RUN).await;
        let name = format!("pod-{number}");
        let pod = serde_json::from_value(asking(&name))?;
        let scheduled = SystemTime::now();
        pods.create(&PostParams::default(), &pod).await?;
        let log = installed
            .node
            .logs()
            .join(format!("{NAMESPACE}_{name}_ask.log"));
        let [first, last] = said(&log).await?;
        let zero = scheduled
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_secs_f64();
        began.push((first - zero) * 1e3);
        had.push((last - zero) * 1e3);
    }
    installed.node.stop().await;
    let case = "pod scheduled to its SVID in it, agent asking every 5 s";
    add_times(report, case, &had, &began);
    Ok(())
}

/// A pod that writes the time when it starts, and again when it has its SVID.
fn asking(name: &str) -> Value {
    let socket = "/run/spire/agent-sockets/spire-agent.sock";
    let script = format!(
        "date +%s.%N; until signet agent api fetch x509 -socketPath {socket} >/dev/null 2>&1; do sleep 0.02; done; date +%s.%N"
    );
    json!({
        "metadata": { "name": name },
        "spec": {
            "nodeName": "node-1", "restartPolicy": "Never",
            "containers": [{
                "name": "ask", "image": "signet", "command": ["/bin/sh", "-c", script],
                "volumeMounts": [{ "name": "sockets", "mountPath": "/run/spire/agent-sockets", "readOnly": true }],
            }],
            "volumes": [{ "name": "sockets", "hostPath": { "path": "/run/spire/agent-sockets" } }],
        },
    })
}

/// Both times of such a pod, in seconds since 1970.
async fn said(log: &Path) -> Result<[f64; 2]> {
    wait::until("a pod to have its SVID", || async {
        let text = std::fs::read_to_string(log)?;
        let times: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        let both = <[f64; 2]>::try_from(times);
        Ok(Some(both.ok().with_context(|| text.clone())?))
    })
    .await
}
