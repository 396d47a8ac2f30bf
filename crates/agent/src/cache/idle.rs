//! Which SVIDs somebody waits for, and which may go when there are too many.

use identity::EntryId;

use super::Cache;

impl Cache {
    /// One more watched selector set matches the entry.
    pub(super) fn more_watchers(&mut self, id: &EntryId) {
        let Some(record) = self.records.get_mut(id) else {
            return;
        };
        record.watchers += 1;
        if record.svid.is_none() {
            self.plan.want(id, true);
        }
        self.settle_idle(id);
    }

    /// One less does.
    pub(super) fn fewer_watchers(&mut self, id: &EntryId) {
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
    pub(super) fn settle_idle(&mut self, id: &EntryId) {
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
    pub(super) fn evict(&mut self) {
        while self.expiries.len() > self.capacity {
            let Some((_, id)) = self.idle.pop_first() else {
                return;
            };
            let Some(record) = self.records.get_mut(&id) else {
                continue;
            };
            record.idle_since = None;
            if let Some(held) = record.svid.take() {
                self.expiries.remove(&(held.ends(), id.clone()));
            }
            if record.entry.disable_x509_svid_prefetch {
                self.plan.forget(&id);
            } else {
                self.plan.want(&id, false);
            }
        }
    }
}
