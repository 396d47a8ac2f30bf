//! The server's trust bundle in the cluster: a ConfigMap in its own namespace and in those that a selector takes, and a
//! ClusterTrustBundle where the cluster has them, and where it is told so in others' `caBundle`s (CTL-20).
//!
//! A loop owns the pure `plan`: watches and the server's bundle go in, server-side applies come out, under a field manager of
//! its own. The leader alone writes. A namespace that is no longer selected keeps what it has.

pub mod config;
mod injected;
mod object;
mod plan;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use identity::{Bundle, TrustDomain};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event as Notice, EventType, Recorder};
use kube::{Api, Client};
use runtime::backoff::Backoff;
use runtime::{BoxError, Metrics, Shutdown, Tasks};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::lease;
use crate::signet::Signet;
use config::Config;
use injected::Injection;
use object::{MANAGER, Names, Seen};
use plan::{Plan, Step, Target, Told};
use watches::Event;

/// Between what happens and the work, so that several events are one piece of work, and nobody is fought in haste.
const SETTLE: Duration = Duration::from_millis(100);
/// How many objects are written at once.
const AT_ONCE: usize = 16;
/// For one call to the API server.
const CALL: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What the publisher runs by.
pub struct Options {
    /// What goes where.
    pub config: Config,
    /// Whose bundle it is.
    pub trust_domain: TrustDomain,
    /// The server it is asked of.
    pub signet: Signet,
    /// The API server.
    pub client: Client,
    /// Whether this process is the one that works; always, when absent.
    pub leads: Option<watch::Receiver<bool>>,
    /// Writes Events.
    pub recorder: Recorder,
    /// Figures.
    pub metrics: Metrics,
}

/// Publishes until shutdown.
pub fn start(options: Options, tasks: &Tasks) {
    let bundles = options.signet.watch_bundle(tasks);
    let own = options.config.namespace.clone();
    let own = own.unwrap_or_else(|| options.client.default_namespace().to_owned());
    let trust_domain = options.trust_domain.to_string();
    if options.config.ca_bundles {
        let injection = Injection {
            client: options.client.clone(),
            trust_domain: trust_domain.clone(),
            bundles: bundles.clone(),
            leads: options.leads.clone(),
            metrics: options.metrics.clone(),
        };
        injected::start(&injection, tasks);
    }
    let publisher = Publisher {
        plan: Plan::new(
            trust_domain.clone(),
            own.clone(),
            options.config.selector.clone(),
        ),
        names: Names {
            config: options.config,
            trust_domain,
            trust_bundles: None,
        },
        own,
        client: options.client,
        leads: options.leads,
        recorder: options.recorder,
        metrics: options.metrics,
        backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
        due: None,
        retry: None,
    };
    tasks.spawn("trust bundle", publisher.run(bundles, tasks.shutdown()));
}

