//! Which entries, and so which SVIDs, a set of selectors has: pure, no clock, no I/O.
//!
//! An entry is indexed under one of its selectors only, the rarest, so that a lookup looks at few
//! entries which do not match, however many share a selector. The selector sets that somebody
//! watches are indexed under each of theirs, so that a change finds those it concerns. Each change
//! tells whose view changed; nothing walks all entries or all watchers.

mod index;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use identity::{Bundle, BundleSet, EntryId, RegistrationEntry, Selectors, TrustDomain, X509Svid};

use self::index::{EntryIndex, Matching, WatchIndex};
use crate::{
    svid::{Plan, Rotation},
    workloads::{Identity, WorkloadView},
};

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

#[derive(Debug)]
struct Record {
    entry: Arc<RegistrationEntry>,
    svid: Option<Arc<X509Svid>>,
    /// A newer one, whose authority is not in the bundle yet: nobody could verify it.
    unproven: Option<Arc<X509Svid>>,
    /// How many watched selector sets match.
    watchers: usize,
    idle_since: Option<u64>,
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
            record.unproven = Some(svid);
            return Changed::new();
        }
        record.unproven = None;
        self.put(entry, svid);
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
                .is_some_and(|one| one.expires_at() <= now)
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

    /// Has every SVID replaced soon, since the clock was set back and the plan with it.
    pub fn renew_all(&mut self) {
        self.force(|_| true);
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
                Some(svid) if svid.expires_at() > now => view.identities.push(Identity {
                    entry,
                    svid: svid.clone(),
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
        let svid = self.records.get(id)?.svid.as_deref()?;
        Some((svid, self.rotation.due(svid.leaf()) <= now))
    }

    /// All entries with their SVIDs, as far as there are.
    pub fn records(
        &self,
    ) -> impl Iterator<Item = (&Arc<RegistrationEntry>, Option<&Arc<X509Svid>>)> {
        self.records
            .values()
            .map(|record| (&record.entry, record.svid.as_ref()))
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

    fn upsert(&mut self, entry: Arc<RegistrationEntry>, changed: &mut Changed) {
        let id = entry.id.clone();
        let old = self.records.get(&id).map(|record| record.entry.clone());
        match &old {
            Some(old) if *old == entry => return,
            // Nobody is left with the SVID of whom the entry named before.
            Some(old) if old.spiffe_id != entry.spiffe_id => self.remove(&id, changed),
            Some(old) => {
                self.by_selector.remove(old);
                changed.extend(self.watched.forget_entry(old));
            }
            None => {}
        }
        self.by_selector.insert(&entry);
        let watching = self.watched.note_entry(&entry);
        let watchers = watching.len();
        changed.extend(watching);
        let wanted = watchers > 0 || !entry.disable_x509_svid_prefetch;
        let record = self.records.entry(id.clone()).or_insert_with(|| Record {
            entry: entry.clone(),
            svid: None,
            unproven: None,
            watchers: 0,
            idle_since: None,
        });
        record.entry = entry;
        record.watchers = watchers;
        match (&record.svid, wanted) {
            (Some(_), _) => self.plan.force(&id),
            (None, true) => self.plan.want(&id, watchers > 0),
            (None, false) => self.plan.forget(&id),
        }
        self.settle_idle(&id);
    }

    fn remove(&mut self, id: &EntryId, changed: &mut Changed) {
        let Some(record) = self.records.remove(id) else {
            return;
        };
        self.by_selector.remove(&record.entry);
        changed.extend(self.watched.forget_entry(&record.entry));
        self.plan.forget(id);
        if let Some(svid) = record.svid {
            self.expiries.remove(&(svid.expires_at(), id.clone()));
        }
        if let Some(since) = record.idle_since {
            self.idle.remove(&(since, id.clone()));
        }
    }

    fn set_bundles(
        &mut self,
        own: Option<Arc<Bundle>>,
        federated: Vec<Arc<Bundle>>,
        gone: &[TrustDomain],
    ) -> bool {
        let mut changed = false;
        if let Some(own) = own.filter(|own| *own != self.bundle) {
            self.bundle = own;
            changed = true;
            self.replace_tainted();
            self.prove();
        }
        for bundle in federated {
            // An equal one stays the same one: what was encoded of it is still good.
            if self.federated.get(&bundle.trust_domain) != Some(&bundle) {
                changed = true;
                self.federated.insert(bundle.trust_domain.clone(), bundle);
            }
        }
        for domain in gone {
            changed |= self.federated.remove(domain).is_some();
        }
        changed
    }

    /// Puts in what waited for its authority. Everybody's view is new with a new bundle, so nobody need be told of it.
    fn prove(&mut self) {
        let mut proven = Vec::new();
        for (id, record) in &mut self.records {
            if let Some(svid) = record
                .unproven
                .take_if(|svid| knows_issuer(&self.bundle, svid))
            {
                proven.push((id.clone(), svid));
            }
        }
        for (id, svid) in proven {
            self.put(&id, svid);
        }
        self.evict();
    }

    /// Puts an SVID in the place of the former one.
    fn put(&mut self, id: &EntryId, svid: Arc<X509Svid>) {
        let Some(record) = self.records.get_mut(id) else {
            return;
        };
        self.expiries.insert((svid.expires_at(), id.clone()));
        if let Some(old) = record.svid.replace(svid.clone())
            && old.expires_at() != svid.expires_at()
        {
            self.expiries.remove(&(old.expires_at(), id.clone()));
        }
        self.settle_idle(id);
    }

    fn replace_tainted(&mut self) {
        if self.bundle.x509_authorities.iter().any(|one| one.tainted) {
            let bundle = self.bundle.clone();
            self.force(|svid| is_tainted(&bundle, svid));
        }
    }

    fn force(&mut self, concerned: impl Fn(&X509Svid) -> bool) {
        for (id, record) in &self.records {
            if record.svid.as_deref().is_some_and(&concerned) {
                self.plan.force(id);
            }
        }
    }

    fn more_watchers(&mut self, id: &EntryId) {
        let Some(record) = self.records.get_mut(id) else {
            return;
        };
        record.watchers += 1;
        if record.svid.is_none() {
            self.plan.want(id, true);
        }
        self.settle_idle(id);
    }

    fn fewer_watchers(&mut self, id: &EntryId) {
        let Some(record) = self.records.get_mut(id) else {
            return;
        };
        record.watchers -= 1;
        if record.watchers == 0 && record.svid.is_none() {
            if record.entry.disable_x509_svid_prefetch {
                self.plan.forget(id);
            } else {
                self.plan.want(id, false);
            }
        }
        self.settle_idle(id);
    }

    /// Keeps `idle` true to the record.
    fn settle_idle(&mut self, id: &EntryId) {
        let Some(record) = self.records.get_mut(id) else {
            return;
        };
        let idle = record.watchers == 0 && record.svid.is_some();
        match (idle, record.idle_since) {
            (true, None) => {
                self.idle_counter += 1;
                record.idle_since = Some(self.idle_counter);
                self.idle.insert((self.idle_counter, id.clone()));
            }
            (false, Some(since)) => {
                record.idle_since = None;
                self.idle.remove(&(since, id.clone()));
            }
            _ => {}
        }
    }

    /// Drops SVIDs above the capacity for which nobody waits, the longest idle first.
    fn evict(&mut self) {
        while self.expiries.len() > self.capacity {
            let Some((_, id)) = self.idle.pop_first() else {
                return;
            };
            let Some(record) = self.records.get_mut(&id) else {
                continue;
            };
            record.idle_since = None;
            if let Some(svid) = record.svid.take() {
                self.expiries.remove(&(svid.expires_at(), id.clone()));
            }
            if record.entry.disable_x509_svid_prefetch {
                self.plan.forget(&id);
            } else {
                self.plan.want(&id, false);
            }
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

/// Was it signed by an authority that is not to be trusted for long?
#[must_use]
pub fn is_tainted(bundle: &Bundle, svid: &X509Svid) -> bool {
    let Some(issuer) = issuer_id(svid) else {
        return false;
    };
    bundle
        .x509_authorities
        .iter()
        .any(|one| one.tainted && one.certificate.subject_key_id() == Some(issuer))
}

/// Is the authority that signed it in the bundle?
fn knows_issuer(bundle: &Bundle, svid: &X509Svid) -> bool {
    let issuer = issuer_id(svid);
    let mut authorities = bundle.x509_authorities.iter();
    issuer.is_none() || authorities.any(|one| one.certificate.subject_key_id() == issuer)
}

/// The key identifier of the authority at the end of the chain.
#[must_use]
pub fn issuer_id(svid: &X509Svid) -> Option<&[u8]> {
    svid.chain().last()?.authority_key_id()
}

/// The order of identities in a view.
fn order(entry: &RegistrationEntry) -> (SystemTime, EntryId) {
    (entry.created_at, entry.id.clone())
}

#[cfg(test)]
mod tests;
