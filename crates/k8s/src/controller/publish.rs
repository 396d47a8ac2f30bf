//! Writes statuses and Events to the API server, so that the loop never waits for it.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use runtime::{BoxError, Metrics, Shutdown};
use serde_json::json;
use tokio::sync::mpsc;

use super::state::{Kind, StatusUpdate};
use super::watch;

/// Who writes, in managed fields and Events.
pub(super) const NAME: &str = "signet-controller";

/// The longest note of an Event.
const MAX_NOTE: usize = 1000;

/// Writes Events in the name of `identity`, this process among its replicas.
pub(super) fn recorder(client: &Client, identity: String) -> Recorder {
    let reporter = Reporter {
        controller: NAME.to_owned(),
        instance: Some(identity),
    };
    Recorder::new(client.clone(), reporter)
}

/// Writes what comes.
pub(super) struct Publisher {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) updates: mpsc::Receiver<StatusUpdate>,
    pub(super) unwritten: HashMap<Kind, mpsc::UnboundedSender<String>>,
    pub(super) metrics: Metrics,
}

impl Publisher {
    pub(super) async fn run(mut self, shutdown: Shutdown) -> Result<(), BoxError> {
        loop {
            let update = tokio::select! {
                update = self.updates.recv() => update,
                () = shutdown.cancelled() => None,
            };
            let Some(update) = update else { return Ok(()) };
            if self.write(&update).await {
                self.tell(&update).await;
            } else if let Some(unwritten) = self.unwritten.get(&update.kind) {
                let _ = unwritten.send(update.uid);
            }
        }
    }

    /// Whether the status was written, or need not be any more.
    async fn write(&self, update: &StatusUpdate) -> bool {
        let api = watch::api(&self.client, update.kind, update.namespace.as_deref());
        let patch = json!({ "metadata": { "uid": update.uid }, "status": update.status });
        let params = PatchParams {
            field_manager: Some(NAME.to_owned()),
            ..PatchParams::default()
        };
        match api
            .patch_status(&update.name, &params, &Patch::Merge(&patch))
            .await
        {
            Ok(_) => true,
            // It is gone, or another one of its name is there.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
            Err(error) => {
                self.metrics
                    .counter("kubernetes_errors", &[("call", "status")])
                    .increment();
                tracing::warn!(resource = update.name, %error, "cannot write a status");
                // The API server may be away; whatever comes next would fail too.
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                false
            }
        }
    }

    async fn tell(&self, update: &StatusUpdate) {
        let Some((warning, reason, message)) = &update.event else {
            return;
        };
        let event = Event {
            type_: if *warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.clone(),
            note: Some(message.chars().take(MAX_NOTE).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &reference(update)).await {
            self.metrics
                .counter("kubernetes_errors", &[("call", "event")])
                .increment();
            tracing::debug!(resource = update.name, %error, "cannot write an Event");
        }
    }
}

fn reference(update: &StatusUpdate) -> ObjectReference {
    let kind = watch::resource(update.kind, true);
    ObjectReference {
        api_version: Some(kind.api_version),
        kind: Some(kind.kind),
        namespace: update.namespace.clone(),
        name: Some(update.name.clone()),
        uid: Some(update.uid.clone()),
        ..ObjectReference::default()
    }
}
