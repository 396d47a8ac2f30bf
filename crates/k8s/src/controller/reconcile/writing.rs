//! Creations, updates and deletes.

use identity::RegistrationEntry;
use proto::spire::api::types;
use tokio::time::Instant;
use tonic::Code;

use super::Reconciler;
use crate::controller::plan::Written;
use crate::signet::{Outcome, SignetError};

/// How many entries one call creates or updates.
const BATCH: usize = 50;

/// How many entries one call deletes.
const DELETE_BATCH: usize = 200;

impl Reconciler {
    /// One batch of creations and updates.
    pub(super) async fn write(&mut self) {
        let writes = self.state.ledger.writes(BATCH);
        if !writes.create.is_empty() {
            let wire = writes.create.iter().map(types::Entry::from).collect();
            let answer = self.parts.signet.create_entries(wire).await;
            self.answered("create", &writes.create, answer);
        }
        if !writes.update.is_empty() {
            let wire = writes.update.iter().map(types::Entry::from).collect();
            let answer = self.parts.signet.update_entries(wire).await;
            self.answered("update", &writes.update, answer);
        }
    }

    fn answered(
        &mut self,
        call: &str,
        entries: &[RegistrationEntry],
        answer: Result<Vec<Outcome<types::Entry>>, SignetError>,
    ) {
        let now = Instant::now();
        let outcomes = match answer {
            Ok(outcomes) => outcomes,
            Err(error) => {
                // Some may have been written: a creation that comes again finds them, the listing those that do not.
                let message = error.to_string();
                for entry in entries {
                    self.state
                        .written(entry, Written::Failed(message.clone()), now);
                }
                return self.outage(call, &message);
            }
        };
        self.backoff.reset();
        let mut failed = false;
        for (entry, outcome) in entries.iter().zip(outcomes) {
            let result = written(outcome);
            let label = match &result {
                Written::Done => "done",
                Written::Exists(_) => "exists",
                Written::Missing => "missing",
                Written::Failed(message) => {
                    tracing::warn!(call, entry = %entry.id, spiffe_id = %entry.spiffe_id, error = message, "the server refused an entry");
                    failed = true;
                    "failed"
                }
            };
            self.parts
                .metrics
                .counter("entry_writes", &[("call", call), ("result", label)])
                .increment();
            if let Some(waited) = self.state.written(entry, result, now) {
                let metrics = &self.parts.metrics;
                metrics.observe("time_to_entry_seconds", &[], waited);
            }
        }
        if failed {
            self.retry_at = Some(now + self.retries.fail());
        } else if !self.state.ledger.has_failures() {
            self.retries.reset();
        }
    }

    /// One batch of deletes, once everything else is written.
    pub(super) async fn delete(&mut self) {
        if self.state.backlog() > 0 || self.state.ledger.is_busy() || self.pause.is_some() {
            return;
        }
        let deletes = self.state.deletes(DELETE_BATCH);
        if deletes.is_empty() {
            return;
        }
        let ids = deletes.iter().map(|(id, _)| id.clone()).collect();
        let outcomes = match self.parts.signet.delete_entries(ids).await {
            Ok(outcomes) => outcomes,
            Err(error) => return self.outage("delete", &error.to_string()),
        };
        self.backoff.reset();
        for ((id, key), outcome) in deletes.iter().zip(outcomes) {
            let gone = matches!(outcome.code, Code::Ok | Code::NotFound);
            let result = if gone { "done" } else { "failed" };
            self.parts
                .metrics
                .counter("entry_writes", &[("call", "delete"), ("result", result)])
                .increment();
            if gone {
                tracing::debug!(entry = id, spiffe_id = %key.spiffe_id, "deleted");
            } else {
                tracing::warn!(
                    entry = id,
                    error = outcome.message,
                    "the server refused to delete an entry"
                );
                self.pause = Some(Instant::now() + self.backoff.fail());
            }
            self.state.ledger.deleted(id, gone);
        }
    }
}

fn written(outcome: Outcome<types::Entry>) -> Written {
    let stored = || {
        outcome
            .object
            .as_ref()
            .and_then(|entry| proto::convert::entry(entry).ok())
    };
    match outcome.code {
        Code::Ok => Written::Done,
        Code::NotFound => Written::Missing,
        Code::AlreadyExists => match stored() {
            Some(entry) => Written::Exists(Box::new(entry)),
            None => Written::Failed(outcome.message),
        },
        _ => Written::Failed(outcome.message),
    }
}
