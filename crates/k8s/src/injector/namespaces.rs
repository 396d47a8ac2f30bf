//! The labels and annotations of namespaces, by a watch of their metadata.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace as Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use runtime::backoff::Backoff;
use runtime::{Part, Tasks};
use tokio::time::timeout;

use crate::inject::Namespace;

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// For the one question about a namespace that the watch has not told of yet.
const LOOK_UP: Duration = Duration::from_secs(2);

/// What is known of namespaces.
#[derive(Clone)]
pub(super) struct Namespaces {
    known: Arc<RwLock<HashMap<String, Arc<Namespace>>>>,
    api: Api<PartialObjectMeta<Object>>,
}

/// Starts the watch; `synced` is let go once all namespaces are known.
pub(super) fn watch(client: Client, synced: Part, tasks: &Tasks) -> Namespaces {
    let namespaces = Namespaces {
        known: Arc::default(),
        api: Api::all(client),
    };
    let watching = namespaces.clone();
    let shutdown = tasks.shutdown();
    tasks.spawn("namespaces", async move {
        let mut events = pin!(watcher(watching.api.clone(), watcher::Config::default()));
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let mut synced = Some(synced);
        let mut listed = HashMap::new();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = shutdown.cancelled() => return Ok(()),
            };
            match event {
                Some(Ok(event)) => {
                    backoff.reset();
                    if watching.take(event, &mut listed) {
                        synced.take();
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the namespaces cannot be watched");
                    tokio::select! {
                        () = tokio::time::sleep(backoff.fail()) => {}
                        () = shutdown.cancelled() => return Ok(()),
                    }
                }
                None => return Err("the watch of namespaces ended".into()),
            }
        }
    });
    namespaces
}

impl Namespaces {
    /// These, and an API server to ask about others.
    #[cfg(test)]
    pub(super) fn of(all: Vec<Namespace>, client: Client) -> Self {
        let owned = |one: Namespace| (one.name.clone(), Arc::new(one));
        Self {
            known: Arc::new(RwLock::new(all.into_iter().map(owned).collect())),
            api: Api::all(client),
        }
    }

    /// The namespace of this name. One that was made a moment ago is asked for.
    pub(super) async fn get(&self, name: &str) -> Result<Arc<Namespace>, String> {
        if let Some(found) = self.known(name) {
            return Ok(found);
        }
        match timeout(LOOK_UP, self.api.get(name)).await {
            Ok(Ok(object)) => Ok(Arc::new(namespace(object.metadata).1)),
            Ok(Err(error)) => Err(format!("namespace {name} cannot be read: {error}")),
            Err(_) => Err(format!(
                "namespace {name} cannot be read: the API server does not answer"
            )),
        }
    }

    fn known(&self, name: &str) -> Option<Arc<Namespace>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(name).cloned()
    }

    /// Whether all are known now.
    fn take(
        &self,
        event: Event<PartialObjectMeta<Object>>,
        listed: &mut HashMap<String, Arc<Namespace>>,
    ) -> bool {
        let known = || self.known.write().unwrap_or_else(PoisonError::into_inner);
        let owned = |metadata| {
            let (name, namespace) = namespace(metadata);
            (name, Arc::new(namespace))
        };
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => listed.extend([owned(object.metadata)]),
            Event::InitDone => {
                *known() = std::mem::take(listed);
                return true;
            }
            Event::Apply(object) => known().extend([owned(object.metadata)]),
            Event::Delete(object) => {
                known().remove(&object.metadata.name.unwrap_or_default());
            }
        }
        false
    }
}

fn namespace(metadata: ObjectMeta) -> (String, Namespace) {
    let name = metadata.name.unwrap_or_default();
    let namespace = Namespace {
        name: name.clone(),
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
    };
    (name, namespace)
}
