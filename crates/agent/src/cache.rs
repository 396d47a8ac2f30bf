//! Which entries, and so which SVIDs, a set of selectors has: pure, no clock, no I/O.
//!
//! An entry is indexed under one of its selectors only, the rarest, so that a lookup looks at few
//! entries which do not match, however many share a selector. The selector sets that somebody
//! watches are indexed under each of theirs, so that a change finds those it concerns. Each change
//! tells whose view changed; nothing walks all entries or all watchers.

mod idle;
mod index;
mod news;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use identity::{Bundle, BundleSet, EntryId, RegistrationEntry, Selectors, TrustDomain, X509Svid};

use self::{
    index::{EntryIndex, Matching, WatchIndex},
    record::{Held, Record, knows_issuer, order},
};
use crate::{
    clock_watch::ClockSet,
    svid::{Plan, Rotation},
    workloads::{Identity, WorkloadView},
};

pub use self::record::{is_tainted, issuer_id};

/// All that the agent has for workloads.
#[derive(Debug)]
pub struct Cache {
    records: HashMap<EntryId, Record>,
    by_selector: EntryIndex,
    watched: WatchIndex,
    bundle: Arc<Bundle>,
    federated: BTreeMap<TrustDomain, Arc<Bundle>>,
    synced: bool,
    plan: Plan,
    rotation: Rotation,
    expiries: BTreeSet<(SystemTime, EntryId)>,
    /// SVIDs for which nobody waits, the longest idle first.
    idle: BTreeSet<(u64, EntryId)>,
    idle_counter: u64,
    capacity: usize,
}

/// News from the server, or from the disk.
#[derive(Debug, Default)]
pub struct Update {
    /// Entries that are new or different.
    pub upserted: Vec<Arc<RegistrationEntry>>,
    /// Entries that are no longer this agent's.
    pub removed: Vec<EntryId>,
    /// The bundle of the agent's own trust domain.
    pub bundle: Option<Arc<Bundle>>,
    /// Bundles of other trust domains; the ones not named stay.
    pub federated: Vec<Arc<Bundle>>,
    /// Trust domains whose bundles are gone.
    pub unfederated: Vec<TrustDomain>,
    /// With this update everything the server has said is known.
    pub synced: bool,
}

/// Whose views changed.
pub type Changed = HashSet<Selectors>;

impl Cache {
    /// An empty cache, not synced. Keeps about `capacity` SVIDs for which nobody waits.
    #[must_use]
    pub fn new(trust_domain: &TrustDomain, capacity: usize, rotation: Rotation) -> Self {
        Self {
            records: HashMap::new(),
            by_selector: EntryIndex::default(),
            watched: WatchIndex::default(),
            bundle: Arc::new(Bundle::empty(trust_domain.clone())),
            federated: BTreeMap::new(),
            synced: false,
            plan: Plan::new(capacity),
            rotation,
            expiries: BTreeSet::new(),
            idle: BTreeSet::new(),
            idle_counter: 0,
            capacity,
        }
    }

    /// Takes news in.
    pub fn apply(&mut self, update: Update) -> Changed {
        let mut changed = Changed::new();
        for id in &update.removed {
            self.remove(id, &mut changed);
        }
        for entry in update.upserted {
            // SVIDs that go to a secret store are no workload's.
            if entry.store_svid {
                self.remove(&entry.id, &mut changed);
            } else {
                self.upsert(entry, &mut changed);
            }
        }
        let mut all = self.set_bundles(update.bundle, update.federated, &update.unfederated);
        all |= update.synced && !self.synced;
        self.synced |= update.synced;
        if all {
            changed.extend(self.watched.sets().cloned());
        }
        changed
    }

