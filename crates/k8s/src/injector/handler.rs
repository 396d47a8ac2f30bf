//! From a review of a pod to its answer.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::events::{Events, Notice, owner};
use super::namespaces::Namespaces;
use crate::admission::review::{AdmissionRequest, Answer};
use crate::admission::server::{Handler, Handling, NoAnswer};
use crate::inject::{Namespace, Outcome, REFUSALS, Rules, inject_owned};
use runtime::Metrics;

/// Injects.
pub(super) struct Injector {
    rules: watch::Receiver<Arc<Rules>>,
    namespaces: Namespaces,
    events: Events,
    metrics: Metrics,
}

impl Injector {
    pub(super) fn new(
        rules: watch::Receiver<Arc<Rules>>,
        namespaces: Namespaces,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        // From the start, so that an alert on their growth sees the first.
        metrics.counter("mutated", &[]).add(0);
        for (reason, _) in REFUSALS {
            metrics.counter("skipped", &[("reason", reason)]).add(0);
        }
        Self {
            rules,
            namespaces,
            events,
            metrics,
        }
    }

    async fn answer(&self, mut request: AdmissionRequest) -> Result<Answer, NoAnswer> {
        let is_pod = request.kind.group.is_empty() && request.kind.kind == "Pod";
        if !is_pod || request.operation != "CREATE" || !request.sub_resource.is_empty() {
            self.skipped("not_a_new_pod");
            return Ok(Answer::allow());
        }
        let Some(pod) = request.object.take() else {
            return Ok(Answer::deny(
                400,
                "BadRequest",
                "the request holds no object",
            ));
        };
        let namespace = self.namespaces.get(&request.namespace).await;
        let namespace = namespace.map_err(NoAnswer)?;
        Ok(self.decide(pod, &namespace, &request))
    }

    fn decide(&self, pod: Value, namespace: &Namespace, request: &AdmissionRequest) -> Answer {
        let owner = owner(&pod, &request.namespace);
        let rules = Arc::clone(&self.rules.borrow());
        match inject_owned(pod, namespace, &rules) {
            Outcome::Patched(patched) => {
                self.metrics.counter("mutated", &[]).increment();
                Answer {
                    warnings: patched.warnings,
                    patch: patched.patch,
                    ..Answer::allow()
                }
            }
            Outcome::Unchanged(reason) => {
                self.skipped(reason.code());
                Answer::allow()
            }
            Outcome::Refused(refusal) => {
                let (code, message) = (refusal.code(), refusal.to_string());
                self.skipped(code);
                if !request.dry_run
                    && let Some(owner) = owner
                {
                    let message = message.clone();
                    self.events.tell(Notice {
                        owner,
                        code,
                        message,
                    });
                }
                let message = format!("signet: not injected: {message}");
                if rules.strict {
                    return Answer::forbidden(message);
                }
                Answer {
                    warnings: vec![message],
                    ..Answer::allow()
                }
            }
        }
    }

    fn skipped(&self, reason: &str) {
        self.metrics
            .counter("skipped", &[("reason", reason)])
            .increment();
    }
}

impl Handler for Injector {
    fn handle(&self, request: AdmissionRequest) -> Handling<'_> {
        Box::pin(self.answer(request))
    }
}

#[cfg(test)]
mod tests;
