//! What is to be against what the server has: which entries to create, update and delete, and in which order.
//!
//! The rules, all of them kept by [`Ledger`]:
//!
//! * **Only own entries are deleted**: those whose ID has the controller's prefix, and those of a former prefix. An entry of
//!   somebody else that is already there for a key counts as set when it says the same, and is left alone in any case.
//! * **Make before break**: an entry of a pod goes only when everything that is wanted for the pod is there.
//! * **In doubt, keep**: who calls says which keys are in doubt ([`Verdict::Frozen`]).
//! * **No mass delete by mistake**: deletes that would leave many running pods without an identity are held back, unless
//!   somebody deleted the resource that declared them.
//!
//! An entry's ID is made from its key, so that a second try, or a second controller, cannot make a duplicate.

mod deletes;
mod ids;
mod known;
mod listing;
mod preview;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use identity::{EntryId, RegistrationEntry};
use tokio::time::Instant;

use super::config::{MassDelete, OwnershipRule};
use super::desired::{Key, Source, Wanted};

pub use ids::Ownership;
pub use listing::Listing;
pub use preview::{Action, Change};

/// Entries of no pod stand under this name among the pods.
const NO_POD: &str = "";

/// An entry that the server has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Existing {
    wanted: Arc<Wanted>,
    ownership: Ownership,
}

/// Whether an entry that nothing declares may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its pod is no more.
    Gone,
    /// Its pod is there, and nothing that failed could declare it.
    Undeclared,
    /// Something failed that may declare it.
    Frozen,
}

/// What to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Entries to create.
    pub create: Vec<RegistrationEntry>,
    /// Entries to replace, by their IDs.
    pub update: Vec<RegistrationEntry>,
}

/// What became of a creation or an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The server has it.
    Done,
    /// The server had such an entry before, under this ID.
    Exists(Box<RegistrationEntry>),
    /// There is no entry of this ID any more.
    Missing,
    /// The server refused, or did not answer.
    Failed(String),
}

/// See the [module](self).
#[derive(Debug)]
pub struct Ledger {
    rule: OwnershipRule,
    mass_delete: MassDelete,
    wanted: HashMap<Key, BTreeMap<Source, Arc<Wanted>>>,
    wanted_by_pod: HashMap<String, HashSet<Key>>,
    existing: HashMap<Key, BTreeMap<String, Existing>>,
    existing_by_pod: HashMap<String, HashSet<Key>>,
    ids: HashMap<String, Key>,
    queue: VecDeque<Key>,
    queued: HashSet<Key>,
    /// Own entries that nothing declares.
    leaving: HashSet<Key>,
    failed: HashMap<Key, String>,
    /// Undeclared by somebody's deed.
    deliberate: HashSet<Key>,
    /// Since when a key is wanted and not there.
    waiting: HashMap<Key, Instant>,
    held: usize,
    listing: Option<Listing>,
}

impl Ledger {
    /// Nothing wanted, nothing there.
    #[must_use]
    pub fn new(rule: OwnershipRule, mass_delete: MassDelete) -> Self {
        Self {
            rule,
            mass_delete,
            wanted: HashMap::new(),
            wanted_by_pod: HashMap::new(),
            existing: HashMap::new(),
            existing_by_pod: HashMap::new(),
            ids: HashMap::new(),
            queue: VecDeque::new(),
            queued: HashSet::new(),
            leaving: HashSet::new(),
            failed: HashMap::new(),
            deliberate: HashSet::new(),
            waiting: HashMap::new(),
            held: 0,
            listing: None,
        }
    }

    /// `source` declares `wanted`.
    pub fn want(&mut self, source: Source, wanted: Arc<Wanted>, now: Instant) {
        let key = wanted.key.clone();
        for pod in pods(&key) {
            self.wanted_by_pod
                .entry(pod)
                .or_default()
                .insert(key.clone());
        }
        if !self.existing.contains_key(&key) {
            self.waiting.entry(key.clone()).or_insert(now);
        }
        self.deliberate.remove(&key);
        self.wanted
            .entry(key.clone())
            .or_default()
            .insert(source, wanted);
        self.enqueue(key);
    }

    /// `source` declares it no more; `deliberate` when somebody deleted the source.
    pub fn unwant(&mut self, source: &Source, key: &Key, deliberate: bool) {
        let Some(sources) = self.wanted.get_mut(key) else {
            return;
        };
        sources.remove(source);
        if sources.is_empty() {
            self.wanted.remove(key);
            self.waiting.remove(key);
            self.failed.remove(key);
            for pod in pods(key) {
                take(&mut self.wanted_by_pod, &pod, key);
            }
            if deliberate {
                self.deliberate.insert(key.clone());
            }
        }
        self.enqueue(key.clone());
    }

    /// Looks again at what the server has for a pod.
    pub fn touch_pod(&mut self, pod: &str) {
        let keys: Vec<Key> = self
            .existing_by_pod
            .get(pod)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        keys.into_iter().for_each(|key| self.enqueue(key));
    }

    /// Whether `source` is the one that counts for `key`; another may declare it too.
    #[must_use]
    pub fn holds(&self, source: &Source, key: &Key) -> bool {
        self.wanted
            .get(key)
            .and_then(|sources| sources.keys().next())
            == Some(source)
    }