    /// Takes an SVID in, made when its entry had this revision. Until its authority is in the bundle, the one before it
    /// stays in its place.
    pub fn issued(
        &mut self,
        entry: &EntryId,
        revision: i64,
        svid: Arc<X509Svid>,
        now: SystemTime,
    ) -> Changed {
        let Some(record) = self.records.get_mut(entry) else {
            self.plan.forget(entry);
            return Changed::new();
        };
        if *svid.id() != record.entry.spiffe_id {
            // The entry became somebody else while the SVID was on its way.
            self.plan.give_back(entry);
            return Changed::new();
        }
        if svid.expires_at() <= now {
            self.plan.failed(entry, now);
            return Changed::new();
        }
        let current = record.entry.revision == revision;
        let selectors = record.entry.selectors.clone();
        self.plan.hold(entry, self.rotation.due(svid.leaf()));
        if !current || is_tainted(&self.bundle, &svid) {
            self.plan.force(entry);
        }
        if !knows_issuer(&self.bundle, &svid) {
            record.unproven = Some(Held::new(svid));
            return Changed::new();
        }
        record.unproven = None;
        self.put(entry, Held::new(svid));
        self.evict();
        self.watched.matching(&selectors).cloned().collect()
    }

    /// Whether an SVID waits for its authority to come into the bundle.
    #[must_use]
    pub fn lacks_authorities(&self) -> bool {
        self.records.values().any(|one| one.unproven.is_some())
    }

    /// The server refused an SVID for this entry.
    pub fn refused(&mut self, entry: &EntryId, now: SystemTime) {
        self.plan.failed(entry, now);
    }

