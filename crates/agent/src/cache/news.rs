//! How news change the records.

use std::sync::Arc;

use identity::{Bundle, EntryId, RegistrationEntry, TrustDomain, X509Svid};

use super::{
    Cache, Changed,
    record::{Held, Record, is_tainted, knows_issuer},
};

impl Cache {
    pub(super) fn upsert(&mut self, entry: Arc<RegistrationEntry>, changed: &mut Changed) {
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

    pub(super) fn remove(&mut self, id: &EntryId, changed: &mut Changed) {
        let Some(record) = self.records.remove(id) else {
            return;
        };
        self.by_selector.remove(&record.entry);
        changed.extend(self.watched.forget_entry(&record.entry));
        self.plan.forget(id);
        if let Some(held) = record.svid {
            self.expiries.remove(&(held.ends(), id.clone()));
        }
        if let Some(since) = record.idle_since {
            self.idle.remove(&(since, id.clone()));
        }
    }

    /// Takes bundles in; tells whether one is new or gone.
    pub(super) fn set_bundles(
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
            if let Some(held) = record
                .unproven
                .take_if(|held| knows_issuer(&self.bundle, &held.svid))
            {
                proven.push((id.clone(), held));
            }
        }
        for (id, held) in proven {
            self.put(&id, held);
        }
        self.evict();
    }

    /// Puts an SVID in the place of the former one.
    pub(super) fn put(&mut self, id: &EntryId, held: Held) {
        let Some(record) = self.records.get_mut(id) else {
            return;
        };
        let ends = held.ends();
        if let Some(old) = record.svid.replace(held) {
            self.expiries.remove(&(old.ends(), id.clone()));
        }
        self.expiries.insert((ends, id.clone()));
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
            if record
                .svid
                .as_ref()
                .is_some_and(|held| concerned(&held.svid))
            {
                self.plan.force(id);
            }
        }
    }
}
