//! What the resources make of a pod.

use std::sync::Arc;

use tokio::time::Instant;

use super::State;
use super::resources::{NO_POLICY, Outcome, RuleRecord};
use crate::controller::desired::{self, Pod};

impl State {
    /// What all resources make of a pod, now.
    pub(super) fn evaluate(&mut self, uid: &str, now: Instant) {
        let pod = self.pods.get(uid).filter(|pod| !pod.finished).cloned();
        let concerns = |record: &RuleRecord| {
            let about = pod
                .as_ref()
                .is_some_and(|pod| record.is_about(&pod.namespace));
            about || record.outcomes.contains_key(uid)
        };
        let mut order: Vec<(bool, String)> = self
            .rules
            .iter()
            .filter(|(_, record)| concerns(record))
            .map(|(uid, record)| (record.is_fallback(), uid.clone()))
            .collect();
        order.sort();
        let mut covered = false;
        for (fallback, rule) in order {
            let outcome = pod
                .as_ref()
                .and_then(|pod| self.outcome(&rule, pod, covered && fallback));
            let doubt = pod
                .as_ref()
                .is_some_and(|pod| self.is_broken_for(&rule, pod));
            covered |= !fallback
                && (doubt || matches!(outcome, Some(Outcome::Wanted(_) | Outcome::Failed(_))));
            self.settle(&rule, uid, outcome, now);
        }
        self.ledger.touch_pod(uid);
    }

    fn is_broken_for(&self, rule: &str, pod: &Pod) -> bool {
        let namespace = self.namespaces.get(&pod.namespace);
        let record = self.rules.get(rule).filter(|record| {
            record.head.namespace.is_none() || self.policy(record, &pod.namespace).is_some()
        });
        let broken = record.and_then(|record| record.rule.as_ref().err());
        broken.is_some_and(|broken| {
            namespace.is_none_or(|namespace| {
                !namespace.ignored && broken.may_take(&namespace.labels, &pod.labels)
            })
        })
    }

    fn outcome(&self, rule: &str, pod: &Pod, covered: bool) -> Option<Outcome> {
        let record = self.rules.get(rule)?;
        let rule = record.rule.as_ref().ok()?;
        let namespace = self.namespaces.get(&pod.namespace)?;
        let selected = !namespace.ignored
            && record.is_about(&pod.namespace)
            && rule.takes_pod(&pod.labels)
            && rule.takes_namespace(&namespace.labels);
        if !selected {
            return None;
        }
        if covered {
            return Some(Outcome::Covered);
        }
        let policy = self.policy(record, &pod.namespace);
        if record.head.namespace.is_some() && policy.is_none() {
            return Some(Outcome::Refused(NO_POLICY.to_owned()));
        }
        let Some(node) = &pod.node else {
            return Some(Outcome::Pending);
        };
        let Some(node) = self.nodes.get(node) else {
            return Some(Outcome::Failed(format!("node {node:?} is not known yet")));
        };
        let services = if rule.wants_services() {
            self.services.of(&pod.uid)
        } else {
            Default::default()
        };
        let rendered = desired::render(
            rule,
            &self.config.scope,
            &self.config.parent_id,
            pod,
            node,
            &services,
        );
        let wanted = match rendered {
            Ok(wanted) => wanted,
            Err(error) => return Some(Outcome::Failed(error.to_string())),
        };
        let admitted = match policy.filter(|_| record.head.namespace.is_some()) {
            None => Ok(wanted),
            Some(policy) => {
                let names = desired::service_names(&services, &pod.namespace, &self.config.scope);
                policy.admit(wanted, pod, &names)
            }
        };
        Some(match admitted {
            Ok(wanted) => Outcome::Wanted(Arc::new(wanted)),
            Err(message) => Outcome::Refused(message),
        })
    }

    fn settle(&mut self, rule: &str, pod: &str, outcome: Option<Outcome>, now: Instant) {
        let Some(record) = self.rules.get_mut(rule) else {
            return;
        };
        let before = match &outcome {
            Some(outcome) => record.outcomes.insert(pod.to_owned(), outcome.clone()),
            None => record.outcomes.remove(pod),
        };
        if before == outcome {
            return;
        }
        self.touched.insert(rule.to_owned());
        let wanted = |outcome: Option<Outcome>| match outcome {
            Some(Outcome::Wanted(wanted)) => Some(wanted),
            _ => None,
        };
        let (before, after) = (wanted(before), wanted(outcome));
        let same_key =
            before.as_ref().map(|wanted| &wanted.key) == after.as_ref().map(|wanted| &wanted.key);
        if let Some(after) = after {
            self.ledger.want(record.head.source.clone(), after, now);
        }
        if let Some(before) = before.filter(|_| !same_key) {
            self.ledger.unwant(&record.head.source, &before.key, false);
        }
    }
}
