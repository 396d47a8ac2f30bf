//! The injector on a real API server: what it says of pods it cannot change, and its certificate by the Workload API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::injector::{Among, Injector, asking, is_injected};
use e2e::{Domain, Settings, binaries, tls, wait};
use http::Request;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use testkit::TestServer;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::interval;

const OWNER: &str = "5ba1c4b2-0d27-4a0e-8a52-b51c8e6a2f10";

/// A namespace with this label, so that tests beside this one are not in its way.
async fn shop(cluster: &Cluster, label: &str) -> Result<String> {
    cluster.namespace("shop", &[(label, "yes")]).await
}

fn minted(server: &TestServer) -> Value {
    json!({"server": {"socket": server.addresses().socket, "spiffe_id": server.id("/injector").as_str(), "ttl": "1h"}})
}

async fn gone(client: &Client, injector: &Injector) -> Result<()> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let params = DeleteParams::default();
    configurations.delete(&injector.name, &params).await?;
    Ok(())
}

/// A pod of a ReplicaSet that sees the host's processes, which no identity may do.
fn refused(name: &str) -> Result<Pod> {
    let mut pod = asking(name, &json!({"hostPID": true}))?;
    pod.metadata.owner_references = serde_json::from_value(json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": OWNER, "controller": true,
    }]))?;
    Ok(pod)
}

/// The `Warning` headers with which the API server makes this pod.
async fn warnings(client: &Client, namespace: &str, pod: &Pod, dry_run: bool) -> Result<String> {
    let query = if dry_run { "?dryRun=All" } else { "" };
    let request = Request::post(format!("/api/v1/namespaces/{namespace}/pods{query}"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(pod)?.into())?;
    let response = client.send(request).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    let headers = response.headers().get_all("warning").iter();
    let texts: Vec<_> = headers.filter_map(|value| value.to_str().ok()).collect();
    Ok(texts.join("\n"))
}

/// INJ-03: whoever makes the pod, whoever owns it and whoever watches the figures is told.
#[tokio::test(flavor = "multi_thread")]
async fn inj_03_a_pod_that_cannot_be_injected_is_told_of_and_let_through() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let client = cluster.client()?;
    let server = TestServer::start().await;
    let folder = tempfile::tempdir()?;
    let own = cluster.namespace("lenient", &[]).await?;
    let shop = shop(cluster, &own).await?;
    let rules = json!({"trustDomain": "example.org"});
    let injector = Injector::start(
        cluster,
        &own,
        Among::Namespaces(&own),
        folder.path(),
        &minted(&server),
        &rules,
    )
    .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &shop);
    let events: Api<Event> = Api::namespaced(client.clone(), &shop);
    injector.injects(&pods).await?;

    let counted = "signet_injector_skipped{reason=\"host_pid\"";
    let before = injector.figure(counted).await?;
    let told = warnings(&client, &shop, &refused("dry")?, true).await?;
    ensure!(
        told.contains("signet: not injected: the pod sees the host's processes"),
        "{told}"
    );
    let told = warnings(&client, &shop, &refused("wet")?, false).await?;
    ensure!(told.contains("hostPID"), "{told}");
    ensure!(
        !is_injected(&pods.get("wet").await?),
        "it was injected all the same"
    );
    let after = injector.figure(counted).await?;
    ensure!(
        (after - before - 2.0).abs() < 0.1,
        "counted {before}, then {after}"
    );
    let event = wait::until("an Event on the owner", async || {
        let all = events.list(&ListParams::default()).await?;
        let is_ours = |event: &Event| event.reason.as_deref() == Some("InjectionRefused");
        Ok(all.items.into_iter().find(is_ours))
    })
    .await?;
    let regarding = event.regarding.context("what it is about")?;
    ensure!(regarding.uid.as_deref() == Some(OWNER), "{regarding:?}");
    let note = event.note.unwrap_or_default();
    ensure!(note.starts_with("host_pid: "), "{note}");
    // Made for both, it would have been made twice.
    let series = event.series.map(|series| series.count);
    ensure!(series.is_none(), "the dry run made an Event: {series:?}");

    // A grace period that the API server takes, and one that it would not.
    for (grace, seconds) in [("7s", 7), ("99s", 30)] {
        let mut pod = asking(&format!("grace-{grace}"), &json!({}))?;
        let annotations = [
            ("signet.dev/mode", "envoy"),
            ("signet.dev/app-port", "8080"),
            ("signet.dev/grace-period", grace),
        ];
        let owned = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
        pod.metadata.annotations = Some(owned.into());
        let made = serde_json::to_value(pods.create(&PostParams::default(), &pod).await?)?;
        let hook = &made["spec"]["initContainers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"];
        ensure!(*hook == seconds, "{grace}: {made}");
    }
    gone(&client, &injector).await
}

