//! Keeps `webhooks[*].clientConfig.caBundle` of webhook configurations, by server-side apply under a field manager of its own that
//! owns nothing else.
//!
//! Every replica does this, without a leader: all want the same roots. One that hears of new roots late sees more than it wants and
//! leaves them for [`PATIENCE`]; what is missing is put back at once.

mod roots;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, pin_mut};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use runtime::backoff::Backoff;
use runtime::{BoxError, Metrics, Shutdown, Tasks};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

pub use roots::Roots;

/// How long roots that are not ours may stay beside ours.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// For one call to the API server.
const CALL: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Which kind of configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// MutatingWebhookConfiguration.
    Mutating,
    /// ValidatingWebhookConfiguration.
    Validating,
}

/// A webhook configuration whose `caBundle` is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its kind.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
}

impl Target {
    fn resource(&self) -> ApiResource {
        match self.kind {
            TargetKind::Mutating => ApiResource::erase::<MutatingWebhookConfiguration>(&()),
            TargetKind::Validating => ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
        }
    }
}

/// Keeps `roots` in `target` as the field manager `manager`, until shutdown. Gives the roots that were last seen or put there.
///
/// Only webhooks that lead to one of `hosts` (`<service>.<namespace>.svc`, or the host of a URL) are touched.
#[must_use]
pub fn keep(
    client: Client,
    target: Target,
    hosts: &[String],
    manager: &str,
    roots: watch::Receiver<Option<Arc<Roots>>>,
    metrics: Metrics,
    tasks: &Tasks,
) -> watch::Receiver<Option<Arc<Roots>>> {
    let (in_place, receiver) = watch::channel(None);
    let resource = target.resource();
    let keeper = Keeper {
        api: Api::all_with(client, &resource),
        resource,
        hosts: hosts.to_vec(),
        manager: manager.to_owned(),
        object: None,
        stranger_since: None,
        in_place,
        metrics,
        target,
    };
    tasks.spawn("caBundle keeper", keeper.run(roots, tasks.shutdown()));
    receiver
}

struct Keeper {
    api: Api<DynamicObject>,
    resource: ApiResource,
    target: Target,
    hosts: Vec<String>,
    manager: String,
    /// As last seen.
    object: Option<Value>,
    /// Since when it has roots beside ours.
    stranger_since: Option<Instant>,
    in_place: watch::Sender<Option<Arc<Roots>>>,
    metrics: Metrics,
}

impl Keeper {
    async fn run(
        mut self,
        mut roots: watch::Receiver<Option<Arc<Roots>>>,
        shutdown: Shutdown,
    ) -> Result<(), BoxError> {
        let only = format!("metadata.name={}", self.target.name);
        let events = watcher(self.api.clone(), watcher::Config::default().fields(&only));
        pin_mut!(events);
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let mut again: Option<Instant> = None;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.take(event),
                    Some(Err(error)) => {
                        tracing::warn!(%error, name = self.target.name, "the webhook configuration cannot be watched");
                        tokio::select! {
                            () = tokio::time::sleep(backoff.fail()) => {}
                            () = shutdown.cancelled() => return Ok(()),
                        }
                        continue;
                    }
                    None => return Err("the watch of the webhook configuration ended".into()),
                },
                changed = roots.changed() => if changed.is_err() { return Ok(()) },
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            let Some(wanted) = roots.borrow_and_update().clone() else {
                continue;
            };
            again = self.look(&wanted, &mut backoff).await;
        }
    }

    fn take(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                self.object = serde_json::to_value(object).ok();
            }
            Event::Delete(_) => self.object = None,
            Event::Init | Event::InitDone => {}
        }
    }

    /// Does what is due now, and says when to look again.
    async fn look(&mut self, wanted: &Arc<Roots>, backoff: &mut Backoff) -> Option<Instant> {
        let object = self.object.as_ref()?;
        let now = Instant::now();
        let state = state(object, &self.hosts, wanted);
        if state != State::Stranger {
            self.stranger_since = None;
        }
        match state {
            State::NoWebhook => {
                tracing::warn!(
                    name = self.target.name,
                    hosts = self.hosts.join(" "),
                    "no webhook of the configuration leads here; its caBundle is left alone"
                );
                return None;
            }
            State::Equal => {
                backoff.reset();
                self.in_place.send_replace(Some(Arc::clone(wanted)));
                return None;
            }
            State::Stranger => {
                let due = *self.stranger_since.get_or_insert(now) + PATIENCE;
                if now < due {
                    // Ours are there, and that is what serving waits for.
                    self.in_place.send_replace(Some(Arc::clone(wanted)));
                    return Some(due);
                }
            }
            State::Missing => {}
        }
        match self.apply(object, wanted).await {
            Ok(applied) => {
                backoff.reset();
                self.stranger_since = None;
                self.metrics.counter("ca_bundle_applied", &[]).increment();
                tracing::info!(
                    name = self.target.name,
                    roots = wanted.len(),
                    "the webhook configuration's caBundle is set"
                );
                self.object = Some(applied);
                self.in_place.send_replace(Some(Arc::clone(wanted)));
                None
            }
            Err(error) => {
                self.metrics.counter("ca_bundle_errors", &[]).increment();
                tracing::warn!(error, name = self.target.name, "the caBundle cannot be set");
                Some(Instant::now() + backoff.fail())
            }
        }
    }

    async fn apply(&self, object: &Value, wanted: &Roots) -> Result<Value, String> {
        let patch = patch(
            object,
            &self.resource,
            &self.target.name,
            &self.hosts,
            wanted,
        );
        let params = PatchParams::apply(&self.manager).force();
        let patch = Patch::Apply(patch);
        let call = self.api.patch(&self.target.name, &params, &patch);
        let applied = match timeout(CALL, call).await {
            Ok(answer) => answer.map_err(|error| error.to_string())?,
            Err(_) => return Err("the API server does not answer".to_owned()),
        };
        serde_json::to_value(applied).map_err(|error| error.to_string())
    }
}

