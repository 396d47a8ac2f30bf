//! The change log: which entry, agent or bundle changed, in the order of commits.
//!
//! A sequence number is never used twice and never goes back; some are skipped. What follows the log loads a
//! [`Snapshot`] once, then asks for the [`Changes`] since, woken by [`Store::watch`].

use std::sync::Arc;

use identity::{EntryId, RegistrationEntry, SpiffeId, TrustDomain};
use thiserror::Error;
use tokio::sync::watch;

use crate::{Agent, Store, StoreError};

/// What became of one thing. Unset: it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An entry.
    Entry(EntryId, Option<Arc<RegistrationEntry>>),
    /// An agent.
    Agent(SpiffeId, Option<Arc<Agent>>),
    /// A bundle; ask [`Store::bundle`] for it.
    Bundle(TrustDomain),
}

/// The changes after some sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The sequence number of the last of them.
    pub sequence: u64,
    /// In order. A thing that changed again later may show its later state already.
    pub changes: Vec<Change>,
}

/// All that the change log is about, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The sequence number of the last change in it.
    pub sequence: u64,
    /// All entries.
    pub entries: Vec<RegistrationEntry>,
    /// All agents.
    pub agents: Vec<Agent>,
}

/// Why the changes cannot be told.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangesError {
    /// The log does not reach back so far: load a snapshot.
    #[error("the changes since {0} are pruned; load a snapshot")]
    Pruned(u64),
    /// The read failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The sequence number of the last change, as it grows. A write is seen here before its caller hears of its success.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        todo!()
    }

    /// The changes after `sequence`.
    ///
    /// # Errors
    /// When the log is pruned past that, or the read failed.
    pub async fn changes_since(&self, sequence: u64) -> Result<Changes, ChangesError> {
        let _ = sequence;
        todo!()
    }

    /// All entries and agents at this moment.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        todo!()
    }

    /// Forgets all changes but the last `keep`; tells how many were forgotten.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn prune_changes(&self, keep: u64) -> Result<u64, StoreError> {
        let _ = keep;
        todo!()
    }
}
