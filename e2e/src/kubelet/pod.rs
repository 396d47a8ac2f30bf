//! One pod's life: network, volumes, init containers and sidecars in order, the rest, restarts, and the end.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::container::{Container, Ended, Surroundings};
use super::node::{NODE_ADDRESS, Node, Running};
use super::tokens::Token;
use super::{csi, list, probe, status, text, volumes};
use crate::cluster::Tethered;
use crate::netns::NetNs;

const TICK: Duration = Duration::from_millis(50);
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What kind of container, and therefore when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Must end well before the next.
    Init,
    /// An init container that stays: must have started before the next.
    Sidecar,
    /// The rest.
    Main,
}

/// A container of the pod's spec, and how it fares.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) spec: Value,
    pub(super) kind: Kind,
    pub(super) running: Option<Container>,
    pub(super) last: Option<Ended>,
    pub(super) restarts: u32,
    pub(super) waiting: Option<(&'static str, String)>,
    not_before: Instant,
}

struct Worker {
    node: Arc<Node>,
    pod: Value,
    slots: Vec<Slot>,
    around: Option<Surroundings>,
    tokens: Vec<Token>,
    said: Value,
    // Ends after the containers that use it.
    _network: Option<Tethered>,
}

/// Runs the pod until it is deleted.
pub(super) async fn run(node: Arc<Node>, mut updates: watch::Receiver<Option<Value>>) {
    let Some(pod) = updates.borrow_and_update().clone() else {
        return;
    };
    let uid = text(&pod, "/metadata/uid").unwrap_or_default().to_owned();
    let mut worker = Worker::new(node, pod);
    let to_end = |pod: &Option<Value>| {
        pod.as_ref()
            .is_none_or(|pod| pod["metadata"].get("deletionTimestamp").is_some())
    };
    tokio::select! {
        () = worker.live() => {}
        _ = updates.wait_for(to_end) => {}
    }
    let gone = updates.borrow().is_none();
    worker.end(gone).await;
    let node = Arc::clone(&worker.node);
    drop(worker);
    node.pods().remove(&uid);
}

impl Worker {
    fn new(node: Arc<Node>, pod: Value) -> Self {
        let slot = |spec: &Value, kind| Slot {
            spec: spec.clone(),
            kind,
            running: None,
            last: None,
            restarts: 0,
            waiting: None,
            not_before: Instant::now(),
        };
        let first = list(&pod, "/spec/initContainers").iter().map(|spec| {
            let stays = spec["restartPolicy"] == "Always";
            slot(spec, if stays { Kind::Sidecar } else { Kind::Init })
        });
        let rest = list(&pod, "/spec/containers").iter();
        let slots = first.chain(rest.map(|spec| slot(spec, Kind::Main)));
        Self {
            slots: slots.collect(),
            node,
            pod,
            around: None,
            tokens: Vec::new(),
            said: Value::Null,
            _network: None,
        }
    }

    /// Never returns: the pod's end comes from outside.
    async fn live(&mut self) {
        while self.around.is_none() {
            match self.prepare().await {
                Ok(around) => self.around = Some(around),
                Err(error) => {
                    for slot in &mut self.slots {
                        slot.waiting = Some(("ContainerCreating", format!("{error:#}")));
                    }
                    self.say().await;
                    sleep(AGAIN).await;
                }
            }
        }
        loop {
            self.look();
            match status::phase(&self.pod, &self.slots) {
                "Succeeded" | "Failed" => self.end_sidecars().await,
                _ => self.start_what_may().await,
            }
            for token in &mut self.tokens {
                token.tend(&self.node, &self.pod).await;
            }
            self.say().await;
            sleep(TICK).await;
        }
    }

    async fn prepare(&mut self) -> Result<Surroundings> {
        let uid = text(&self.pod, "/metadata/uid")?.to_owned();
        let name = text(&self.pod, "/metadata/name")?.to_owned();
        let on_host = self.pod["spec"]["hostNetwork"] == true;
        let (network, address) = if on_host {
            (self.node.network(), NODE_ADDRESS.to_string())
        } else {
            let (hold, address) = self.node.sandbox(&uid).await?;
            let network = NetNs::of(hold.pid());
            self._network = Some(hold);
            (network, address.to_string())
        };
        self.pod["status"]["podIP"] = json!(address);
        self.pod["status"]["hostIP"] = json!(NODE_ADDRESS);
        let hosts = self.node.path(&format!("hosts/{uid}"));
        loop {
            let services = self.node.hosts().borrow().clone();
            let all = format!("127.0.0.1 localhost\n{address} {name}\n{services}");
            fs::write(&hosts, all)?;
            // Whoever rewrote the files meanwhile did not find this one.
            if *self.node.hosts().borrow() == services {
                break;
            }
        }
        let volumes = volumes::prepare(&self.node, &self.pod).await?;
        self.tokens = volumes.tokens;
        let around = Surroundings {
            network,
            address,
            hosts,
            volumes: volumes.places,
            class: status::class(&self.pod).to_owned(),
        };
        let running = Running {
            object: self.pod.clone(),
            network: around.network.clone(),
        };
        self.node.pods().insert(uid, running);
        Ok(around)
    }

