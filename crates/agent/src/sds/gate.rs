//! Certificates of a new authority wait until the Envoys of this node have that authority.
//!
//! Envoy takes each secret on a stream of its own, so no order within a stream helps: a workload that shows a new
//! certificate to one that has not got its new bundle yet is refused. So the streams of a node have one gate. Who does
//! not answer holds the others up for a moment only.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use identity::Bundle;
use tokio::sync::watch;

/// The gate of one agent.
#[derive(Debug)]
pub(super) struct Gate {
    /// For how long a new authority's certificates wait at most; zero: not at all.
    patience: Duration,
    state: Mutex<State>,
    /// Whether somebody was told to wait since the last change was announced.
    awaited: AtomicBool,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Grows with every bundle that brings an authority not seen before.
    generation: u64,
    /// By key identifier.
    authorities: HashMap<Vec<u8>, Seen>,
    /// By its number, the newest generation that a reader has accepted.
    readers: HashMap<u64, Option<u64>>,
    last_reader: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    generation: u64,
    at: SystemTime,
}

/// One subscription to the own bundle that was given something. It counts until it is dropped.
#[derive(Debug)]
pub(super) struct Reader {
    gate: Arc<Gate>,
    number: u64,
}

impl Gate {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            state: Mutex::default(),
            awaited: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }
    }

    /// Changes whenever a certificate may no longer have to wait.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The generation of a bundle, whose authorities are known from now on.
    pub(super) fn see(&self, bundle: &Bundle, now: SystemTime) -> u64 {
        let mut state = self.state();
        let ids = bundle
            .x509_authorities
            .iter()
            .filter_map(|one| one.certificate.subject_key_id());
        // What is there from the start has been there for longer.
        let next = if state.authorities.is_empty() {
            0
        } else {
            state.generation + 1
        };
        let mut newest = 0;
        for id in ids {
            let seen = match state.authorities.get(id) {
                Some(seen) => *seen,
                None => {
                    let seen = Seen {
                        generation: next,
                        at: now,
                    };
                    state.generation = next;
                    state.authorities.insert(id.to_vec(), seen);
                    seen
                }
            };
            newest = newest.max(seen.generation);
        }
        newest
    }

    /// One more reader of the own bundle, that has not accepted anything yet.
    pub(super) fn enter(self: &Arc<Self>) -> Reader {
        let mut state = self.state();
        state.last_reader += 1;
        let number = state.last_reader;
        state.readers.insert(number, None);
        drop(state);
        Reader {
            gate: Arc::clone(self),
            number,
        }
    }

    /// Until when a certificate of this authority has to wait, if it has to.
    pub(super) fn closed_until(&self, authority: &[u8], now: SystemTime) -> Option<SystemTime> {
        let state = self.state();
        let seen = *state.authorities.get(authority)?;
        let until = seen.at + self.patience;
        // A clock set back must not make it wait for longer.
        if seen.generation == 0 || now >= until || now < seen.at {
            return None;
        }
        let mut readers = state.readers.values();
        readers
            .any(|accepted| accepted.is_none_or(|accepted| accepted < seen.generation))
            .then(|| {
                self.awaited.store(true, Ordering::Relaxed);
                until
            })
    }

    /// With the state locked: nobody may be told to wait between a change and this.
    fn announce(&self, state: MutexGuard<'_, State>) {
        let awaited = self.awaited.swap(false, Ordering::Relaxed);
        drop(state);
        if awaited {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// It has accepted the bundle of this generation.
    pub(super) fn accepted(&self, generation: u64) {
        let mut state = self.gate.state();
        if let Some(accepted) = state.readers.get_mut(&self.number)
            && accepted.is_none_or(|accepted| accepted < generation)
        {
            *accepted = Some(generation);
            self.gate.announce(state);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.readers.remove(&self.number);
        self.gate.announce(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sds::fixtures::{Domain, now};

    const PATIENCE: Duration = Duration::from_secs(5);

    fn id(bundle: &Bundle, number: usize) -> &[u8] {
        let authority = &bundle.x509_authorities[number];
        authority.certificate.subject_key_id().unwrap()
    }

    /// A gate that knows the first of two authorities, and the bundle of both.
    fn gate() -> (Arc<Gate>, Bundle) {
        let (old, new) = (Domain::new("example.org"), Domain::new("example.org"));
        let gate = Arc::new(Gate::new(PATIENCE));
        assert_eq!(gate.see(&old.bundle, now()), 0);
        let mut both = (*old.bundle).clone();
        both.x509_authorities
            .push(new.bundle.x509_authorities[0].clone());
        (gate, both)
    }

    #[test]
    fn s_5_28_a_new_authority_waits_for_every_reader() {
        let (gate, both) = gate();
        let (first, second) = (gate.enter(), gate.enter());
        first.accepted(0);
        assert_eq!(gate.see(&both, now()), 1);
        assert_eq!(gate.see(&both, now()), 1);
        let changes = gate.changes();
        let closed = || gate.closed_until(id(&both, 1), now());
        assert_eq!(closed(), Some(now() + PATIENCE));
        // The older authority's certificates do not wait.
        assert_eq!(gate.closed_until(id(&both, 0), now()), None);
        first.accepted(1);
        assert!(changes.has_changed().unwrap());
        assert!(closed().is_some());
        second.accepted(1);
        assert_eq!(closed(), None);
        // A reader that comes later waits for its own bundle alone, and only for a while.
        let third = gate.enter();
        assert!(closed().is_some());
        drop(third);
        assert_eq!(closed(), None);
    }

    #[test]
    fn s_5_28_who_does_not_answer_holds_nobody_up_for_long() {
        let (gate, both) = gate();
        let _silent = gate.enter();
        gate.see(&both, now());
        let closed = |at| gate.closed_until(id(&both, 1), at);
        assert!(closed(now() + PATIENCE - Duration::from_millis(1)).is_some());
        assert_eq!(closed(now() + PATIENCE), None);
        // Not even when the clock is set back.
        assert_eq!(closed(now() - PATIENCE), None);
    }

    #[test]
    fn s_5_28_nobody_waits_where_nobody_reads() {
        let (gate, both) = gate();
        gate.see(&both, now());
        assert_eq!(gate.closed_until(id(&both, 1), now()), None);
        assert_eq!(gate.closed_until(b"of nobody", now()), None);
    }
}
