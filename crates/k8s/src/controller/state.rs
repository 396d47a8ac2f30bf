//! What the controller knows of the cluster, and what follows from it. No I/O: events in, ledger out.
//!
//! An event makes work for what it touches only: a pod's event for that pod, a node's for the pods on it, a namespace's for
//! the pods in it, a resource's for the pods that it selects or did select. What is to be looked at is a set, so that nothing is lost
//! when events come during work.

mod cluster;
mod evaluate;
mod resources;
mod services;
mod status;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use identity::RegistrationEntry;
use serde_json::Value as Json;
use tokio::time::Instant;

use super::config::Config;
use super::desired::{Key, Node, Pod};
use super::dry_run::{Preview, Row};
use super::plan::{Change, Ledger, Verdict, Written};
use super::tenants::Policy;

use resources::{Outcome, RuleRecord, StaticRecord};
use services::Services;

pub use status::{Conditions, Figure, StatusUpdate};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Pods.
    Pod,
    /// Nodes.
    Node,
    /// Namespaces.
    Namespace,
    /// EndpointSlices, or Endpoints where there are none.
    Endpoints,
    /// ClusterSPIFFEIDs.
    SpiffeId,
    /// ClusterStaticEntries.
    StaticEntry,
    /// ClusterFederatedTrustDomains.
    FederatedTrustDomain,
    /// WorkloadSPIFFEIDs.
    WorkloadSpiffeId,
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// A list of everything begins.
    Begin(Kind),
    /// There is such an object, new or changed.
    Apply(Kind, Json),
    /// Somebody deleted it.
    Delete(Kind, Json),
    /// The list is complete.
    End(Kind),
}

type Labels = BTreeMap<String, String>;

struct Namespace {
    labels: Labels,
    ignored: bool,
}

/// See the [module](self).
pub struct State {
    config: Arc<Config>,
    pods: HashMap<String, Arc<Pod>>,
    pods_in: HashMap<String, HashSet<String>>,
    pods_on: HashMap<String, HashSet<String>>,
    nodes: HashMap<String, Arc<Node>>,
    namespaces: HashMap<String, Namespace>,
    services: Services,
    rules: BTreeMap<String, RuleRecord>,
    statics: BTreeMap<String, StaticRecord>,
    /// Of the lists under way, what came so far.
    seen: HashMap<Kind, HashSet<String>>,
    missing: BTreeSet<Kind>,
    dirty: VecDeque<String>,
    in_dirty: HashSet<String>,
    /// Resources whose status may have changed.
    touched: BTreeSet<String>,
    /// Figures of resources that changed since they were last asked for.
    figures: Vec<Figure>,
    /// Counts what pods and namespaces came, changed and went.
    changes: usize,
    /// Entries: wanted and there.
    pub ledger: Ledger,
}

