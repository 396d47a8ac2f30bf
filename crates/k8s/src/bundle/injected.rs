//! The trust bundle as the `caBundle` of others' objects: webhook configurations, aggregated APIs, and custom resources that a
//! webhook converts (CTL-20).
//!
//! Whoever may change an object asks for it by a label. It is written by the leader alone, as the field manager of the ConfigMaps,
//! which owns nothing else of it. An object whose label goes keeps what it has.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, pin_mut};
use identity::Bundle;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use runtime::backoff::Backoff;
use runtime::{BoxError, Metrics, Shutdown, Tasks};
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::object::MANAGER;
use super::plan::{Listed, Told};
use super::{CALL, FIRST_RETRY, LONGEST_RETRY, SETTLE, WriteError, is_publishable, watches};
use crate::admission::ca_bundle::{Roots, State, hosts, patch, state};
use crate::lease;

/// By which an object asks for it.
const LABEL: &str = "signet.dev/inject-ca=true";
/// Between two rounds of writes: somebody may keep something else in the same place.
const PACE: Duration = Duration::from_secs(1);

/// Where the `caBundle` of a kind is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In each webhook of a webhook configuration.
    Webhooks,
    /// In an APIService.
    Service,
    /// In the conversion of a CustomResourceDefinition.
    Conversion,
}

/// What all loops go by.
#[derive(Clone)]
pub(super) struct Injection {
    pub(super) client: Client,
    pub(super) trust_domain: String,
    pub(super) bundles: watch::Receiver<Option<Arc<Bundle>>>,
    pub(super) leads: Option<watch::Receiver<bool>>,
    pub(super) metrics: Metrics,
}

/// Keeps the `caBundle`s until shutdown.
pub(super) fn start(injection: &Injection, tasks: &Tasks) {
    let kinds = [
        (
            Place::Webhooks,
            ApiResource::erase::<MutatingWebhookConfiguration>(&()),
        ),
        (
            Place::Webhooks,
            ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
        ),
        (Place::Service, ApiResource::erase::<APIService>(&())),
        (
            Place::Conversion,
            ApiResource::erase::<CustomResourceDefinition>(&()),
        ),
    ];
    for (place, resource) in kinds {
        let injector = Injector {
            api: Api::all_with(injection.client.clone(), &resource),
            place,
            resource,
            there: Listed::new(),
            wanted: None,
            injection: injection.clone(),
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
        };
        tasks.spawn("caBundle injection", injector.run(tasks.shutdown()));
    }
}

/// The loop over one kind.
struct Injector {
    api: Api<DynamicObject>,
    place: Place,
    resource: ApiResource,
    there: Listed<String, Json>,
    wanted: Option<Roots>,
    injection: Injection,
    backoff: Backoff,
}