#[tokio::test(flavor = "multi_thread")]
async fn inj_03_a_strict_injector_denies_what_it_cannot_inject() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let client = cluster.client()?;
    let server = TestServer::start().await;
    let folder = tempfile::tempdir()?;
    let own = cluster.namespace("strict", &[]).await?;
    let shop = shop(cluster, &own).await?;
    let rules = json!({"trustDomain": "example.org", "strict": true});
    let injector = Injector::start(
        cluster,
        &own,
        Among::Namespaces(&own),
        folder.path(),
        &minted(&server),
        &rules,
    )
    .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &shop);
    injector.injects(&pods).await?;

    let denied = pods
        .create(&PostParams::default(), &refused("denied")?)
        .await;
    let Err(kube::Error::Api(status)) = denied else {
        anyhow::bail!("{denied:?}");
    };
    ensure!(status.code == 403, "{status:?}");
    ensure!(
        status
            .message
            .contains("signet: not injected: the pod sees the host's processes"),
        "{status:?}"
    );
    ensure!(pods.get_opt("denied").await?.is_none(), "it is there");
    let mut silent = refused("silent")?;
    silent.metadata.labels = None;
    pods.create(&PostParams::default(), &silent).await?;
    gone(&client, &injector).await
}

/// Pods per second while authorities change.
const RATE: u64 = 20;
const AUTHORITIES: usize = 3;
/// Three authorities take a hundred seconds.
const BOUND: Duration = Duration::from_secs(300);

async fn load(pods: Api<Pod>, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let mut ticks = interval(Duration::from_micros(1_000_000 / RATE));
    let mut calls = JoinSet::new();
    let mut number = 0;
    while !stop.load(Relaxed) {
        ticks.tick().await;
        number += 1;
        let pods = pods.clone();
        calls.spawn(async move {
            let pod = asking(&format!("load-{number}"), &json!({}))?;
            // Thousands of pods are nobody's subject here.
            let params = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            let made = pods.create(&params, &pod).await?;
            ensure!(
                is_injected(&made),
                "a pod was let through without injection"
            );
            anyhow::Ok(())
        });
    }
    let mut failed = Vec::new();
    while let Some(ended) = calls.join_next().await {
        if let Err(error) = ended.map_err(anyhow::Error::from).and_then(|made| made) {
            failed.push(format!("{error:#}"));
        }
    }
    (number, failed)
}

/// INJ-15: an SVID of the agent's, under one authority after the other, and the API server trusts each.
#[tokio::test(flavor = "multi_thread")]
async fn as_34_no_admission_fails_while_the_authorities_of_its_svid_change() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let client = cluster.client()?;
    let own = cluster.namespace("agent", &[]).await?;
    let shop = shop(cluster, &own).await?;
    let domain = Domain::start(Settings {
        x509_svid_ttl: Duration::from_secs(10),
        ca_ttl: Duration::from_secs(60),
        ..Settings::default()
    })
    .await?;
    let selector = format!("unix:path:{}", binaries::signet()?.display());
    let (id, parent, name) = (
        domain.id("/injector"),
        domain.agent_id(),
        Injector::dns_name(&own),
    );
    let words = [
        "entry",
        "create",
        "-parentID",
        &parent,
        "-spiffeID",
        &id,
        "-selector",
        &selector,
        "-dns",
        &name,
    ];
    domain.server_cli(&words).await?;
    let certificate = json!({"workload_api": {"socket": domain.agent_socket()}});
    let rules = json!({"trustDomain": "example.org"});
    let injector = Injector::start(
        cluster,
        &own,
        Among::Namespaces(&own),
        domain.folder(),
        &certificate,
        &rules,
    )
    .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &shop);
    injector.injects(&pods).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let mut loading = JoinSet::new();
    loading.spawn(load(pods, Arc::clone(&stop)));
    let authorities = Mutex::new(BTreeSet::new());
    wait::within(BOUND, "three authorities", async || {
        let leaf = tls::chain(injector.address()).await?.remove(0);
        let authority = leaf.authority_key_id().context("an authority")?.to_vec();
        let mut seen = authorities.lock().await;
        seen.insert(authority);
        Ok((seen.len() >= AUTHORITIES).then_some(()))
    })
    .await?;
    stop.store(true, Relaxed);
    let (number, failed) = loading.join_next().await.context("the load")??;
    ensure!(
        failed.is_empty(),
        "{} of {number} failed, first: {}\n{}",
        failed.len(),
        failed[0],
        injector.process.log()?
    );
    let changes = injector
        .figure("signet_injector_certificate_changes")
        .await?;
    testkit::aloud(format!(
        "{number} reviews at {RATE}/s over {AUTHORITIES} authorities and {changes} certificates: none failed"
    ));
    gone(&client, &injector).await
}
