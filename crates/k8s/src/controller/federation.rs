//! ClusterFederatedTrustDomains become the server's federation relationships.
//!
//! Only what the controller made is ever changed or deleted, and a record of that outlives it: what was removed from the
//! cluster while no controller ran goes when one does.

mod plan;
mod record;
mod status;

use std::collections::BTreeSet;
use std::time::Duration;

use identity::TrustDomain;
use proto::spire::api::types::FederationRelationship;
use runtime::{BoxError, Clock, Metrics, Shutdown};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::Code;

use super::config::Config;
use super::dry_run::{DryRun, Part};
use super::reconcile::kubernetes_time;
use super::state::{Event, StatusUpdate};
use crate::signet::{Signet, SignetError};

use plan::{Federations, Writes};
pub(super) use record::Record;
use record::RecordError;

/// Between an event and the work, so that several events are one piece of work.
const SETTLE: Duration = Duration::from_millis(50);

/// Why a pass did not come to its end.
#[derive(Debug, Error)]
enum PassError {
    #[error(transparent)]
    Server(#[from] SignetError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// The loop over foreign trust domains.
pub(super) struct Federator {
    pub(super) signet: Signet,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) leads: Option<watch::Receiver<bool>>,
    pub(super) statuses: mpsc::Sender<StatusUpdate>,
    pub(super) unwritten: mpsc::UnboundedReceiver<String>,
    pub(super) record: Record,
    /// Takes what would be written; then nothing is.
    pub(super) dry_run: Option<DryRun>,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    /// Between two looks at the server.
    pub(super) resync: Duration,
}

impl Federator {
    pub(super) async fn run(mut self, config: &Config, shutdown: Shutdown) -> Result<(), BoxError> {
        let adopt = config.adopt_federation;
        let mut state = Federations::new(config.scope.clone(), config.class.clone(), adopt);
        let mut recorded = None;
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
                // Another one may write to it meanwhile.
                recorded = None;
                continue;
            }
            if let Err(error) = self.reconcile(&mut state, &mut recorded).await {
                self.metrics
                    .counter("server_errors", &[("call", "federation")])
                    .increment();
                tracing::warn!(%error, "cannot reconcile foreign trust domains");
            }
            if self.dry_run.is_none() {
                self.tell(&mut state);
            }
        }
    }

    /// `recorded` is what the record says; none when it was not read since this process leads.
    async fn reconcile(
        &self,
        state: &mut Federations,
        recorded: &mut Option<BTreeSet<TrustDomain>>,
    ) -> Result<(), PassError> {
        if recorded.is_none() {
            let owned = self.record.load().await?;
            state.restore(owned.clone());
            *recorded = Some(owned);
        }
        state.listed(self.list().await?);
        if let Some(dry_run) = &self.dry_run {
            if state.is_synced() {
                dry_run.found(Part::Federation, state.preview());
            }
            return Ok(());
        }
        let writes = state.plan();
        state.intend(&writes);
        self.save(state, recorded).await?;
        let any = writes != Writes::default();
        // Whatever becomes of the writes, the record follows.
        let written = self.write(state, writes).await;
        self.save(state, recorded).await?;
        written?;
        if any {
            state.listed(self.list().await?);
        }
        Ok(())
    }

    async fn save(
        &self,
        state: &Federations,
        recorded: &mut Option<BTreeSet<TrustDomain>>,
    ) -> Result<(), RecordError> {
        if recorded.as_ref() != Some(state.owned()) {
            self.record.save(state.owned()).await?;
            *recorded = Some(state.owned().clone());
        }
        Ok(())
    }

    async fn write(&self, state: &mut Federations, writes: Writes) -> Result<(), PassError> {
        let created = self.signet.create_federation(writes.create.clone()).await?;
        for (relation, outcome) in writes.create.iter().zip(created) {
            let failure = (!outcome.is_ok()).then_some(outcome.message);
            state.created(&relation.trust_domain, refused(relation, failure));
        }
        let updated = self.signet.update_federation(writes.update.clone()).await?;
        for (relation, outcome) in writes.update.iter().zip(updated) {
            let failure = (!outcome.is_ok()).then_some(outcome.message);
            state.written(&relation.trust_domain, refused(relation, failure));
        }
        let deleted = self.signet.delete_federation(writes.delete.clone()).await?;
        for (trust_domain, outcome) in writes.delete.iter().zip(&deleted) {
            tracing::info!(trust_domain, code = ?outcome.code, "federation relationship deleted");
            if matches!(outcome.code, Code::Ok | Code::NotFound) {
                state.deleted(trust_domain);
            }
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<FederationRelationship>, SignetError> {
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

fn refused(relation: &FederationRelationship, failure: Option<String>) -> Option<String> {
    if let Some(error) = &failure {
        let trust_domain = &relation.trust_domain;
        tracing::warn!(
            trust_domain,
            error,
            "the server refused a federation relationship"
        );
    }
    failure
}

#[cfg(test)]
mod tests;
