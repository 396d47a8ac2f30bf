//! K3: the injector's webhook on a real API server: its certificate changes, its caBundle is edited, and it goes away;
//! and it lives beside another tool's.
#![expect(
    clippy::disallowed_methods,
    reason = "a test beside real processes lives on plain tasks"
)]

mod other;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::cluster::Cluster;
use e2e::injector::{Among, Injector, asking, is_injected};
use e2e::{tls, wait};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testkit::TestServer;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

/// Pods created in a second while things change.
const RATE: u64 = 50;
const ROTATIONS: f64 = 20.0;
/// Under the first authority of the server, and under two that took its place.
const AUTHORITIES: usize = 3;
/// An authority lives so long; it is replaced after five sixths of it, and certificates end with it.
const CA_TTL: Duration = Duration::from_secs(24);
/// Within this time an edit is undone.
const HEALED: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(90);

/// An injector asked about the pods of `namespace`'s scene alone, with certificates so short that they are renewed every second.
async fn injector(
    cluster: &Cluster,
    server: &TestServer,
    namespace: &str,
    folder: &Path,
) -> Result<Injector> {
    let certificate = json!({"server": {
        "socket": server.addresses().socket,
        "spiffe_id": server.id("/injector").as_str(),
        "ttl": "8s",
    }});
    let rules = json!({"trustDomain": "example.org"});
    let among = Among::Scene(namespace);
    Injector::start(cluster, namespace, among, folder, &certificate, &rules).await
}

fn pod(name: &str, scene: &str, asks: bool) -> Result<Pod> {
    let mut pod = asking(name, &json!({}))?;
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert("scene".to_owned(), scene.to_owned());
    if !asks {
        labels.remove("signet.dev/inject");
    }
    Ok(pod)
}

/// Creates pods until told to stop: how many, and what failed.
async fn load(
    pods: Api<Pod>,
    scene: String,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut ticks = interval(Duration::from_micros(1_000_000 / RATE));
    let mut calls = JoinSet::new();
    let mut number = 0;
    while !stop.load(Relaxed) {
        ticks.tick().await;
        number += 1;
        let (pods, scene, made) = (pods.clone(), scene.clone(), Arc::clone(&made));
        calls.spawn(async move {
            let pod =
                pod(&format!("load-{number}"), &scene, true).map_err(|error| error.to_string())?;
            let pod = pods.create(&PostParams::default(), &pod).await;
            let pod = pod.map_err(|error| error.to_string())?;
            made.fetch_add(1, Relaxed);
            match is_injected(&pod) {
                true => Ok(()),
                false => Err("a pod was let through without injection".to_owned()),
            }
        });
    }
    let mut failed: Vec<String> = Vec::new();
    while let Some(ended) = calls.join_next().await {
        if let Err(error) = ended.unwrap_or_else(|error| Err(error.to_string())) {
            failed.push(error);
        }
    }
    failed
}

struct Scene {
    injector: Injector,
    /// The `scene` of its pods.
    name: String,
    configurations: Api<MutatingWebhookConfiguration>,
    pods: Api<Pod>,
    foreign: String,
}

impl Scene {
    async fn ca_bundle(&self) -> Result<Vec<u8>> {
        let object = self.configurations.get(&self.injector.name).await?;
        let webhook = object.webhooks.and_then(|all| all.into_iter().next());
        let client_config = webhook.context("a webhook")?.client_config;
        Ok(client_config.ca_bundle.context("a caBundle")?.0)
    }

    /// The injector serves, and owns its `caBundle` and nothing else.
    async fn injects(&self) -> Result<()> {
        let first = pod("first", &self.name, true)?;
        wait::within(LONG, "an injected pod", async || {
            // Refused until the injector serves.
            let made = self.pods.create(&PostParams::default(), &first).await.ok();
            let annotations = made.and_then(|made| made.metadata.annotations);
            Ok(annotations.filter(|all| all.contains_key("signet.dev/status")))
        })
        .await
        .with_context(|| self.injector.process.log().unwrap_or_default())?;
        let object = self.configurations.get(&self.injector.name).await?;
        let managed = serde_json::to_value(&object.metadata.managed_fields)?;
        let mut managers = managed.as_array().into_iter().flatten();
        let ours = managers.find(|one| one["manager"] == "signet-injector");
        let fields = ours.context("a field manager of its own")?["fieldsV1"].to_string();
        ensure!(
            fields.contains("f:caBundle") && !fields.contains("f:rules"),
            "{fields}"
        );
        Ok(())
    }

    /// What new connections were shown until there have been enough certificates and authorities: leaves and issuers.
    async fn shown(&self) -> Result<(usize, usize)> {
        let changes = "signet_injector_certificate_changes";
        let before = self.injector.figure(changes).await?;
        let seen = Mutex::new((BTreeSet::new(), BTreeSet::new()));
        wait::within(LONG, "20 certificates and 3 authorities", async || {
            let chain = tls::chain(self.injector.address()).await?;
            let leaf = chain.first().context("a leaf")?;
            let rotations = self.injector.figure(changes).await? - before;
            let (leaves, issuers) = &mut *seen.lock().unwrap_or_else(PoisonError::into_inner);
            leaves.insert(leaf.serial_decimal());
            issuers.insert(leaf.authority_key_id().map(<[u8]>::to_vec));
            let enough = rotations >= ROTATIONS && issuers.len() >= AUTHORITIES;
            Ok(enough.then_some((leaves.len(), issuers.len())))
        })
        .await
    }

