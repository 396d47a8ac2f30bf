//! Events on the owners of pods, written by a task of their own: a review never waits for them.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use runtime::{Metrics, Tasks};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::NAME;

/// More than these wait for nobody: the newest are dropped and counted.
const QUEUE: usize = 256;
/// The same about the same owner is not said again for so long.
const QUIET: Duration = Duration::from_secs(60);
const CALL: Duration = Duration::from_secs(5);
/// The longest note of an Event.
const MAX_NOTE: usize = 1000;
/// Owners remembered for the pause; beyond it the memory starts anew.
const MAX_REMEMBERED: usize = 4096;

/// Something to be said about a pod's owner.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Notice {
    pub(super) owner: ObjectReference,
    /// Why it was not injected: a code of [`crate::inject::REFUSALS`].
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Takes notices, and never waits.
#[derive(Clone)]
pub(super) struct Events {
    notices: mpsc::Sender<Notice>,
    metrics: Metrics,
}

impl Events {
    /// With nobody to write what is taken.
    #[cfg(test)]
    pub(super) fn queue(metrics: &Metrics) -> (Self, mpsc::Receiver<Notice>) {
        let (notices, received) = mpsc::channel(QUEUE);
        let metrics = metrics.clone();
        (Self { notices, metrics }, received)
    }

    pub(super) fn tell(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            self.metrics.counter("events_dropped", &[]).increment();
        }
    }
}

pub(super) fn start(client: Client, identity: String, metrics: Metrics, tasks: &Tasks) -> Events {
    let (notices, mut received) = mpsc::channel::<Notice>(QUEUE);
    let reporter = Reporter {
        controller: NAME.to_owned(),
        instance: Some(identity),
    };
    let recorder = Recorder::new(client, reporter);
    let shutdown = tasks.shutdown();
    tasks.spawn("events", async move {
        let mut said: HashMap<(Option<String>, &'static str), Instant> = HashMap::new();
        loop {
            let notice = tokio::select! {
                notice = received.recv() => notice,
                () = shutdown.cancelled() => None,
            };
            let Some(notice) = notice else { return Ok(()) };
            let key = (notice.owner.uid.clone(), notice.code);
            let now = Instant::now();
            if said.get(&key).is_some_and(|last| now - *last < QUIET) {
                continue;
            }
            if said.len() >= MAX_REMEMBERED {
                said.clear();
            }
            said.insert(key, now);
            write(&recorder, notice).await;
        }
    });
    Events { notices, metrics }
}

async fn write(recorder: &Recorder, notice: Notice) {
    let mut note = format!("{}: {}", notice.code, notice.message);
    note.truncate(note.floor_char_boundary(MAX_NOTE));
    let event = Event {
        type_: EventType::Warning,
        reason: "InjectionRefused".to_owned(),
        note: Some(note),
        action: "Inject".to_owned(),
        secondary: None,
    };
    match timeout(CALL, recorder.publish(&event, &notice.owner)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an Event is not written"),
        Err(_) => tracing::debug!("an Event is not written: no answer"),
    }
}

/// Whom a pod belongs to: its controller. A pod that is not stored yet has no UID for an Event of its own.
pub(super) fn owner(pod: &Value, namespace: &str) -> Option<ObjectReference> {
    let owners = pod.pointer("/metadata/ownerReferences")?.as_array()?;
    let is_controller = |owner: &&Value| owner.get("controller") == Some(&Value::Bool(true));
    let owner = owners.iter().find(is_controller)?;
    let text = |key: &str| {
        owner
            .get(key)
            .and_then(Value::as_str)
            .map(ToOwned::to_owned)
    };
    Some(ObjectReference {
        api_version: text("apiVersion"),
        kind: text("kind"),
        name: Some(text("name")?),
        namespace: Some(namespace.to_owned()),
        uid: Some(text("uid")?),
        ..ObjectReference::default()
    })
}
