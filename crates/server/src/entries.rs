//! Which entries an agent is authorised for: an index in memory that follows the store's change log.
//!
//! Reads never wait for the database. A write is in the index once [`Entries::catch_up`] has returned after it; whoever
//! writes an entry or an agent calls that before it answers, so that a caller sees its own writes.

mod index;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use identity::{EntryId, RegistrationEntry, SpiffeId, TrustDomain};
use runtime::{Gauge, Metrics};
use store::{Agent, ChangesError, Store, StoreError};
use tokio::sync::{Mutex, watch};
use tonic::Code;

use index::Index;

/// The entries and agents, indexed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Entries(Arc<Shared>);

struct Shared {
    store: Store,
    index: RwLock<Index>,
    /// Held by whoever brings the index up to date.
    turn: Mutex<()>,
    sequence: watch::Sender<u64>,
    told: RwLock<Told>,
    metrics: Metrics,
    gauges: Gauges,
}

/// SPIRE's figures of what is held in memory.
struct Gauges {
    entries: Gauge,
    agents: Gauge,
}

impl Gauges {
    fn new(metrics: &Metrics) -> Self {
        Self {
            entries: metrics.gauge("entry_entries_by_entryid_cache_count", &[]),
            agents: metrics.gauge("node_agents_by_id_cache_count", &[]),
        }
    }
}

/// What agents were told since the last change: most of their questions find nothing new.
#[derive(Default)]
struct Told {
    sequence: u64,
    authorized: HashMap<SpiffeId, Arc<[Arc<RegistrationEntry>]>>,
}

impl Entries {
    /// Loads all there is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn load(
        store: Store,
        trust_domain: &TrustDomain,
        metrics: &Metrics,
    ) -> Result<Self, StoreError> {
        let snapshot = store.snapshot().await?;
        let sequence = snapshot.sequence;
        let mut index = Index::new(trust_domain);
        index.load(snapshot);
        let entries = Self(Arc::new(Shared {
            gauges: Gauges::new(metrics),
            metrics: metrics.clone(),
            store,
            index: RwLock::new(index),
            turn: Mutex::new(()),
            sequence: watch::Sender::new(sequence),
            told: RwLock::default(),
        }));
        entries.show();
        Ok(entries)
    }

    /// Follows the store until it is closed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn follow(self) -> Result<(), StoreError> {
        let mut changed = self.0.store.watch();
        loop {
            self.catch_up().await?;
            if changed.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Takes in all that was committed before the call.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn catch_up(&self) -> Result<(), StoreError> {
        let wanted = *self.0.store.watch().borrow();
        if self.sequence() >= wanted {
            return Ok(());
        }
        let _turn = self.0.turn.lock().await;
        let known = self.sequence();
        if known >= wanted {
            return Ok(());
        }
        let call = self.0.metrics.call("entry_cache_reload", &[]);
        let loaded = self.load_since(known).await;
        call.finish(loaded.as_ref().map_or(Code::Internal, |()| Code::Ok));
        loaded
    }

    /// Takes in what was committed after `known`.
    async fn load_since(&self, known: u64) -> Result<(), StoreError> {
        let sequence = match self.0.store.changes_since(known).await {
            Ok(changes) => {
                let sequence = changes.sequence;
                self.write(|index| index.apply(changes));
                sequence
            }
            Err(ChangesError::Pruned(_)) => {
                let snapshot = self.0.store.snapshot().await?;
                let sequence = snapshot.sequence;
                self.write(|index| index.load(snapshot));
                sequence
            }
            Err(ChangesError::Store(error)) => return Err(error),
            Err(error) => return Err(StoreError::Failed(error.to_string())),
        };
        self.0.sequence.send_replace(sequence);
        Ok(())
    }

    /// The agent of this ID, banned or not.
    pub(crate) fn agent(&self, id: &SpiffeId) -> Option<Arc<Agent>> {
        self.read().agent(id)
    }

    /// All entries the agent is authorised for, by ID. None for an agent that is banned or not attested.
    pub(crate) fn authorized(&self, agent: &SpiffeId) -> Arc<[Arc<RegistrationEntry>]> {
        // What is found below is at least as new as this.
        let sequence = self.sequence();
        let told = self.0.told.read().unwrap_or_else(PoisonError::into_inner);
        if told.sequence == sequence
            && let Some(known) = told.authorized.get(agent)
        {
            return Arc::clone(known);
        }
        drop(told);
        let found = self.read().authorized(agent);
        let mut told = self.0.told.write().unwrap_or_else(PoisonError::into_inner);
        if told.sequence < sequence {
            told.sequence = sequence;
            told.authorized.clear();
        }
        if told.sequence == sequence {
            told.authorized.insert(agent.clone(), Arc::clone(&found));
        }
        found
    }

    /// Those of the entries `ids` that the agent is authorised for: one for each ID, in order.
    pub(crate) fn lookup(
        &self,
        agent: &SpiffeId,
        ids: &[EntryId],
    ) -> Vec<Option<Arc<RegistrationEntry>>> {
        self.read().lookup(agent, ids)
    }

    /// The entries of this SPIFFE ID, by ID.
    pub(crate) fn of_spiffe_id(&self, id: &SpiffeId) -> Vec<Arc<RegistrationEntry>> {
        self.read().of_spiffe_id(id)
    }

    fn sequence(&self) -> u64 {
        *self.0.sequence.borrow()
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.0.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut Index)) {
        let mut index = self.0.index.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut index);
        drop(index);
        self.show();
    }

    fn show(&self) {
        let (entries, agents) = self.read().counts();
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        for (gauge, count) in [
            (&self.0.gauges.entries, entries),
            (&self.0.gauges.agents, agents),
        ] {
            gauge.set(count as f64);
        }
    }
}