    /// 20 certificates, two new authorities, and a foreign root beside ours, as when two tools keep one field.
    async fn rotates_under_load(&self) -> Result<String> {
        let (stop, made) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let mut loading = JoinSet::new();
        loading.spawn(load(
            self.pods.clone(),
            self.name.clone(),
            Arc::clone(&stop),
            Arc::clone(&made),
        ));
        let started = Instant::now();
        let mut edited = self.ca_bundle().await?;
        edited.extend(self.foreign.as_bytes());
        edit(&self.configurations, &self.injector.name, &edited).await?;
        let at = Instant::now();
        self.is_healed().await?;
        let healed = at.elapsed();
        let (leaves, issuers) = self.shown().await?;
        let seconds = started.elapsed().as_secs();
        stop.store(true, Relaxed);
        let failed = loading.join_next().await.context("the load")??;
        let count = failed.len();
        let made = made.load(Relaxed);
        let refused = self
            .injector
            .figure("signet_injector_admission_connections_refused")
            .await;
        ensure!(
            failed.is_empty(),
            "{count} failed, first: {}; connections refused: {refused:?}",
            failed[0]
        );
        ensure!(
            made as u64 * 4 > RATE * seconds,
            "only {made} pods in {seconds} s: no proof"
        );
        ensure!(healed <= HEALED, "healed after {healed:?}");
        // Roots that are wrong altogether are put right at once.
        let foreign = self.foreign.as_bytes();
        edit(&self.configurations, &self.injector.name, foreign).await?;
        let at = Instant::now();
        self.is_healed().await?;
        let replaced = at.elapsed();
        ensure!(replaced <= HEALED, "replaced after {replaced:?}");
        Ok(format!(
            "{made} pods at {RATE}/s, {leaves} certificates of {issuers} authorities: {count} failed; a foreign root taken out after {healed:?}, a foreign caBundle replaced after {replaced:?}"
        ))
    }

    /// Until the foreign root is gone again.
    async fn is_healed(&self) -> Result<()> {
        let foreign = self.foreign.as_bytes();
        wait::until("the right caBundle", async || {
            let now = self.ca_bundle().await?;
            let has = now.windows(foreign.len()).any(|part| part == foreign);
            Ok((!has).then_some(()))
        })
        .await
    }

    /// INJ-02: without the webhook, only pods that asked are held up, and none of the system's.
    async fn goes_away(&mut self, system: &Api<Pod>, name: &str) -> Result<()> {
        let params = PostParams::default();
        let scene = self.name.clone();
        self.injector.process.kill().await?;
        let refused = self.pods.create(&params, &pod("asks", &scene, true)?).await;
        let refused = refused.err().context("must be held up")?.to_string();
        ensure!(refused.contains("failed calling webhook"), "{refused}");
        self.pods
            .create(&params, &pod("silent", &scene, false)?)
            .await?;
        system.create(&params, &pod(name, &scene, true)?).await?;
        system.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_rotation_and_an_edited_ca_bundle_under_load_then_no_webhook() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let client = cluster.client()?;
    let server = TestServer::start_with(|config| config.ca.ca_ttl = CA_TTL).await;
    let folder = tempfile::tempdir()?;
    let namespace = cluster.namespace("webhook", &[]).await?;
    let shop = cluster.namespace("shop", &[]).await?;
    let mut scene = Scene {
        injector: injector(cluster, &server, &namespace, folder.path()).await?,
        name: namespace,
        configurations: Api::all(client.clone()),
        pods: Api::namespaced(client.clone(), &shop),
        foreign: rcgen::generate_simple_self_signed(["foreign".to_owned()])?
            .cert
            .pem(),
    };
    scene.injects().await?;
    testkit::aloud(scene.rotates_under_load().await?);
    let system: Api<Pod> = Api::namespaced(client, "kube-system");
    scene.goes_away(&system, &format!("asks-{shop}")).await?;
    let params = DeleteParams::default();
    scene
        .configurations
        .delete(&scene.injector.name, &params)
        .await?;
    Ok(())
}

/// INJ-04: what another webhook adds after ours is there, and has the socket too.
#[tokio::test(flavor = "multi_thread")]
async fn inj_04_what_another_webhook_adds_later_is_injected_too() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let server = TestServer::start().await;
    let folder = tempfile::tempdir()?;
    let namespace = cluster.namespace("webhook", &[]).await?;
    let shop = cluster.namespace("shop", &[]).await?;
    let injector = injector(cluster, &server, &namespace, folder.path()).await?;
    // Asked after ours, by its name.
    let other = format!("{}-other", injector.name);
    other::start(cluster, &namespace, &other, &shop).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, &shop);
    let asked = pod("both", &namespace, true)?;
    let made = wait::within(LONG, "a pod of both webhooks", async || {
        Ok(pods.create(&PostParams::default(), &asked).await.ok())
    })
    .await
    .with_context(|| injector.process.log().unwrap_or_default())?;
    let containers = made.spec.context("a spec")?.containers;
    let names: Vec<&str> = containers.iter().map(|one| one.name.as_str()).collect();
    ensure!(names == ["app", other::CONTAINER], "{names:?}");
    for container in &containers {
        let env = serde_json::to_string(&container.env)?;
        ensure!(env.contains("SPIFFE_ENDPOINT_SOCKET"), "{container:?}");
    }
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client()?);
    for name in [&injector.name, &other] {
        configurations
            .delete(name, &DeleteParams::default())
            .await?;
    }
    Ok(())
}

async fn edit(
    configurations: &Api<MutatingWebhookConfiguration>,
    name: &str,
    pem: &[u8],
) -> Result<()> {
    let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": STANDARD.encode(pem)}]);
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(patch)?);
    configurations
        .patch(name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}