/// How a configuration's `caBundle`s are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// None of its webhooks is ours.
    NoWebhook,
    /// As wanted.
    Equal,
    /// All that is wanted is there, and more.
    Stranger,
    /// Something is missing, or cannot be read.
    Missing,
}

pub(crate) fn state(object: &Value, hosts: &[String], wanted: &Roots) -> State {
    let state = |webhook: &Value| {
        let text = webhook
            .pointer("/clientConfig/caBundle")
            .and_then(Value::as_str);
        match text.and_then(Roots::from_ca_bundle) {
            Some(there) if there == *wanted => State::Equal,
            Some(there) if there.contains(wanted) => State::Stranger,
            _ => State::Missing,
        }
    };
    let states: Vec<_> = ours(object, hosts)
        .map(|(_, webhook)| state(webhook))
        .collect();
    match states.as_slice() {
        [] => State::NoWebhook,
        states if states.contains(&State::Missing) => State::Missing,
        states if states.contains(&State::Stranger) => State::Stranger,
        _ => State::Equal,
    }
}

/// What is applied: all of our webhooks each time, for what is left out is given up.
pub(crate) fn patch(
    object: &Value,
    resource: &ApiResource,
    name: &str,
    hosts: &[String],
    wanted: &Roots,
) -> Value {
    let ca_bundle = wanted.to_ca_bundle();
    let webhooks: Vec<_> = ours(object, hosts)
        .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": ca_bundle}}))
        .collect();
    json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "webhooks": webhooks,
    })
}

/// The webhooks that lead to one of `hosts`, by name.
fn ours<'a>(object: &'a Value, hosts: &'a [String]) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let webhooks = object.get("webhooks").and_then(Value::as_array);
    webhooks.into_iter().flatten().filter_map(move |webhook| {
        let host = host(webhook.get("clientConfig")?)?;
        let name = webhook.get("name")?.as_str()?;
        hosts.contains(&host).then_some((name, webhook))
    })
}

/// The names that the API server wants in the certificates of a configuration's webhooks.
#[must_use]
pub fn hosts(object: &Value) -> Vec<String> {
    let webhooks = object.get("webhooks").and_then(Value::as_array);
    let hosts = webhooks.into_iter().flatten();
    let hosts: BTreeSet<String> = hosts
        .filter_map(|webhook| host(webhook.get("clientConfig")?))
        .collect();
    hosts.into_iter().collect()
}

/// The name that the API server wants in the certificate.
fn host(client_config: &Value) -> Option<String> {
    if let Some(service) = client_config.get("service").filter(|one| one.is_object()) {
        let name = service.get("name")?.as_str()?;
        let namespace = service.get("namespace")?.as_str()?;
        return Some(format!("{name}.{namespace}.svc"));
    }
    let url: http::Uri = client_config.get("url")?.as_str()?.parse().ok()?;
    url.host().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests;