impl Injector {
    async fn run(mut self, shutdown: Shutdown) -> Result<(), BoxError> {
        let watch = watcher(self.api.clone(), watcher::Config::default().labels(LABEL));
        let events = watches::whole("caBundles", watch, &self.injection.metrics);
        pin_mut!(events);
        let mut due = None;
        let mut not_before = Instant::now();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.there.take(watches::told(event, by_name)),
                    None => return Err("the watch of objects with a caBundle ended".into()),
                },
                changed = self.injection.bundles.changed() => {
                    if changed.is_err() { return Ok(()) }
                    self.renew();
                }
                () = lease::changed(self.injection.leads.as_mut()) => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let done = tokio::select! {
                        done = self.work() => done,
                        () = shutdown.cancelled() => return Ok(()),
                    };
                    not_before = Instant::now() + PACE;
                    due = (!done).then(|| Instant::now() + self.backoff.fail());
                    continue;
                }
                () = shutdown.cancelled() => return Ok(()),
            }
            let soon = (Instant::now() + SETTLE).max(not_before);
            due = Some(due.map_or(soon, |due: Instant| due.min(soon)));
        }
    }

    fn renew(&mut self) {
        let bundle = self.injection.bundles.borrow_and_update().clone();
        let bundle = bundle.filter(|bundle| is_publishable(bundle, &self.injection.trust_domain));
        if let Some(bundle) = bundle {
            self.wanted = Some(Roots::of(&bundle));
        }
    }

    fn leads(&self) -> bool {
        let leads = self.injection.leads.as_ref();
        leads.is_none_or(|leads| *leads.borrow())
    }

    /// Writes what is not as it should be; whether all of it was taken.
    async fn work(&mut self) -> bool {
        let Some(wanted) = self.wanted.clone() else {
            return true;
        };
        let (mut done, mut applied) = (true, Vec::new());
        for (name, object) in self.there.known() {
            let patch = match right(self.place, &self.resource, object, &wanted) {
                Ok(None) => continue,
                Ok(Some(patch)) => patch,
                Err(why) => {
                    let kind = &self.resource.kind;
                    tracing::warn!(name, kind, why, "it asks for a caBundle and gets none");
                    continue;
                }
            };
            // Another may lead since the last one.
            if !self.leads() {
                return true;
            }
            match self.apply(name, &patch).await {
                Ok(object) => applied.push(by_name(object)),
                Err(error) => {
                    done = false;
                    self.told(name, Some(error));
                }
            }
        }
        for (name, object) in applied {
            self.told(&name, None);
            self.there.take(Told::Changed(name, object));
        }
        if done {
            self.backoff.reset();
        }
        done
    }

    async fn apply(&self, name: &str, patch: &Json) -> Result<DynamicObject, WriteError> {
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(patch);
        let call = self.api.patch(name, &params, &patch);
        let answer = timeout(CALL, call).await;
        Ok(answer.map_err(|_| WriteError::Silent)??)
    }

    fn told(&self, name: &str, error: Option<WriteError>) {
        let (kind, metrics) = (&self.resource.kind, &self.injection.metrics);
        if let Some(error) = error {
            metrics.counter("ca_bundle_errors", &[]).increment();
            tracing::warn!(name, kind, %error, "the caBundle cannot be set");
        } else {
            metrics.counter("ca_bundle_applied", &[]).increment();
            tracing::info!(name, kind, "the caBundle is set");
        }
    }
}

fn by_name(object: DynamicObject) -> (String, Json) {
    let name = object.metadata.name.clone().unwrap_or_default();
    // Only what cannot be written as JSON makes none, and this came as JSON.
    (name, serde_json::to_value(object).unwrap_or_default())
}

/// What is to be applied; none when it is as it should be.
///
/// # Errors
/// Why the object has no place for a `caBundle`.
fn right(
    place: Place,
    resource: &ApiResource,
    object: &Json,
    wanted: &Roots,
) -> Result<Option<Json>, &'static str> {
    let name = object.pointer("/metadata/name").and_then(Json::as_str);
    let name = name.unwrap_or_default();
    let (there, spec) = match place {
        Place::Webhooks => {
            let hosts = hosts(object);
            return match state(object, &hosts, wanted) {
                State::NoWebhook => Err("it has no webhooks"),
                State::Equal => Ok(None),
                _ => Ok(Some(patch(object, resource, name, &hosts, wanted))),
            };
        }
        Place::Service => {
            let spec = &object["spec"];
            if !spec["service"].is_object() {
                return Err("the API server serves this API itself");
            }
            if spec["insecureSkipTLSVerify"] == true {
                return Err(
                    "insecureSkipTLSVerify: take it out, the API server allows one of the two",
                );
            }
            let there = &spec["caBundle"];
            (there, json!({ "caBundle": wanted.to_ca_bundle() }))
        }
        Place::Conversion => {
            let conversion = &object["spec"]["conversion"];
            if conversion["strategy"] != "Webhook" {
                return Err("no webhook converts it");
            }
            let config = json!({ "clientConfig": { "caBundle": wanted.to_ca_bundle() } });
            let there = &conversion["webhook"]["clientConfig"]["caBundle"];
            (there, json!({ "conversion": { "webhook": config } }))
        }
    };
    let there = there.as_str().and_then(Roots::from_ca_bundle);
    let patch = || {
        json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": name },
            "spec": spec,
        })
    };
    Ok((there.as_ref() != Some(wanted)).then(patch))
}

#[cfg(test)]
mod tests;
