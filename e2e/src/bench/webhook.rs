//! Row h: the injector's webhook, asked as an API server asks: HTTP/1.1 over TLS on connections that are kept. Latency counts
//! from the moment a review was due, not from when it was sent. The limit for a core is a loop in this process that reads the
//! same review, applies the webhook's own patch to its pod and writes the same answer.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use json_patch::Patch;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use super::{Figure, Report, issue, percentile, usage};
use crate::{Domain, Process, Settings, binaries, ports, wait};

mod client;
mod cluster;

use self::client::Client;

/// Reviews per second, and how many of them.
const RATES: [(u32, u32); 2] = [(100, 2_000), (1_000, 10_000)];
/// As many connections as an API server keeps to one webhook.
const CALLERS: u32 = 25;
/// Reviews of all callers.
const REVIEWS: u32 = 20_000;
/// Before anything counts: connections, tables, caches.
const WARM_UP: u32 = 200;

/// A pod as a ReplicaSet makes it, with what an API server has added before it asks webhooks.
const POD: &str = include_str!("../../fixtures/pod-of-a-replicaset.json");

/// What the pod asks for, and its other annotations.
const CASES: [(&str, &[(&str, &str)]); 2] = [
    ("socket", &[]),
    (
        "envoy",
        &[
            (
                "signet.dev/upstreams",
                "9090=backend.shop:8443=shop/backend",
            ),
            ("signet.dev/allow", "shop/frontend, shop/cart"),
        ],
    ),
];

/// Measures the row.
///
/// # Errors
/// When something does not run.
pub async fn run(report: &mut Report) -> Result<()> {
    let mut domain = Domain::new(Settings::default())?;
    domain.start_server().await?;
    let (process, address) = start(&domain).await?;
    for (mode, annotations) in CASES {
        let client = Client::new(address, review(mode, annotations)?);
        let patch = wait::until("the injector answers", || async {
            Ok(Some(patch_of(&client.ask().await?)?))
        })
        .await
        .with_context(|| process.log().unwrap_or_default())?;
        closed(&client, WARM_UP).await?;
        for (rate, number) in RATES {
            let late = open(&client, rate, number).await?;
            for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
                report.add(Figure {
                    row: "h",
                    case: format!("webhook, mode {mode}, {rate} reviews/s, {name}"),
                    value: percentile(&late, part),
                    unit: "ms",
                    limit: None,
                    n: late.len(),
                });
            }
        }
        let limit = 1.0 / issue::seconds(|_| parse_and_patch(&client.review, &patch))?;
        let before = usage::on_core(process.pid()?)?;
        closed(&client, REVIEWS).await?;
        let cores = usage::on_core(process.pid()?)? - before;
        report.add(Figure {
            row: "h",
            case: format!("webhook, mode {mode}, reviews of one core, {CALLERS} callers"),
            value: f64::from(REVIEWS) / cores,
            unit: "reviews/s",
            limit: Some(limit),
            n: usize::try_from(REVIEWS)?,
        });
    }
    Ok(())
}

/// The injector of the built binary, with a certificate of the domain's server, beside an API server that knows one namespace.
async fn start(domain: &Domain) -> Result<(Process, SocketAddr)> {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": format!("http://{}", cluster::start().await?)}}],
        "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    });
    let address = ports::local(ports::free()?);
    let config = json!({
        "listen": address,
        "namespace": "spire-system",
        "certificate": {
            "server": {"socket": domain.server_socket(), "spiffe_id": domain.id("/injector")},
            "dns_names": ["injector.spire-system.svc"],
        },
        "inject": {"trustDomain": "example.org"},
    });
    let kubeconfig = domain.write("kubeconfig.json", &kubeconfig.to_string())?;
    let config = domain.write("injector.json", &config.to_string())?;
    let args = [
        "k8s".as_ref(),
        "injector".as_ref(),
        "--config".as_ref(),
        config.as_os_str(),
        "--kubeconfig".as_ref(),
        kubeconfig.as_os_str(),
    ];
    let log = domain.path("injector.log");
    let process = Process::start("injector", &binaries::signet()?, args, &log)?;
    Ok((process, address))
}

/// The body of a review of such a pod.
fn review(mode: &str, annotations: &[(&str, &str)]) -> Result<Bytes> {
    let mut pod: Value = serde_json::from_str(POD)?;
    pod["metadata"]["labels"]["signet.dev/inject"] = json!(mode);
    for (name, value) in annotations {
        pod["metadata"]["annotations"][*name] = json!(value);
    }
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    let account = "system:serviceaccount:kube-system:replicaset-controller";
    let review = json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816",
            "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {
                "username": account,
                "uid": "3f2b8e7c-9d55-4c0d-8a3e-1c2f6b7a9e01",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            },
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    });
    Ok(Bytes::from(serde_json::to_vec(&review)?))
}

fn patch_of(answer: &[u8]) -> Result<Patch> {
    let answer: Value = serde_json::from_slice(answer)?;
    ensure!(answer["response"]["allowed"] == true, "{answer}");
    let patch = answer["response"]["patch"].as_str().context("a patch")?;
    Ok(serde_json::from_slice(&STANDARD.decode(patch)?)?)
}

/// The least that can be done for a review: read it, patch its pod, write the answer.
fn parse_and_patch(review: &[u8], patch: &Patch) -> Result<()> {
    let mut review: Value = serde_json::from_slice(review)?;
    json_patch::patch(&mut review["request"]["object"], patch)?;
    let answer = json!({
        "apiVersion": review["apiVersion"],
        "kind": review["kind"],
        "response": {
            "uid": review["request"]["uid"],
            "allowed": true,
            "patchType": "JSONPatch",
            "patch": STANDARD.encode(serde_json::to_vec(patch)?),
        },
    });
    black_box((review, serde_json::to_vec(&answer)?));
    Ok(())
}

/// [`CALLERS`] who each ask again as soon as they are answered, `reviews` in all.
async fn closed(client: &Arc<Client>, reviews: u32) -> Result<()> {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let client = Arc::clone(client);
        callers.spawn(async move {
            for _ in 0..reviews / CALLERS {
                client.ask().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}

/// `number` reviews at `rate` per second, however long answers take; how long after its due time each was answered, in
/// milliseconds.
async fn open(client: &Arc<Client>, rate: u32, number: u32) -> Result<Vec<f64>> {
    let (due, mut dues) = mpsc::unbounded_channel();
    let started = Instant::now();
    // A thread of its own: the runtime's timer goes by whole milliseconds.
    let clock = spawn_blocking(move || {
        for review in 0..number {
            let at = started + Duration::from_secs(1) * review / rate;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if due.send(at).is_err() {
                return;
            }
        }
    });
    let mut reviews = JoinSet::new();
    while let Some(at) = dues.recv().await {
        let client = Arc::clone(client);
        reviews.spawn(async move {
            client.ask().await?;
            anyhow::Ok(at.elapsed().as_secs_f64() * 1e3)
        });
    }
    clock.await?;
    let mut late = Vec::new();
    while let Some(ended) = reviews.join_next().await {
        late.push(ended??);
    }
    Ok(late)
}
