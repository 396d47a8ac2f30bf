//! The custom resources, and what they make of pods.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::core::{Selector, SelectorExt};
use runtime::config::Problem;
use serde_json::Value as Json;
use tokio::time::Instant;

use super::{Figure, Kind, State};
use crate::controller::crd::{ClusterSPIFFEIDSpec, ClusterStaticEntrySpec, WorkloadSPIFFEIDSpec};
use crate::controller::desired::{self, Pod, Rule, Source, Wanted, read_selector};

/// What a tenant without bounds hears.
pub(super) const NO_POLICY: &str = "the controller lets this namespace have no SPIFFE IDs of its own (signet.tenants in its config)";

/// What a resource says of itself, whatever its kind.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) name: String,
    /// Its namespace: with one, it is a tenant's.
    pub(super) namespace: Option<String>,
    pub(super) generation: i64,
    pub(super) source: Source,
    /// Its status as Kubernetes has it.
    pub(super) status: Json,
}

/// A ClusterSPIFFEID, or a tenant's WorkloadSPIFFEID.
#[derive(Debug)]
pub(super) struct RuleRecord {
    pub(super) head: Head,
    pub(super) rule: Result<Arc<Rule>, Broken>,
    /// By the pod's UID; only pods that are selected.
    pub(super) outcomes: HashMap<String, Outcome>,
}

/// A ClusterSPIFFEID that cannot be read.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) problems: Vec<Problem>,
    /// Its selectors, pods' and namespaces', if at least they can be read.
    selectors: Option<(Selector, Selector)>,
    fallback: bool,
}

impl Broken {
    /// Whether it might declare an entry for such a pod, once repaired.
    pub(super) fn may_take(
        &self,
        namespace: &BTreeMap<String, String>,
        pod: &BTreeMap<String, String>,
    ) -> bool {
        let takes = |(pods, namespaces): &(Selector, Selector)| {
            pods.matches(pod) && namespaces.matches(namespace)
        };
        self.selectors.as_ref().is_none_or(takes)
    }
}

/// What a ClusterSPIFFEID makes of a pod that it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Wanted(Arc<Wanted>),
    /// The pod has no node yet.
    Pending,
    /// Another resource without `fallback` has it.
    Covered,
    Failed(String),
    /// The tenant may not have it.
    Refused(String),
}

/// A ClusterStaticEntry.
#[derive(Debug)]
pub(super) struct StaticRecord {
    pub(super) head: Head,
    pub(super) entry: Result<Arc<Wanted>, Vec<Problem>>,
}

impl State {
    pub(super) fn apply_rule(&mut self, uid: String, object: Json, now: Instant) {
        let Some((head, spec)) =
            self.read::<ClusterSPIFFEIDSpec>(&uid, object, |spec| &spec.class_name)
        else {
            return self.remove_rule(&uid, true);
        };
        self.put_rule(uid, head, spec, now);
    }

    pub(super) fn apply_workload(&mut self, uid: String, object: Json, now: Instant) {
        let Some((head, spec)) =
            self.read::<WorkloadSPIFFEIDSpec>(&uid, object, |spec| &spec.class_name)
        else {
            return self.remove_rule(&uid, true);
        };
        self.put_rule(uid, head, spec.map(Into::into), now);
    }

    fn put_rule(
        &mut self,
        uid: String,
        head: Head,
        spec: Result<ClusterSPIFFEIDSpec, Vec<Problem>>,
        now: Instant,
    ) {
        self.move_source(&uid, &head.source, now);
        if let Some(before) = self.rules.get_mut(&uid)
            && before.head.generation == head.generation
            && head.generation != 0
        {
            // Only its status or metadata changed.
            before.head = head;
            return;
        }
        let broken = |problems, spec: Option<&ClusterSPIFFEIDSpec>| Broken {
            problems,
            selectors: spec.and_then(|spec| {
                let selector = |selector: &Option<_>| read_selector(selector.as_ref()).ok();
                Some((
                    selector(&spec.pod_selector)?,
                    selector(&spec.namespace_selector)?,
                ))
            }),
            fallback: spec.is_some_and(|spec| spec.fallback),
        };
        let rule = match spec {
            Ok(spec) => Rule::compile(&spec, &self.config.scope)
                .map(Arc::new)
                .map_err(|problems| broken(problems, Some(&spec))),
            Err(problems) => Err(broken(problems, None)),
        };
        // What it declared so far holds until its pods are looked at again.
        let outcomes = self
            .rules
            .remove(&uid)
            .map(|before| before.outcomes)
            .unwrap_or_default();
        let record = RuleRecord {
            head,
            rule,
            outcomes,
        };
        self.touched.insert(uid.clone());
        let concerned: Vec<String> = self
            .pods
            .values()
            .filter(|pod| self.concerns(&record, pod))
            .map(|pod| pod.uid.clone())
            .collect();
        self.rules.insert(uid, record);
        self.mark_all(concerned);
    }

