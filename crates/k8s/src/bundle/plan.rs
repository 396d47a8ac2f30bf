//! What is to be written, by what is there. No I/O.
//!
//! Whose an object is, the API server says: it is ours while our field manager owns something of it, and it is not marked as
//! another trust domain's. What is ours is put right by force. What is not gets its missing key, without force; a bundle that
//! somebody else keeps under that key is left alone and named.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::{Selector, SelectorExt as _};

use super::object::Seen;

/// Where a bundle goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// The ConfigMap of this namespace.
    ConfigMap(String),
    /// The ClusterTrustBundle.
    TrustBundle,
}

/// A write that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) target: Target,
    pub(super) content: String,
    pub(super) force: bool,
}

/// How an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// As it should be.
    Right,
    /// It, or its key, is not there.
    Absent,
    /// Ours, and not as it should be.
    Wrong,
    /// Somebody else's.
    Foreign,
}

/// A list of a watch, and what changed since.
#[derive(Debug)]
pub(super) struct Listed<K, V> {
    now: BTreeMap<K, V>,
    coming: BTreeMap<K, V>,
    complete: bool,
}

/// What a watch tells of one kind.
#[derive(Debug)]
pub(super) enum Told<K, V> {
    Begin,
    Listed(K, V),
    End,
    Changed(K, V),
    Gone(K),
}

impl<K: Ord, V> Listed<K, V> {
    pub(super) const fn new() -> Self {
        Self {
            now: BTreeMap::new(),
            coming: BTreeMap::new(),
            complete: false,
        }
    }

    pub(super) fn take(&mut self, told: Told<K, V>) {
        match told {
            Told::Begin => self.coming.clear(),
            Told::Listed(key, value) => drop(self.coming.insert(key, value)),
            Told::End => {
                self.now = std::mem::take(&mut self.coming);
                self.complete = true;
            }
            Told::Changed(key, value) => drop(self.now.insert(key, value)),
            Told::Gone(key) => drop(self.now.remove(&key)),
        }
    }

    /// What there is; nothing until all of it is known.
    pub(super) fn known(&self) -> impl Iterator<Item = (&K, &V)> {
        self.now.iter().filter(|_| self.complete)
    }
}

/// A namespace, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) labels: BTreeMap<String, String>,
    /// Nothing can be made in it any more.
    pub(super) is_ending: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Plan {
    trust_domain: String,
    own_namespace: String,
    selector: Option<Selector>,
    namespaces: Listed<String, Namespace>,
    config_maps: Listed<String, Seen>,
    trust_bundle: Option<Listed<(), Seen>>,
    /// In ConfigMaps, and in the ClusterTrustBundle.
    contents: Option<(String, String)>,
    /// Writes that failed, until the next try.
    waiting: BTreeSet<Target>,
    /// Foreign objects that were named.
    named: BTreeSet<Target>,
}

impl Plan {
    pub(super) const fn new(
        trust_domain: String,
        own_namespace: String,
        selector: Option<Selector>,
    ) -> Self {
        Self {
            trust_domain,
            own_namespace,
            selector,
            namespaces: Listed::new(),
            config_maps: Listed::new(),
            trust_bundle: None,
            contents: None,
            waiting: BTreeSet::new(),
            named: BTreeSet::new(),
        }
    }

    /// The bundle as it is from now on.
    pub(super) fn publish(&mut self, config_map: String, trust_bundle: String) {
        self.contents = Some((config_map, trust_bundle));
        self.named.clear();
    }

    pub(super) fn namespace(&mut self, told: Told<String, Namespace>) {
        if let Told::Changed(name, _) | Told::Gone(name) = &told {
            self.waiting.remove(&Target::ConfigMap(name.clone()));
        }
        self.namespaces.take(told);
    }

    pub(super) fn config_map(&mut self, told: Told<String, Seen>) {
        if let Told::Changed(namespace, _) | Told::Gone(namespace) = &told {
            self.forget(&Target::ConfigMap(namespace.clone()));
        }
        self.config_maps.take(told);
    }

    /// The cluster has ClusterTrustBundles, and this becomes of ours.
    pub(super) fn trust_bundle(&mut self, told: Told<(), Seen>) {
        if matches!(told, Told::Changed(..) | Told::Gone(())) {
            self.forget(&Target::TrustBundle);
        }
        self.trust_bundle.get_or_insert_with(Listed::new).take(told);
    }

    fn forget(&mut self, target: &Target) {
        self.waiting.remove(target);
        self.named.remove(target);
    }