    /// The UIDs of the resources that declare `key`.
    pub fn declared_by(&self, key: &Key) -> impl Iterator<Item = &str> {
        let sources = self.wanted.get(key).into_iter().flat_map(BTreeMap::keys);
        sources.map(|source| source.uid.as_str())
    }

    /// Whether the server has an entry for `key`.
    #[must_use]
    pub fn is_set(&self, key: &Key) -> bool {
        self.existing.contains_key(key) && !self.failed.contains_key(key)
    }

    /// Why the server does not have it.
    #[must_use]
    pub fn failure(&self, key: &Key) -> Option<&str> {
        self.failed.get(key).map(String::as_str)
    }

    /// How many entries of the server are the controller's.
    #[must_use]
    pub fn owned(&self) -> usize {
        let all = self.existing.values().flat_map(BTreeMap::values);
        all.filter(|existing| existing.ownership != Ownership::Foreign)
            .count()
    }

    /// How many keys are to be looked at, how many entries wait to be deleted, and how many of these are held back as too many.
    #[must_use]
    pub fn backlog(&self) -> (usize, usize, usize) {
        (self.queue.len(), self.leaving.len(), self.held)
    }

    /// Whether something failed that [`Ledger::retry`] would try again.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Looks again at what failed.
    pub fn retry(&mut self) {
        let keys: Vec<Key> = self.failed.keys().cloned().collect();
        keys.into_iter().for_each(|key| self.enqueue(key));
    }

    /// Whether there are keys to look at.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next creations and updates, of at most `most` keys. Each must be answered by [`Ledger::written`] before the next call.
    pub fn writes(&mut self, most: usize) -> Writes {
        let mut writes = Writes::default();
        for _ in 0..most {
            let Some(key) = self.queue.pop_front() else {
                break;
            };
            self.queued.remove(&key);
            self.decide(&key, &mut writes);
        }
        writes
    }

    fn decide(&mut self, key: &Key, writes: &mut Writes) {
        self.leaving.remove(key);
        let wanted = self
            .wanted
            .get(key)
            .and_then(|sources| sources.values().next())
            .cloned();
        let Some(wanted) = wanted else {
            return self.undeclared(key);
        };
        let Some(existing) = self.existing.get_mut(key) else {
            if let Some(id) = ids::id_of(&self.rule, key) {
                writes.create.push(wanted.entry(id));
            }
            return;
        };
        if existing.len() > 1 {
            self.leaving.insert(key.clone());
        }
        let id = kept(existing).map(|(id, _)| id.clone());
        let Some((id, kept)) = id.and_then(|id| existing.get_mut(&id).map(|kept| (id, kept)))
        else {
            return;
        };
        if kept.wanted.differences(&wanted).is_empty() {
            // One copy in memory is enough.
            kept.wanted = wanted;
            self.failed.remove(key);
        } else if kept.ownership == Ownership::Foreign {
            let message = format!(
                "the server has entry {id} for the same workload, made by somebody else and saying something else"
            );
            self.failed.insert(key.clone(), message);
        } else if let Ok(id) = EntryId::new(&id) {
            writes.update.push(wanted.entry(id));
        }
    }

    fn undeclared(&mut self, key: &Key) {
        let Some(existing) = self.existing.get_mut(key) else {
            self.deliberate.remove(key);
            return;
        };
        // Somebody else's entry was only of interest while it stood in for an own one.
        let foreign: Vec<String> = existing
            .iter()
            .filter(|(_, existing)| existing.ownership == Ownership::Foreign)
            .map(|(id, _)| id.clone())
            .collect();
        for id in foreign {
            self.forget(&id);
        }
        if self.existing.contains_key(key) && !ids::is_join_token(key) {
            self.leaving.insert(key.clone());
        }
    }

    fn enqueue(&mut self, key: Key) {
        if self.queued.insert(key.clone()) {
            self.queue.push_back(key);
        }
    }
}

/// The entry of a key that stays: an own one before one of a former prefix before somebody else's.
fn kept(existing: &BTreeMap<String, Existing>) -> Option<(&String, &Existing)> {
    let rank = |a: &(&String, &Existing), b: &(&String, &Existing)| {
        (a.1.ownership, a.0).cmp(&(b.1.ownership, b.0))
    };
    existing.iter().min_by(rank)
}

/// The IDs that are not somebody else's.
fn own(existing: &BTreeMap<String, Existing>) -> impl Iterator<Item = &String> {
    let own = existing
        .iter()
        .filter(|(_, existing)| existing.ownership != Ownership::Foreign);
    own.map(|(id, _)| id)
}

fn pods(key: &Key) -> Vec<String> {
    let mut pods: Vec<String> = key.pods().map(str::to_owned).collect();
    if pods.is_empty() {
        pods.push(NO_POD.to_owned());
    }
    pods
}

fn take(by_pod: &mut HashMap<String, HashSet<Key>>, pod: &str, key: &Key) {
    if let Some(keys) = by_pod.get_mut(pod) {
        keys.remove(key);
        if keys.is_empty() {
            by_pod.remove(pod);
        }
    }
}

#[cfg(test)]
mod tests;
