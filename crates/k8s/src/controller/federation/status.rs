//! What the resources' statuses are to say.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::plan::{Federations, Record};
use crate::controller::state::{Conditions, Kind, StatusUpdate};

impl Federations {
    /// The statuses that are not as they should be.
    pub(super) fn statuses(&mut self, now: &str) -> Vec<StatusUpdate> {
        let mut updates = Vec::new();
        let holders: BTreeSet<String> = self
            .wanted()
            .values()
            .map(|(source, _)| source.uid.clone())
            .collect();
        for (uid, record) in &self.records {
            let (conditions, sequence) = self.conditions(record, holders.contains(uid));
            let mut status = json!({
                "conditions": conditions.render(&record.status, record.generation, now),
                "observedGeneration": record.generation,
            });
            if let Some(sequence) = sequence {
                status["bundleSequence"] = json!(sequence);
            }
            if status != record.status {
                let event = conditions.event(&record.status);
                let (name, uid) = (record.name.clone(), uid.clone());
                updates.push(StatusUpdate {
                    kind: Kind::FederatedTrustDomain,
                    name,
                    namespace: None,
                    uid,
                    status,
                    event,
                });
            }
        }
        for update in &updates {
            if let Some(record) = self.records.get_mut(&update.uid) {
                record.status = update.status.clone();
            }
        }
        updates
    }

    fn conditions(&self, record: &Record, holds: bool) -> (Conditions, Option<u64>) {
        let relation = match &record.relation {
            Ok(relation) => relation,
            Err(problems) => return (Conditions::invalid(problems), None),
        };
        let there = self.server.get(relation.trust_domain.as_str());
        let bundle = there.and_then(|there| there.trust_domain_bundle.as_ref());
        let conditions = |ready, degraded, reason, message: &str| Conditions {
            ready,
            degraded,
            reason,
            message: message.to_owned(),
        };
        let conditions = match (self.failed.get(&relation.trust_domain), there, bundle) {
            _ if !holds => conditions(
                false,
                true,
                "Masked",
                "another resource, older than this one, is of the same trust domain",
            ),
            (Some(message), _, _) => conditions(false, true, "Refused", message),
            (None, Some(there), _) if self.is_foreign(there, relation) => conditions(
                false,
                true,
                "Foreign",
                "the server has a relationship with this trust domain, made by somebody else and saying something else: remove it, or set signet.adoptFederation",
            ),
            (None, None, _) => {
                conditions(false, false, "Writing", "the relationship is being written")
            }
            (None, Some(_), None) => conditions(
                false,
                false,
                "NoBundle",
                "the server has not fetched the bundle yet",
            ),
            (None, Some(_), Some(_)) => conditions(
                true,
                false,
                "Federated",
                "the server has the relationship and a bundle",
            ),
        };
        (conditions, bundle.map(|bundle| bundle.sequence_number))
    }

    /// A status could not be written.
    pub(super) fn status_failed(&mut self, uid: &str) {
        if let Some(record) = self.records.get_mut(uid) {
            record.status = Json::Null;
        }
    }
}