impl State {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let mut missing = BTreeSet::new();
        if config.manifests.is_none() {
            missing.extend([Kind::Pod, Kind::Node, Kind::Namespace, Kind::Endpoints]);
        }
        if config.reconcile.spiffe_ids {
            missing.insert(Kind::SpiffeId);
            if !config.tenants.is_empty() {
                missing.insert(Kind::WorkloadSpiffeId);
            }
        }
        if config.reconcile.static_entries {
            missing.insert(Kind::StaticEntry);
        }
        Self {
            ledger: Ledger::new(config.ownership.clone(), config.mass_delete),
            config,
            pods: HashMap::new(),
            pods_in: HashMap::new(),
            pods_on: HashMap::new(),
            nodes: HashMap::new(),
            namespaces: HashMap::new(),
            services: Services::default(),
            rules: BTreeMap::new(),
            statics: BTreeMap::new(),
            seen: HashMap::new(),
            missing,
            dirty: VecDeque::new(),
            in_dirty: HashSet::new(),
            touched: BTreeSet::new(),
            figures: Vec::new(),
            changes: 0,
        }
    }

    /// Takes in what a watch tells. ClusterFederatedTrustDomains are not of interest here.
    pub fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Begin(kind) => drop(self.seen.insert(kind, HashSet::new())),
            Event::Apply(kind, object) => {
                let Some(id) = id(kind, &object) else { return };
                if let Some(seen) = self.seen.get_mut(&kind) {
                    seen.insert(id.clone());
                }
                self.apply(kind, id, object, now);
            }
            Event::Delete(kind, object) => {
                if let Some(id) = id(kind, &object) {
                    self.remove(kind, &id, true);
                }
            }
            Event::End(kind) => {
                let seen = self.seen.remove(&kind).unwrap_or_default();
                let gone: Vec<String> = self
                    .known(kind)
                    .filter(|id| !seen.contains(*id))
                    .cloned()
                    .collect();
                for id in gone {
                    self.remove(kind, &id, false);
                }
                self.missing.remove(&kind);
            }
        }
    }

    /// What was not listed yet: until then, nothing is deleted.
    #[must_use]
    pub const fn missing(&self) -> &BTreeSet<Kind> {
        &self.missing
    }

    /// How many pods are to be looked at.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.dirty.len()
    }

    /// How many pods are known.
    #[must_use]
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Differs whenever [`State::labels`] may.
    #[must_use]
    pub(super) const fn revision(&self) -> usize {
        self.changes
    }

    /// The labels of all namespaces, and of all pods that run with how many have them.
    #[must_use]
    pub(super) fn labels(&self) -> (BTreeMap<String, Labels>, BTreeMap<(String, Labels), usize>) {
        let namespaces = self
            .namespaces
            .iter()
            .map(|(name, namespace)| (name.clone(), namespace.labels.clone()))
            .collect();
        let mut pods = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| !pod.finished) {
            *pods
                .entry((pod.namespace.clone(), pod.labels.clone()))
                .or_default() += 1;
        }
        (namespaces, pods)
    }

    /// Looks at one pod of those that something happened to; false when there is none.
    pub fn work(&mut self, now: Instant) -> bool {
        let Some(uid) = self.dirty.pop_front() else {
            return false;
        };
        self.in_dirty.remove(&uid);
        self.evaluate(&uid, now);
        true
    }

    /// The next deletes, at most `most`: ID and key. Each must be answered by [`Ledger::deleted`].
    pub fn deletes(&mut self, most: usize) -> Vec<(String, Key)> {
        let nothing = Ledger::new(self.config.ownership.clone(), self.config.mass_delete);
        let mut ledger = std::mem::replace(&mut self.ledger, nothing);
        let deletes = ledger.deletes(most, |key| self.verdict(key));
        self.ledger = ledger;
        deletes
    }

    /// What is not as declared.
    #[must_use]
    pub fn preview(&self) -> Preview {
        let changes = self.ledger.preview(|key| self.verdict(key)).into_iter();
        let row = |change: Change| {
            let declared_by = change.declared_by.and_then(|uid| self.declaration(&uid));
            let declared_by = declared_by.map(|name| format!("declared by {name}"));
            let reasons = [Some(change.reason), declared_by].into_iter().flatten();
            let reasons: Vec<String> = reasons.filter(|reason| !reason.is_empty()).collect();
            Row {
                action: change.action,
                subject: change.key.spiffe_id.to_string(),
                id: change.id,
                reason: reasons.join("; "),
            }
        };
        Preview {
            rows: changes.map(row).collect(),
            declared: self.ledger.wanted(),
        }
    }

    /// Kind and name of a resource.
    fn declaration(&self, uid: &str) -> Option<String> {
        let (kind, name) = match (self.rules.get(uid), self.statics.get(uid)) {
            (Some(record), _) => match &record.head.namespace {
                Some(namespace) => {
                    let name = &record.head.name;
                    return Some(format!("WorkloadSPIFFEID {namespace}/{name}"));
                }
                None => ("ClusterSPIFFEID", &record.head.name),
            },
            (None, Some(record)) => ("ClusterStaticEntry", &record.head.name),
            (None, None) => return None,
        };
        Some(format!("{kind} {name}"))
    }

    /// Whether the entry of `key`, which nothing declares, may go.
    fn verdict(&self, key: &Key) -> Verdict {
        if !self.missing.is_empty() {
            return Verdict::Frozen;
        }
        let mut pods = key.pods().peekable();
        if pods.peek().is_none() {
            let doubtful = self.statics.values().any(|record| record.entry.is_err());
            return if doubtful {
                Verdict::Frozen
            } else {
                Verdict::Undeclared
            };
        }
        let mut all = Verdict::Gone;
        for uid in pods {
            match self.pods.get(uid).filter(|pod| !pod.finished) {
                None => {}
                Some(pod) if self.is_doubtful(pod, key) => return Verdict::Frozen,
                Some(_) => all = Verdict::Undeclared,
            }
        }
        all
    }

    /// Whether something failed that may declare `key` for `pod`.
    fn is_doubtful(&self, pod: &Pod, key: &Key) -> bool {
        let Some(namespace) = self.namespaces.get(&pod.namespace) else {
            return true;
        };
        let failed = |record: &RuleRecord| match &record.rule {
            _ if !self.may_declare(record, key, &pod.namespace) => false,
            Ok(_) => matches!(record.outcomes.get(&pod.uid), Some(Outcome::Failed(_))),
            Err(broken) => !namespace.ignored && broken.may_take(&namespace.labels, &pod.labels),
        };
        self.in_dirty.contains(&pod.uid) || self.rules.values().any(failed)
    }

    /// Whether the resource can be about `key` of a pod of `namespace` at all. A tenant must not keep alive what is none of its own.
    fn may_declare(&self, record: &RuleRecord, key: &Key, namespace: &str) -> bool {
        if record.head.namespace.is_none() {
            return true;
        }
        let policy = self.policy(record, namespace);
        policy.is_some_and(|policy| policy.owns(&key.spiffe_id, namespace))
    }

    /// The bounds of a tenant's resource for pods of `namespace`; none when it may declare nothing there.
    fn policy(&self, record: &RuleRecord, namespace: &str) -> Option<&Policy> {
        let known = self.namespaces.get(namespace)?;
        let policy = self.config.tenants.of(&known.labels);
        policy.filter(|_| record.is_about(namespace))
    }

    /// Says what became of a write.
    pub fn written(
        &mut self,
        entry: &RegistrationEntry,
        outcome: Written,
        now: Instant,
    ) -> Option<std::time::Duration> {
        let key = Key {
            spiffe_id: entry.spiffe_id.clone(),
            parent_id: entry.parent_id.clone(),
            selectors: entry.selectors.clone(),
        };
        self.touched
            .extend(self.ledger.declared_by(&key).map(str::to_owned));
        self.ledger.written(entry, outcome, now)
    }

    fn mark(&mut self, pod: &str) {
        if self.in_dirty.insert(pod.to_owned()) {
            self.dirty.push_back(pod.to_owned());
        }
    }

    fn mark_all(&mut self, pods: impl IntoIterator<Item = String>) {
        pods.into_iter().for_each(|pod| self.mark(&pod));
    }

    fn rules_of(&self, tenants: bool) -> impl Iterator<Item = &String> {
        let rules = self.rules.iter();
        let rules = rules.filter(move |(_, rule)| rule.head.namespace.is_some() == tenants);
        rules.map(|(uid, _)| uid)
    }

    fn known(&self, kind: Kind) -> Box<dyn Iterator<Item = &String> + '_> {
        match kind {
            Kind::Pod => Box::new(self.pods.keys()),
            Kind::Node => Box::new(self.nodes.keys()),
            Kind::Namespace => Box::new(self.namespaces.keys()),
            Kind::Endpoints => Box::new(self.services.keys()),
            Kind::SpiffeId => Box::new(self.rules_of(false)),
            Kind::WorkloadSpiffeId => Box::new(self.rules_of(true)),
            Kind::StaticEntry => Box::new(self.statics.keys()),
            Kind::FederatedTrustDomain => Box::new(std::iter::empty()),
        }
    }
}

/// What tells an object from the others of its kind: where objects come and go under one name, the UID.
fn id(kind: Kind, object: &Json) -> Option<String> {
    let text = |key: &str| {
        object
            .pointer(&format!("/metadata/{key}"))
            .and_then(Json::as_str)
    };
    match kind {
        Kind::Pod
        | Kind::SpiffeId
        | Kind::StaticEntry
        | Kind::FederatedTrustDomain
        | Kind::WorkloadSpiffeId => text("uid").map(str::to_owned),
        Kind::Node | Kind::Namespace => text("name").map(str::to_owned),
        Kind::Endpoints => Some(format!("{}/{}", text("namespace")?, text("name")?)),
    }
}

#[cfg(test)]
mod tests;
