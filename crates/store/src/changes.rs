//! The change log: which entry, agent or bundle changed, in the order of commits.
//!
//! A sequence number is never used twice and never goes back; some are skipped. What follows the log loads a
//! [`Snapshot`] once, then asks for the [`Changes`] since, woken by [`Store::watch`].

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use identity::{EntryId, RegistrationEntry, SpiffeId, TrustDomain};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, QueryBuilder, Sqlite};
use thiserror::Error;
use tokio::sync::watch;

use crate::{Agent, Store, StoreError, agents, entries, sets};

/// How many changes are kept in memory, resolved; whoever is further behind reads the log.
const MAX_RECENT: usize = 16_384;

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
    #[error("the changes since {0} are not kept; load a snapshot")]
    Pruned(u64),
    /// The read failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The sequence number of the last change, as it grows. A write is seen here before its caller hears of its success.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.log.last.subscribe()
    }

    /// The changes after `sequence`.
    ///
    /// # Errors
    /// When the log does not reach back so far, or the read failed.
    pub async fn changes_since(&self, sequence: u64) -> Result<Changes, ChangesError> {
        if let Some(changes) = self.log.since(sequence) {
            return Ok(changes);
        }
        let read = self.read_since(sequence);
        let changes = self.observe("registration_entry_event_list", read).await?;
        changes.ok_or(ChangesError::Pruned(sequence))
    }

    /// `None` when the log does not reach back so far.
    async fn read_since(&self, sequence: u64) -> Result<Option<Changes>, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.begin().await?;
        let last = last_sequence(&mut snapshot).await?;
        let first: Option<i64> = sqlx::query_scalar("SELECT MIN(sequence) FROM changes")
            .fetch_one(&mut *snapshot)
            .await?;
        let reaches_back = first.is_none_or(|first| sequence + 1 >= first.cast_unsigned());
        if sequence > last || !reaches_back {
            return Ok(None);
        }
        Ok(Some(Changes {
            sequence: last,
            changes: read_log(&mut snapshot, sequence).await?,
        }))
    }

    /// All entries and agents at this moment.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.begin().await?;
        Ok(Snapshot {
            sequence: last_sequence(&mut snapshot).await?,
            entries: entries::all(&mut snapshot).await?,
            agents: agents::all(&mut snapshot).await?,
        })
    }

    /// Forgets all changes but the last `keep`, and never the very last; tells how many were forgotten.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn prune_changes(&self, keep: u64) -> Result<u64, StoreError> {
        const PRUNE: &str = "DELETE FROM changes WHERE sequence <= $1";
        let keep = keep.max(1);
        let through = self.log.last.borrow().saturating_sub(keep).cast_signed();
        self.execute("registration_entry_event_prune", PRUNE, |query| {
            query.bind(through)
        })
        .await
    }
}

/// What the store tells of its changes without asking the database.
pub(crate) struct Log {
    last: watch::Sender<u64>,
    recent: Mutex<Recent>,
}

struct Recent {
    /// All changes after this number are in `changes`.
    after: u64,
    changes: VecDeque<(u64, Change)>,
}

impl Log {
    pub(crate) fn new(sequence: u64) -> Self {
        Self {
            last: watch::Sender::new(sequence),
            recent: Mutex::new(Recent {
                after: sequence,
                changes: VecDeque::new(),
            }),
        }
    }

    /// Takes in what a transaction changed, after its commit.
    pub(crate) fn append(&self, changes: Vec<(u64, Change)>) {
        let Some(&(sequence, _)) = changes.last() else {
            return;
        };
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.changes.extend(changes);
            let surplus = recent.changes.len().saturating_sub(MAX_RECENT);
            let dropped = recent.changes.drain(..surplus).next_back();
            if let Some((number, _)) = dropped {
                recent.after = number;
            }
        }
        self.last.send_replace(sequence);
    }

    fn since(&self, sequence: u64) -> Option<Changes> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if sequence < recent.after {
            return None;
        }
        let known = recent
            .changes
            .partition_point(|(number, _)| *number <= sequence);
        let last = recent
            .changes
            .back()
            .map_or(recent.after, |(number, _)| *number);
        (sequence <= last).then(|| Changes {
            sequence: last,
            changes: recent
                .changes
                .range(known..)
                .map(|(_, change)| change.clone())
                .collect(),
        })
    }
}

pub(crate) async fn last_sequence(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let last: Option<i64> = sqlx::query_scalar("SELECT MAX(sequence) FROM changes")
        .fetch_one(connection)
        .await?;
    Ok(last.unwrap_or_default().cast_unsigned())
}

/// Writes a transaction's changes into the log.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    changes: &[(u64, Change)],
) -> Result<(), StoreError> {
    for chunk in sets::chunks(changes) {
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT INTO changes (sequence, kind, subject) ");
        query.push_values(chunk, |mut row, (sequence, change)| {
            let (kind, subject) = subject(change);
            row.push_bind(sequence.cast_signed())
                .push_bind(kind)
                .push_bind(subject);
        });
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

const ENTRY: i64 = 1;
const AGENT: i64 = 2;
const BUNDLE: i64 = 3;

fn subject(change: &Change) -> (i64, &str) {
    match change {
        Change::Entry(id, _) => (ENTRY, id.as_str()),
        Change::Agent(id, _) => (AGENT, id.as_str()),
        Change::Bundle(trust_domain) => (BUNDLE, trust_domain.as_str()),
    }
}

/// Reads the log and resolves each thing to its state in this snapshot, once.
async fn read_log(
    snapshot: &mut SqliteConnection,
    sequence: u64,
) -> Result<Vec<Change>, StoreError> {
    const SINCE: &str = "SELECT kind, subject FROM changes WHERE sequence > $1 ORDER BY sequence";
    let rows: Vec<(i64, String)> = sqlx::query_as(SINCE)
        .bind(sequence.cast_signed())
        .fetch_all(&mut *snapshot)
        .await?;
    let mut seen = HashSet::new();
    let mut changes = Vec::new();
    for (kind, subject) in rows {
        if seen.insert((kind, subject.clone())) {
            changes.push(resolve(snapshot, kind, &subject).await?);
        }
    }
    Ok(changes)
}

async fn resolve(
    snapshot: &mut SqliteConnection,
    kind: i64,
    subject: &str,
) -> Result<Change, StoreError> {
    let damaged = |error: &dyn std::fmt::Display| {
        StoreError::Damaged(format!("change of {subject:?}: {error}"))
    };
    match kind {
        ENTRY => {
            let id = EntryId::new(subject).map_err(|error| damaged(&error))?;
            let entry = entries::by_id(snapshot, subject).await?;
            Ok(Change::Entry(id, entry.map(|row| Arc::new(row.entry))))
        }
        AGENT => {
            let id = SpiffeId::parse(subject).map_err(|error| damaged(&error))?;
            let agent = agents::by_id(snapshot, subject).await?;
            Ok(Change::Agent(id, agent.map(|row| Arc::new(row.agent))))
        }
        BUNDLE => TrustDomain::new(subject)
            .map(Change::Bundle)
            .map_err(|error| damaged(&error)),
        _ => Err(damaged(&"of an unknown kind")),
    }
}
