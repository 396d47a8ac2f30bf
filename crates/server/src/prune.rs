//! Forgets what is past: entries, join tokens, agents, old lines of the change log.

use std::time::{Duration, SystemTime};

use runtime::{BoxError, Clock, Shutdown};
use store::{Store, StoreError};

use crate::config::PruneAgents;

/// As often as SPIRE prunes entries.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// More than any follower of the change log falls behind; beyond it, it loads a snapshot.
const KEEP_CHANGES: u64 = 100_000;

/// Prunes at once and then every five minutes, until shutdown. A failure is logged, and tried again the next time.
pub(crate) async fn run(
    store: Store,
    agents: Option<PruneAgents>,
    clock: Clock,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        if let Err(error) = prune(&store, agents, clock.now()).await {
            tracing::error!(%error, "cannot prune; trying again in five minutes");
        }
    }
}

async fn prune(
    store: &Store,
    agents: Option<PruneAgents>,
    now: SystemTime,
) -> Result<(), StoreError> {
    for entry_id in store.prune_entries(now).await? {
        tracing::info!(%entry_id, "pruned an expired entry");
    }
    store.prune_join_tokens(now).await?;
    if let Some(prune) = agents
        && let Some(before) = now.checked_sub(prune.expired_for)
    {
        for agent_id in store.prune_agents(before, prune.non_reattestable).await? {
            tracing::info!(%agent_id, "pruned an agent whose SVID expired long ago");
        }
    }
    store.prune_changes(KEEP_CHANGES).await?;
    Ok(())
}
