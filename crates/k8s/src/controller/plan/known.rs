//! What the server is known to have, by what became of writes and by listings.

use std::sync::Arc;
use std::time::Duration;

use identity::RegistrationEntry;
use tokio::time::Instant;

use super::{Existing, Ledger, Written, ids, pods, take};
use crate::controller::desired::{Key, Wanted};

impl Ledger {
    /// What became of a write; gives how long the entry was waited for, when it is new.
    pub fn written(
        &mut self,
        entry: &RegistrationEntry,
        outcome: Written,
        now: Instant,
    ) -> Option<Duration> {
        let wanted = Wanted::of(entry);
        let key = wanted.key.clone();
        match outcome {
            Written::Done => {
                self.failed.remove(&key);
                self.note(entry.id.as_str(), Arc::new(wanted));
                // The declaration may have changed meanwhile; a second look costs a comparison.
                self.enqueue(key.clone());
                self.waiting
                    .remove(&key)
                    .map(|since| now.saturating_duration_since(since))
            }
            Written::Exists(there) => {
                let there_wanted = Wanted::of(&there);
                if there_wanted.key == key {
                    self.note(there.id.as_str(), Arc::new(there_wanted));
                    self.waiting.remove(&key);
                    self.enqueue(key);
                } else {
                    let message = format!("the server has another entry of the ID {}", entry.id);
                    self.failed.insert(key, message);
                }
                None
            }
            Written::Missing => {
                self.forget(entry.id.as_str());
                self.enqueue(key);
                None
            }
            Written::Failed(message) => {
                self.failed.insert(key, message);
                None
            }
        }
    }

    /// The server has `wanted` under `id`.
    pub(super) fn note(&mut self, id: &str, wanted: Arc<Wanted>) {
        if self.ids.get(id).is_some_and(|key| *key != wanted.key) {
            self.forget(id);
        }
        if let Some(listing) = &mut self.listing {
            listing.touch(id);
        }
        let key = wanted.key.clone();
        for pod in pods(&key) {
            self.existing_by_pod
                .entry(pod)
                .or_default()
                .insert(key.clone());
        }
        let ownership = ids::ownership(&self.rule, id);
        self.ids.insert(id.to_owned(), key.clone());
        self.existing
            .entry(key)
            .or_default()
            .insert(id.to_owned(), Existing { wanted, ownership });
    }

    /// The server does not have `id`.
    pub(super) fn forget(&mut self, id: &str) -> Option<Key> {
        if let Some(listing) = &mut self.listing {
            listing.touch(id);
        }
        let key = self.ids.remove(id)?;
        let existing = self.existing.get_mut(&key)?;
        existing.remove(id);
        if existing.is_empty() {
            self.existing.remove(&key);
            for pod in pods(&key) {
                take(&mut self.existing_by_pod, &pod, &key);
            }
        }
        Some(key)
    }
}