    /// At most `most` writes that are due. Each must be answered by [`Plan::written`] or [`Plan::failed`].
    pub(super) fn steps(&self, most: usize) -> Vec<Step> {
        let due = self.targets().filter_map(|(target, content, seen)| {
            let force = match self.standing(content, seen) {
                Standing::Right | Standing::Foreign => return None,
                Standing::Absent => false,
                Standing::Wrong => true,
            };
            (!self.waiting.contains(&target)).then(|| Step {
                target,
                content: content.to_owned(),
                force,
            })
        });
        due.take(most).collect()
    }

    /// Foreign objects that were not named yet, each with who keeps it.
    pub(super) fn foreign(&mut self) -> Vec<(Target, Seen)> {
        let foreign = self.targets().filter_map(|(target, content, seen)| {
            let is_new =
                self.standing(content, seen) == Standing::Foreign && !self.named.contains(&target);
            is_new.then(|| seen.cloned().map(|seen| (target, seen)))?
        });
        let foreign: Vec<_> = foreign.collect();
        self.named
            .extend(foreign.iter().map(|(target, _)| target.clone()));
        foreign
    }

    /// How many objects there should be, and how many of them are somebody else's.
    pub(super) fn count(&self) -> (usize, usize) {
        let all = self.targets();
        all.fold((0, 0), |(all, foreign), (_, content, seen)| {
            let is_foreign = self.standing(content, seen) == Standing::Foreign;
            (all + 1, foreign + usize::from(is_foreign))
        })
    }

    /// The API server took the write; this came of it. When that is not what was written, somebody changes it on the way: then it
    /// waits as if it had failed.
    pub(super) fn written(&mut self, step: &Step, seen: Seen) {
        if self.standing(&step.content, Some(&seen)) != Standing::Right {
            self.waiting.insert(step.target.clone());
        }
        match &step.target {
            Target::ConfigMap(namespace) => {
                self.config_maps.now.insert(namespace.clone(), seen);
            }
            Target::TrustBundle => {
                if let Some(listed) = &mut self.trust_bundle {
                    listed.now.insert((), seen);
                }
            }
        }
    }

    /// It did not; not before [`Plan::retry`], or a change of what is there, is it tried again.
    pub(super) fn failed(&mut self, target: Target) {
        self.waiting.insert(target);
    }

    pub(super) fn retry(&mut self) {
        self.waiting.clear();
    }

    /// Whether something waits for that.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whoever begins to lead names anew what is foreign.
    pub(super) fn begin_to_lead(&mut self) {
        self.waiting.clear();
        self.named.clear();
    }

    /// What should be, and what is. Nothing until it is known what is there, and what belongs there.
    fn targets(&self) -> impl Iterator<Item = (Target, &str, Option<&Seen>)> {
        let known = self.namespaces.complete && self.config_maps.complete;
        let contents = self.contents.as_ref();
        let config_maps = contents.filter(|_| known).into_iter();
        let config_maps = config_maps.flat_map(|(content, _)| {
            let names = self.namespaces.now.iter();
            let names = names.filter(|(name, namespace)| self.takes(name, namespace));
            names.map(|(name, _)| {
                let seen = self.config_maps.now.get(name);
                (Target::ConfigMap(name.clone()), content.as_str(), seen)
            })
        });
        let trust_bundle = self.trust_bundle.as_ref().filter(|listed| listed.complete);
        let trust_bundle = contents.zip(trust_bundle).map(|((_, content), listed)| {
            (Target::TrustBundle, content.as_str(), listed.now.get(&()))
        });
        config_maps.chain(trust_bundle)
    }

    fn takes(&self, name: &str, namespace: &Namespace) -> bool {
        let selected = || {
            let selector = self.selector.as_ref();
            selector.is_some_and(|selector| selector.matches(&namespace.labels))
        };
        !namespace.is_ending && (name == self.own_namespace || selected())
    }

    fn standing(&self, content: &str, seen: Option<&Seen>) -> Standing {
        let Some(seen) = seen else {
            return Standing::Absent;
        };
        let others = seen
            .trust_domain
            .as_ref()
            .is_some_and(|mark| *mark != self.trust_domain);
        let is_ours = seen.is_managed && !others;
        match &seen.content {
            Some(there) if there == content && (!is_ours || seen.trust_domain.is_some()) => {
                Standing::Right
            }
            None if !is_ours && !others => Standing::Absent,
            _ if is_ours => Standing::Wrong,
            _ => Standing::Foreign,
        }
    }
}

#[cfg(test)]
mod tests;
