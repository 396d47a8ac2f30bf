//! What is to go, and when it may.

use super::{Ledger, Verdict, kept, own, pods};
use crate::controller::desired::Key;

impl Ledger {
    /// The next deletes, at most `most`: ID and key. Each must be answered by [`Ledger::deleted`].
    pub fn deletes(
        &mut self,
        most: usize,
        verdict: impl Fn(&Key) -> Verdict,
    ) -> Vec<(String, Key)> {
        let mut free = Vec::new();
        let mut bare = Vec::new();
        for key in &self.leaving {
            if free.len() >= most {
                break;
            }
            match verdict(key) {
                Verdict::Frozen => {}
                Verdict::Gone => free.push(key.clone()),
                Verdict::Undeclared if !self.is_made(key) => {}
                Verdict::Undeclared
                    if self.deliberate.contains(key) || self.leaves_identity(key) =>
                {
                    free.push(key.clone())
                }
                Verdict::Undeclared => bare.push(key.clone()),
            }
        }
        self.held = if self.is_mass(bare.len()) {
            bare.len()
        } else {
            0
        };
        if self.held == 0 {
            free.append(&mut bare);
        }
        free.truncate(most);
        free.into_iter()
            .flat_map(|key| {
                self.superfluous(&key)
                    .into_iter()
                    .map(move |id| (id, key.clone()))
            })
            .collect()
    }

    /// Make before break: everything that is wanted for the pods of `key` is there.
    fn is_made(&self, key: &Key) -> bool {
        pods(key).iter().all(|pod| {
            let mut wanted = self.wanted_by_pod.get(pod).into_iter().flatten();
            wanted.all(|wanted| self.existing.contains_key(wanted))
        })
    }

    /// Whether the pods of `key` keep another entry.
    pub(super) fn leaves_identity(&self, key: &Key) -> bool {
        let pods = pods(key);
        let keeps = |pod: &String| {
            self.wanted_by_pod
                .get(pod)
                .is_some_and(|keys| !keys.is_empty())
        };
        self.wanted.contains_key(key) || pods.iter().all(keeps)
    }

    pub(super) fn is_mass(&self, deletes: usize) -> bool {
        deletes > self.mass_delete.at_least
            && deletes * 100 > usize::from(self.mass_delete.percent) * self.owned()
    }

    /// The own IDs of `key` that are not to stay.
    fn superfluous(&self, key: &Key) -> Vec<String> {
        let stays = self.wanted.contains_key(key);
        let Some(existing) = self.existing.get(key) else {
            return Vec::new();
        };
        let kept = if stays { kept(existing) } else { None };
        let kept = kept.map(|(id, _)| id);
        let own = own(existing).filter(|id| Some(*id) != kept);
        own.cloned().collect()
    }

    /// What became of a delete. A failed one is looked at again by the next [`Ledger::deletes`].
    pub fn deleted(&mut self, id: &str, gone: bool) {
        if !gone {
            return;
        }
        if let Some(key) = self.forget(id) {
            self.leaving.remove(&key);
            self.deliberate.remove(&key);
            self.enqueue(key);
        }
    }
}
