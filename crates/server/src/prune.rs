//! Forgets what is past: entries, join tokens, agents, old lines of the change log.

use std::time::{Duration, SystemTime};

use runtime::{BoxError, Clock, Metrics, Shutdown};
use store::{Store, StoreError};
use tonic::Code;

use crate::config::PruneAgents;

/// As often as SPIRE prunes entries.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// More than any follower of the change log falls behind; beyond it, it loads a snapshot.
const KEEP_CHANGES: u64 = 100_000;

/// What pruning works with.
pub(crate) struct Pruning {
    pub(crate) store: Store,
    pub(crate) agents: Option<PruneAgents>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
}

impl Pruning {
    /// Prunes at once and then every five minutes, until shutdown. A failure is logged, and tried again the next time.
    pub(crate) async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            let pruned = tokio::select! {
                pruned = self.prune(self.clock.now()) => pruned,
                () = shutdown.cancelled() => return Ok(()),
            };
            if let Err(error) = pruned {
                tracing::error!(%error, "cannot prune; trying again in five minutes");
            }
        }
    }

    async fn prune(&self, now: SystemTime) -> Result<(), StoreError> {
        let call = self.metrics.call("registration_entry_manager_prune", &[]);
        let pruned = self.store.prune_entries(now).await;
        call.finish(code(&pruned));
        for entry_id in pruned? {
            tracing::info!(%entry_id, "pruned an expired entry");
        }
        self.store.prune_join_tokens(now).await?;
        if let Some(prune) = self.agents
            && let Some(before) = now.checked_sub(prune.expired_for)
        {
            let call = self.metrics.call("node_manager_prune", &[]);
            let pruned = prune_agents(&self.store, prune, before).await;
            call.finish(code(&pruned));
            pruned?;
        }
        self.store.prune_changes(KEEP_CHANGES).await?;
        Ok(())
    }
}

/// A batch at a time: others write in between.
async fn prune_agents(
    store: &Store,
    prune: PruneAgents,
    before: SystemTime,
) -> Result<(), StoreError> {
    loop {
        let batch = store.prune_agents(before, prune.non_reattestable, prune.batch_size);
        let pruned = batch.await?;
        for agent_id in &pruned {
            tracing::info!(%agent_id, "pruned an agent whose SVID expired long ago");
        }
        if u32::try_from(pruned.len()).is_ok_and(|pruned| pruned < prune.batch_size) {
            return Ok(());
        }
    }
}

fn code<T>(outcome: &Result<T, StoreError>) -> Code {
    outcome.as_ref().map_or(Code::Internal, |_| Code::Ok)
}