/// Why an object was not written.
#[derive(Debug, Error)]
enum WriteError {
    #[error("the API server refuses it: {0}")]
    Refused(#[from] kube::Error),
    #[error("the API server does not answer")]
    Silent,
    #[error("the cluster has no such kind")]
    NoSuchKind,
}

struct Publisher {
    plan: Plan,
    names: Names,
    own: String,
    client: Client,
    leads: Option<watch::Receiver<bool>>,
    recorder: Recorder,
    metrics: Metrics,
    backoff: Backoff,
    /// When there may be something to do.
    due: Option<Instant>,
    /// When what failed is tried again.
    retry: Option<Instant>,
}

impl Publisher {
    async fn run(
        mut self,
        mut bundles: watch::Receiver<Option<Arc<Bundle>>>,
        shutdown: Shutdown,
    ) -> Result<(), BoxError> {
        let mut events = watches::all(&self.client, &self.names, &self.own, &self.metrics);
        loop {
            let wake = self.due.into_iter().chain(self.retry).min();
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.take(event),
                    None => return Err("the watches of the trust bundle ended".into()),
                },
                changed = bundles.changed() => {
                    if changed.is_err() { return Ok(()) }
                    let bundle = bundles.borrow_and_update().clone();
                    self.publish(bundle.as_deref());
                }
                () = lease::changed(self.leads.as_mut()) => self.plan.begin_to_lead(),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    tokio::select! {
                        () = self.work() => {}
                        () = shutdown.cancelled() => return Ok(()),
                    }
                    continue;
                }
                () = shutdown.cancelled() => return Ok(()),
            }
            self.due.get_or_insert_with(|| Instant::now() + SETTLE);
        }
    }

    fn take(&mut self, event: Event) {
        let names = &self.names;
        match event {
            Event::Namespace(told) => self.plan.namespace(told),
            Event::ConfigMap(told) => self.plan.config_map(read(told, names)),
            Event::TrustBundle(told) => self.plan.trust_bundle(read(told, names)),
            Event::TrustBundles(resource) => self.names.trust_bundles = Some(resource),
        }
    }

    fn publish(&mut self, bundle: Option<&Bundle>) {
        let bundle = bundle.filter(|bundle| is_publishable(bundle, &self.names.trust_domain));
        if let Some(bundle) = bundle {
            let text = self.names.config.format.write(bundle);
            self.plan.publish(text, bundle.to_pem());
        }
    }

    fn leads(&self) -> bool {
        self.leads.as_ref().is_none_or(|leads| *leads.borrow())
    }

    /// Writes everything that is due, and names what is somebody else's.
    async fn work(&mut self) {
        self.due = None;
        if self.retry.is_some_and(|at| at <= Instant::now()) {
            self.retry = None;
            self.plan.retry();
        }
        while self.leads() {
            let steps = self.plan.steps(AT_ONCE);
            if steps.is_empty() {
                break;
            }
            let written = join_all(steps.iter().map(|step| self.write(step))).await;
            for (step, written) in steps.into_iter().zip(written) {
                self.settle(step, written);
            }
        }
        if !self.leads() {
            return;
        }
        for (target, seen) in self.plan.foreign() {
            self.tell(&target, &seen).await;
        }
        if !self.plan.is_waiting() {
            self.backoff.reset();
        } else if self.retry.is_none() {
            self.retry = Some(Instant::now() + self.backoff.fail());
        }
        self.figures();
    }

    async fn write(&self, step: &Step) -> Result<Seen, WriteError> {
        let resource = self.names.resource(&step.target);
        let resource = resource.ok_or(WriteError::NoSuchKind)?;
        let api: Api<DynamicObject> = match &step.target {
            Target::ConfigMap(namespace) => {
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
            Target::TrustBundle => Api::all_with(self.client.clone(), &resource),
        };
        let object = self.names.object(&step.target, &resource, &step.content);
        let mut params = PatchParams::apply(MANAGER);
        params.force = step.force;
        let patch = Patch::Apply(object);
        let call = api.patch(self.names.name(&step.target), &params, &patch);
        let applied = timeout(CALL, call)
            .await
            .map_err(|_| WriteError::Silent)??;
        Ok(self.names.seen(&applied))
    }

    fn settle(&mut self, step: Step, written: Result<Seen, WriteError>) {
        let name = self.names.name(&step.target);
        match written {
            Ok(seen) => {
                self.metrics.counter("bundle_writes", &[]).increment();
                tracing::info!(name, target = ?step.target, healed = step.force, "trust bundle published");
                self.plan.written(&step, seen);
            }
            Err(error) => {
                self.metrics.counter("bundle_errors", &[]).increment();
                tracing::warn!(name, target = ?step.target, %error, "the trust bundle is not published");
                self.plan.failed(step.target);
            }
        }
    }

    /// A foreign object, in the log and as an Event on it.
    async fn tell(&self, target: &Target, seen: &Seen) {
        let name = self.names.name(target);
        tracing::warn!(
            name,
            ?target,
            kept_by = seen.managers,
            "it holds a bundle of somebody else; left alone"
        );
        let Some(resource) = self.names.resource(target) else {
            return;
        };
        let reference = ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            name: Some(name.to_owned()),
            namespace: match target {
                Target::ConfigMap(namespace) => Some(namespace.clone()),
                Target::TrustBundle => None,
            },
            uid: seen.uid.clone(),
            ..ObjectReference::default()
        };
        let note = format!(
            "it holds another bundle than that of {}, kept by {}; left alone. Delete it to have it made anew",
            self.names.trust_domain, seen.managers
        );
        let notice = Notice {
            type_: EventType::Warning,
            reason: "ForeignBundle".to_owned(),
            note: Some(note),
            action: "PublishBundle".to_owned(),
            secondary: None,
        };
        match timeout(CALL, self.recorder.publish(&notice, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an Event is not written"),
            Err(_) => tracing::debug!("an Event is not written: no answer"),
        }
    }

    fn figures(&self) {
        let (all, foreign) = self.plan.count();
        for (name, value) in [("bundle_targets", all), ("bundle_foreign", foreign)] {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
            self.metrics.gauge(name, &[]).set(value as f64);
        }
    }
}

/// Never an empty bundle, and never another trust domain's: who went by it would trust nobody, or strangers.
fn is_publishable(bundle: &Bundle, trust_domain: &str) -> bool {
    if bundle.trust_domain.as_str() != trust_domain {
        tracing::error!(
            server = %bundle.trust_domain,
            config = trust_domain,
            "the server is of another trust domain; its bundle is not published"
        );
        return false;
    }
    if bundle.x509_authorities.is_empty() {
        tracing::warn!("the server's bundle has no X.509 authority; it is not published");
        return false;
    }
    true
}

fn read<K>(told: Told<K, DynamicObject>, names: &Names) -> Told<K, Seen> {
    match told {
        Told::Begin => Told::Begin,
        Told::Listed(key, object) => Told::Listed(key, names.seen(&object)),
        Told::End => Told::End,
        Told::Changed(key, object) => Told::Changed(key, names.seen(&object)),
        Told::Gone(key) => Told::Gone(key),
    }
}