    /// Notes what has ended, and ends what its probe calls unhealthy.
    fn look(&mut self) {
        for slot in &mut self.slots {
            let Some(container) = &mut slot.running else {
                continue;
            };
            if container.health.unhealthy.load(Ordering::Relaxed) {
                container.kill();
            }
            if let Some(ended) = container.ended() {
                slot.running = None;
                let pause = AGAIN * 2_u32.saturating_pow(slot.restarts.min(8)) / 2;
                slot.not_before = Instant::now() + pause.min(LONGEST_PAUSE);
                let waits = ("CrashLoopBackOff", format!("ended with {}", ended.code));
                slot.last = Some(ended);
                slot.waiting = restarts(&self.pod, slot).then_some(waits);
            }
        }
    }

    /// Starts, in order, every container whose turn it is.
    async fn start_what_may(&mut self) {
        let Some(around) = &self.around else { return };
        for slot in &mut self.slots {
            let again = restarts(&self.pod, slot);
            let started = slot
                .running
                .as_ref()
                .is_some_and(|container| container.health.started.load(Ordering::Relaxed));
            if slot.running.is_none() && again && Instant::now() >= slot.not_before {
                match Container::start(&self.node, &self.pod, around, &slot.spec).await {
                    Ok(container) => {
                        slot.restarts += u32::from(slot.last.is_some());
                        slot.waiting = None;
                        slot.running = Some(container);
                    }
                    Err(error) => {
                        slot.waiting = Some(("CreateContainerError", format!("{error:#}")));
                        slot.not_before = Instant::now() + AGAIN;
                    }
                }
            }
            let well = slot.last.as_ref().is_some_and(|ended| ended.code == 0);
            let over = match slot.kind {
                Kind::Init => slot.running.is_none() && well,
                Kind::Sidecar => started,
                Kind::Main => true,
            };
            if !over {
                return;
            }
        }
    }

    /// The app has ended for good: sidecars end after it, before anybody hears of it.
    async fn end_sidecars(&mut self) {
        let deadline = Instant::now() + self.grace();
        for slot in self.slots.iter_mut().rev() {
            stop(slot, self.around.as_ref(), &self.node, deadline).await;
        }
    }

    fn grace(&self) -> Duration {
        let seconds = self.pod["spec"]["terminationGracePeriodSeconds"].as_u64();
        Duration::from_secs(seconds.unwrap_or(30))
    }

    /// Writes the status, when it has changed, and shows it in `/pods`.
    async fn say(&mut self) {
        let address = self.around.as_ref().map(|around| around.address.as_str());
        let status = status::of(&self.pod, &self.slots, address, &self.said);
        if status == self.said {
            return;
        }
        self.pod["status"] = status.clone();
        let uid = text(&self.pod, "/metadata/uid").unwrap_or_default();
        if let Some(running) = self.node.pods().get_mut(uid) {
            running.object = self.pod.clone();
        }
        if self.write(&status).await.is_ok() {
            self.said = status;
        }
    }

    async fn write(&self, status: &Value) -> Result<()> {
        let name = text(&self.pod, "/metadata/name")?;
        let uid = text(&self.pod, "/metadata/uid")?;
        // With the UID, a pod of the same name that came later is left alone.
        let patch = json!({"metadata": {"uid": uid}, "status": status});
        self.api()?
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("write the status of {name}"))?;
        Ok(())
    }

    /// The rest first, then sidecars in reverse order; then the object goes, unless it has gone already.
    async fn end(&mut self, gone: bool) {
        let grace = if gone { Duration::ZERO } else { self.grace() };
        let deadline = Instant::now() + grace;
        for sidecars in [false, true] {
            let slots = self.slots.iter_mut().rev();
            for slot in slots.filter(|slot| (slot.kind == Kind::Sidecar) == sidecars) {
                stop(slot, self.around.as_ref(), &self.node, deadline).await;
            }
        }
        csi::unpublish(&self.node, &self.pod).await;
        if !gone {
            let _ = self.delete().await;
        }
    }

    async fn delete(&self) -> Result<()> {
        let name = text(&self.pod, "/metadata/name")?;
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(text(&self.pod, "/metadata/uid")?.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        self.api()?.delete(name, &now).await?;
        Ok(())
    }

    fn api(&self) -> Result<Api<Pod>> {
        let namespace = text(&self.pod, "/metadata/namespace")?;
        Ok(Api::namespaced(self.node.client(), namespace))
    }
}

/// Its hook, SIGTERM, and patience until the deadline.
async fn stop(slot: &mut Slot, around: Option<&Surroundings>, node: &Node, deadline: Instant) {
    let Some(container) = &mut slot.running else {
        return;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if let (Some(hook), Some(around)) = (probe::pre_stop(&slot.spec), around) {
        let running = (container.id.as_str(), container.pid());
        let target = probe::Target::new(node, around, &slot.spec, running);
        let _ = timeout(left, probe::act(hook, &target)).await;
    }
    container.terminate();
    let mut ended = container.ended();
    while ended.is_none() && Instant::now() < deadline {
        sleep(TICK).await;
        ended = container.ended();
    }
    if let Some(container) = slot.running.take() {
        slot.last = Some(ended.unwrap_or_else(|| container.killed()));
        slot.waiting = None;
    }
}

/// Whether a container that does not run is to be started.
fn restarts(pod: &Value, slot: &Slot) -> bool {
    let Some(ended) = &slot.last else { return true };
    let policy = pod["spec"]["restartPolicy"].as_str().unwrap_or("Always");
    match slot.kind {
        Kind::Sidecar => true,
        Kind::Init => ended.code != 0 && policy != "Never",
        Kind::Main => policy == "Always" || (policy == "OnFailure" && ended.code != 0),
    }
}