    /// What it declared stays declared when it changes its rank, as by being deleted with a finalizer.
    fn move_source(&mut self, uid: &str, source: &Source, now: Instant) {
        let Some(record) = self
            .rules
            .get_mut(uid)
            .filter(|record| record.head.source != *source)
        else {
            return;
        };
        for outcome in record.outcomes.values() {
            if let Outcome::Wanted(wanted) = outcome {
                self.ledger.want(source.clone(), wanted.clone(), now);
                self.ledger.unwant(&record.head.source, &wanted.key, false);
            }
        }
        record.head.source = source.clone();
    }

    /// Whether the resource selects the pod, or did.
    fn concerns(&self, record: &RuleRecord, pod: &Pod) -> bool {
        let selects = || match &record.rule {
            Ok(rule) => rule.takes_pod(&pod.labels),
            Err(_) => true,
        };
        record.outcomes.contains_key(&pod.uid) || (record.is_about(&pod.namespace) && selects())
    }

    pub(super) fn remove_rule(&mut self, uid: &str, deliberate: bool) {
        let Some(record) = self.rules.remove(uid) else {
            return;
        };
        self.touched.remove(uid);
        if record.head.namespace.is_none() {
            let figure = Figure::of(Kind::SpiffeId, &record.head.name, &Json::Null);
            self.figures.extend(figure);
        }
        let pods: Vec<String> = record.outcomes.keys().cloned().collect();
        for outcome in record.outcomes.values() {
            if let Outcome::Wanted(wanted) = outcome {
                self.ledger
                    .unwant(&record.head.source, &wanted.key, deliberate);
            }
        }
        // A fallback may step in.
        self.mark_all(pods);
    }

    pub(super) fn apply_static(&mut self, uid: String, object: Json, now: Instant) {
        let Some((head, spec)) =
            self.read::<ClusterStaticEntrySpec>(&uid, object, |spec| &spec.class_name)
        else {
            return self.remove_static(&uid, true);
        };
        let entry = spec
            .and_then(|spec| desired::static_entry(&spec, &self.config.scope))
            .map(Arc::new);
        let before = self.statics.remove(&uid);
        if let Ok(wanted) = &entry {
            self.ledger.want(head.source.clone(), wanted.clone(), now);
        }
        if let Some(StaticRecord {
            head: old,
            entry: Ok(old_entry),
        }) = before
        {
            let same = old.source == head.source
                && entry.as_ref().is_ok_and(|entry| entry.key == old_entry.key);
            if !same {
                self.ledger.unwant(&old.source, &old_entry.key, false);
            }
        }
        self.touched.insert(uid.clone());
        self.statics.insert(uid, StaticRecord { head, entry });
    }

    pub(super) fn remove_static(&mut self, uid: &str, deliberate: bool) {
        self.touched.remove(uid);
        let Some(record) = self.statics.remove(uid) else {
            return;
        };
        let figure = Figure::of(Kind::StaticEntry, &record.head.name, &Json::Null);
        self.figures.extend(figure);
        if let Ok(wanted) = record.entry {
            self.ledger
                .unwant(&record.head.source, &wanted.key, deliberate);
        }
    }

    /// The resource's head and spec; none when it is another controller's.
    fn read<T: serde::de::DeserializeOwned>(
        &self,
        uid: &str,
        mut object: Json,
        class: impl Fn(&T) -> &String,
    ) -> Option<(Head, Result<T, Vec<Problem>>)> {
        let head = head(uid, &mut object);
        let raw = object["spec"].take();
        let class_name = raw
            .get("className")
            .and_then(Json::as_str)
            .unwrap_or_default()
            .to_owned();
        let spec: Result<T, _> = serde_json::from_value(raw);
        let class_name = spec.as_ref().map_or(class_name, |spec| class(spec).clone());
        if !self.config.class.takes(&class_name) {
            return None;
        }
        let problem = |error: serde_json::Error| {
            vec![Problem {
                path: "spec".to_owned(),
                message: error.to_string(),
            }]
        };
        Some((head, spec.map_err(problem)))
    }
}

impl RuleRecord {
    /// Whether it is about pods of `namespace`: a tenant's is about those of its own.
    pub(super) fn is_about(&self, namespace: &str) -> bool {
        let own = self.head.namespace.as_deref();
        own.is_none_or(|own| own == namespace)
    }

    pub(super) fn is_fallback(&self) -> bool {
        match &self.rule {
            Ok(rule) => rule.fallback,
            Err(broken) => broken.fallback,
        }
    }
}

fn head(uid: &str, object: &mut Json) -> Head {
    let text = |key: &str| {
        object
            .pointer(&format!("/metadata/{key}"))
            .and_then(Json::as_str)
            .map(str::to_owned)
    };
    Head {
        name: text("name").unwrap_or_default(),
        namespace: text("namespace"),
        generation: object
            .pointer("/metadata/generation")
            .and_then(Json::as_i64)
            .unwrap_or(0),
        source: Source {
            tenant: text("namespace").is_some(),
            created: text("creationTimestamp").unwrap_or_default(),
            deleting: text("deletionTimestamp").is_some(),
            uid: uid.to_owned(),
        },
        status: object.get_mut("status").map(Json::take).unwrap_or_default(),
    }
}