    /// These could not be asked for; they are due again.
    pub fn give_back<'a>(&mut self, entries: impl IntoIterator<Item = &'a EntryId>) {
        for entry in entries {
            self.plan.give_back(entry);
        }
    }

    /// Drops what has expired.
    pub fn expire(&mut self, now: SystemTime) -> Changed {
        let mut changed = Changed::new();
        while let Some((when, _)) = self.expiries.first()
            && *when <= now
        {
            let Some((_, id)) = self.expiries.pop_first() else {
                break;
            };
            let Some(record) = self.records.get_mut(&id) else {
                continue;
            };
            record.svid = None;
            if record
                .unproven
                .as_ref()
                .is_some_and(|one| one.ends() <= now)
            {
                record.unproven = None;
            }
            let waited_for = record.watchers > 0;
            changed.extend(self.watched.matching(&record.entry.selectors).cloned());
            if let Some(since) = record.idle_since.take() {
                self.idle.remove(&(since, id.clone()));
            }
            if waited_for || !record.entry.disable_x509_svid_prefetch {
                self.plan.want(&id, waited_for);
            } else {
                self.plan.forget(&id);
            }
        }
        changed
    }

    /// The clock was set, and shows `now`. No SVID lives longer for that, and with one that was set back, whatever was
    /// planned for later is due.
    pub fn clock_set(&mut self, set: ClockSet, now: SystemTime) -> Changed {
        self.expiries.clear();
        for (id, record) in &mut self.records {
            let both = [&mut record.svid, &mut record.unproven];
            for held in both.into_iter().flatten() {
                held.until = set.shift(held.until);
            }
            if let Some(held) = &record.svid {
                self.expiries.insert((held.ends(), id.clone()));
            }
        }
        if matches!(set, ClockSet::Back(_)) {
            self.plan.hurry();
        }
        self.expire(now)
    }

    /// Somebody watches this selector set from now on: its entries are waited for.
    pub fn watch(&mut self, selectors: &Selectors) {
        let matching: Matching = self
            .by_selector
            .matching(selectors)
            .filter_map(|id| self.records.get(id))
            .map(|record| order(&record.entry))
            .collect();
        let ids: Vec<EntryId> = matching.iter().map(|(_, id)| id.clone()).collect();
        if !self.watched.insert(selectors.clone(), matching) {
            return;
        }
        for id in ids {
            self.more_watchers(&id);
        }
    }

    /// Nobody watches this selector set any more.
    pub fn unwatch(&mut self, selectors: &Selectors) {
        for (_, id) in self.watched.remove(selectors) {
            self.fewer_watchers(&id);
        }
        self.evict();
    }

    /// What a workload with these selectors may have now.
    #[must_use]
    pub fn view(&self, selectors: &Selectors, now: SystemTime) -> WorkloadView {
        let mut view = WorkloadView {
            synced: self.synced,
            identities: Vec::new(),
            pending: Vec::new(),
            bundle: self.bundle.clone(),
            federated: BTreeMap::new(),
        };
        let found;
        let matching = match self.watched.entries(selectors) {
            Some(matching) => matching,
            None => {
                found = self
                    .by_selector
                    .matching(selectors)
                    .filter_map(|id| self.records.get(id))
                    .map(|record| order(&record.entry))
                    .collect();
                &found
            }
        };
        for record in matching.iter().filter_map(|(_, id)| self.records.get(id)) {
            for domain in &record.entry.federates_with {
                if let Some(bundle) = self.federated.get(domain) {
                    view.federated.insert(domain.clone(), bundle.clone());
                }
            }
            let entry = record.entry.clone();
            match &record.svid {
                Some(held) if held.ends() > now => view.identities.push(Identity {
                    entry,
                    svid: held.svid.clone(),
                }),
                _ => view.pending.push(entry),
            }
        }
        view
    }

    /// Takes up to `limit` entries whose SVID is due, the most urgent first. Each must come back by
    /// [`Cache::issued`], [`Cache::refused`] or [`Cache::give_back`].
    pub fn take_due(&mut self, now: SystemTime, limit: usize) -> Vec<Arc<RegistrationEntry>> {
        self.plan
            .take(now, limit)
            .iter()
            .filter_map(|id| self.records.get(id))
            .map(|record| record.entry.clone())
            .collect()
    }

    /// When [`Cache::take_due`] will next have something.
    #[must_use]
    pub fn next_due(&self, now: SystemTime) -> Option<SystemTime> {
        self.plan.next_due(now)
    }

    /// When the next SVID expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<SystemTime> {
        self.expiries.first().map(|(when, _)| *when)
    }

    /// When the last SVID expires.
    #[must_use]
    pub fn last_expiry(&self) -> Option<SystemTime> {
        self.expiries.last().map(|(when, _)| *when)
    }

    /// An entry of this agent.
    #[must_use]
    pub fn entry(&self, id: &EntryId) -> Option<&Arc<RegistrationEntry>> {
        self.records.get(id).map(|record| &record.entry)
    }

    /// The SVID of an entry, and whether the time of its renewal has come.
    #[must_use]
    pub fn svid(&self, id: &EntryId, now: SystemTime) -> Option<(&X509Svid, bool)> {
        let svid = &*self.records.get(id)?.svid.as_ref()?.svid;
        Some((svid, self.rotation.due(svid.leaf()) <= now))
    }

    /// All entries with their SVIDs, as far as there are.
    pub fn records(
        &self,
    ) -> impl Iterator<Item = (&Arc<RegistrationEntry>, Option<&Arc<X509Svid>>)> {
        self.records
            .values()
            .map(|record| (&record.entry, record.svid.as_ref().map(|held| &held.svid)))
    }

    /// The bundle of the agent's own trust domain.
    #[must_use]
    pub const fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// The trust domains whose bundles are there besides the own.
    pub fn federated(&self) -> impl Iterator<Item = &TrustDomain> {
        self.federated.keys()
    }

    /// The own bundle and all federated ones.
    #[must_use]
    pub fn bundles(&self) -> BundleSet {
        [&self.bundle]
            .into_iter()
            .chain(self.federated.values())
            .cloned()
            .collect()
    }

    /// Has everything the server has said been known once?
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.synced
    }

    /// How many of what there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            entries: self.records.len(),
            svids: self.expiries.len(),
            missing: self.plan.missing(),
            stale: self.plan.stale(),
        }
    }
}

/// How many of what a [`Cache`] has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries of this agent.
    pub entries: usize,
    /// X.509-SVIDs.
    pub svids: usize,
    /// Entries without an SVID that are to have one.
    pub missing: usize,
    /// SVIDs that are to be replaced.
    pub stale: usize,
}

#[cfg(test)]
mod tests;
