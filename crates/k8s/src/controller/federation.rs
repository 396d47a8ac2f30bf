//! ClusterFederatedTrustDomains become the server's federation relationships.
//!
//! A relationship has no place for a mark of whose it is. So only those are deleted that a resource declared while this
//! process watched; what was deleted meanwhile stays, and the TrustDomain API removes it.

mod plan;

use std::time::Duration;

use runtime::{BoxError, Clock, Metrics, Shutdown};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::config::Config;
use super::reconcile::kubernetes_time;
use super::state::{Event, StatusUpdate};
use crate::signet::{Signet, SignetError};

use plan::Federations;

/// Between an event and the work, so that several events are one piece of work.
const SETTLE: Duration = Duration::from_millis(50);

/// The loop over foreign trust domains.
pub(super) struct Federator {
    pub(super) signet: Signet,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) leads: Option<watch::Receiver<bool>>,
    pub(super) statuses: mpsc::Sender<StatusUpdate>,
    pub(super) unwritten: mpsc::UnboundedReceiver<String>,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    /// Between two looks at the server.
    pub(super) resync: Duration,
}

impl Federator {
    pub(super) async fn run(mut self, config: &Config, shutdown: Shutdown) -> Result<(), BoxError> {
        let mut state = Federations::new(config.scope.clone(), config.class.clone());
        let mut due = Instant::now();
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    state.take(event);
                    due = due.min(Instant::now() + SETTLE);
                    continue;
                }
                () = tokio::time::sleep_until(due) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            due = Instant::now() + self.resync;
            if self.leads.as_ref().is_some_and(|leads| !*leads.borrow()) {
                due = Instant::now() + Duration::from_secs(1);
                continue;
            }
            if let Err(error) = self.reconcile(&mut state).await {
                self.metrics
                    .counter("server_errors", &[("call", "federation")])
                    .increment();
                tracing::warn!(%error, "cannot reconcile foreign trust domains");
            }
            self.tell(&mut state);
        }
    }

    async fn reconcile(&self, state: &mut Federations) -> Result<(), SignetError> {
        state.listed(self.list().await?);
        let writes = state.plan();
        let created = self.signet.create_federation(writes.create.clone()).await?;
        let updated = self.signet.update_federation(writes.update.clone()).await?;
        let changed = writes
            .create
            .iter()
            .chain(&writes.update)
            .zip(created.into_iter().chain(updated));
        let mut any = false;
        for (relation, outcome) in changed {
            any = true;
            let failure = (!outcome.is_ok()).then_some(outcome.message);
            if let Some(error) = &failure {
                tracing::warn!(
                    trust_domain = relation.trust_domain,
                    error,
                    "the server refused a federation relationship"
                );
            }
            state.written(&relation.trust_domain, failure);
        }
        let deleted = self.signet.delete_federation(writes.delete.clone()).await?;
        for (trust_domain, outcome) in writes.delete.iter().zip(&deleted) {
            tracing::info!(trust_domain, code = ?outcome.code, "federation relationship deleted");
        }
        if any || !deleted.is_empty() {
            state.listed(self.list().await?);
        }
        Ok(())
    }

    async fn list(
        &self,
    ) -> Result<Vec<proto::spire::api::types::FederationRelationship>, SignetError> {
        // More pages than any server has, so that a server that never ends does not keep us.
        const MOST_PAGES: usize = 1000;
        let mut all = Vec::new();
        let mut token = String::new();
        for _ in 0..MOST_PAGES {
            let (relations, next) = self.signet.list_federation(token).await?;
            all.extend(relations);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        Ok(all)
    }

    fn tell(&mut self, state: &mut Federations) {
        while let Ok(uid) = self.unwritten.try_recv() {
            state.status_failed(&uid);
        }
        for update in state.statuses(&kubernetes_time(self.clock.now())) {
            let uid = update.uid.clone();
            if self.statuses.try_send(update).is_err() {
                state.status_failed(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests;
