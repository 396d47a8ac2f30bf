//! What the resources' statuses are to say.

use std::collections::HashMap;

use runtime::config::Problem;
use serde_json::{Value as Json, json};

use super::resources::{Head, NO_POLICY, Outcome, RuleRecord, StaticRecord};
use super::{Kind, State};
use crate::controller::crd::{ClusterSPIFFEIDStats, WorkloadSPIFFEIDStats};

/// How many mistakes a condition's message names.
const MOST_NAMED: usize = 5;

/// A status that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusUpdate {
    /// Of what.
    pub kind: Kind,
    /// The resource's name.
    pub name: String,
    /// Its namespace, when its kind has one.
    pub namespace: Option<String>,
    /// Its UID.
    pub uid: String,
    /// The whole status.
    pub status: Json,
    /// What is new about it and worth an Event: whether it is a warning, reason and message.
    pub event: Option<(bool, String, String)>,
}

/// How many entries of a resource came to which end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What became of entries, and of how many.
    pub counts: [(&'static str, i64); 4],
}

impl Figure {
    /// By a status; of a null one, which a resource that is gone has, all are 0. None for kinds of tenants, whose names
    /// need not end.
    pub(super) fn of(kind: Kind, name: &str, status: &Json) -> Option<Self> {
        let stat = |key: &str| status["stats"][key].as_i64().unwrap_or_default();
        let flag = |key: &str, value: bool| i64::from(status[key] == value);
        let (kind, [set, failed, masked, unrendered]) = match kind {
            Kind::SpiffeId => {
                let failed = stat("entryFailures");
                let (masked, unrendered) = (stat("entriesMasked"), stat("podEntryRenderFailures"));
                let set = stat("entriesToSet") - failed;
                ("ClusterSPIFFEID", [set, failed, masked, unrendered])
            }
            Kind::StaticEntry => {
                let (set, masked) = (flag("set", true), flag("masked", true));
                let unrendered = flag("rendered", false);
                let failed = i64::from(status["conditions"][0]["reason"] == "Refused");
                ("ClusterStaticEntry", [set, failed, masked, unrendered])
            }
            _ => return None,
        };
        Some(Self {
            kind,
            name: name.to_owned(),
            counts: [
                ("set", set),
                ("failed", failed),
                ("masked", masked),
                ("unrendered", unrendered),
            ],
        })
    }
}

/// `Ready` and `Degraded` of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Everything is as declared.
    pub ready: bool,
    /// Something of it fails.
    pub degraded: bool,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Conditions {
    /// As Kubernetes writes them; times of what did not change are those of `before`, the status so far.
    #[must_use]
    pub fn render(&self, before: &Json, generation: i64, now: &str) -> Json {
        let condition = |kind: &str, status: bool| {
            let status = if status { "True" } else { "False" };
            let known = before
                .get("conditions")
                .and_then(Json::as_array)
                .into_iter()
                .flatten();
            let mut same = known.filter(|known| known["type"] == kind && known["status"] == status);
            let since = same
                .find_map(|known| known["lastTransitionTime"].as_str())
                .unwrap_or(now);
            json!({
                "type": kind, "status": status, "reason": self.reason, "message": self.message,
                "observedGeneration": generation, "lastTransitionTime": since,
            })
        };
        json!([
            condition("Ready", self.ready),
            condition("Degraded", self.degraded)
        ])
    }

    /// What is worth an Event: that it became degraded, or ready.
    #[must_use]
    pub fn event(&self, before: &Json) -> Option<(bool, String, String)> {
        let was = |kind: &str| {
            let known = before
                .get("conditions")
                .and_then(Json::as_array)
                .into_iter()
                .flatten();
            known
                .filter(|known| known["type"] == kind)
                .any(|known| known["status"] == "True")
        };
        let news = (self.degraded && !was("Degraded")) || (self.ready && !was("Ready"));
        news.then(|| (self.degraded, self.reason.to_owned(), self.message.clone()))
    }

    /// Of a resource that cannot be read.
    #[must_use]
    pub fn invalid(problems: &[Problem]) -> Self {
        let all: Vec<String> = problems
            .iter()
            .take(MOST_NAMED)
            .map(ToString::to_string)
            .collect();
        Self {
            ready: false,
            degraded: true,
            reason: "Invalid",
            message: all.join("; "),
        }
    }
}

impl State {
    /// The statuses that changed since the last call. `now` as Kubernetes writes times.
    pub fn statuses(&mut self, now: &str) -> Vec<StatusUpdate> {
        let touched = std::mem::take(&mut self.touched);
        let mut updates = Vec::new();
        for uid in touched {
            let update = if let Some(record) = self.rules.get(&uid) {
                Some(self.rule_status(&uid, record, now))
            } else {
                self.statics
                    .get(&uid)
                    .map(|record| self.static_status(&uid, record, now))
            };
            let Some(update) = update else { continue };
            let figure = Figure::of(update.kind, &update.name, &update.status);
            self.figures.extend(figure);
            let head = self.rules.get_mut(&uid).map(|record| &mut record.head);
            let Some(head) =
                head.or_else(|| self.statics.get_mut(&uid).map(|record| &mut record.head))
            else {
                continue;
            };
            if head.status != update.status {
                head.status = update.status.clone();
                updates.push(update);
            }
        }
        updates
    }

    /// What changed of the resources' figures since the last call.
    pub fn figures(&mut self) -> Vec<Figure> {
        std::mem::take(&mut self.figures)
    }

    /// A status could not be written: it is tried again.
    pub fn status_failed(&mut self, uid: &str) {
        let head = self.rules.get_mut(uid).map(|record| &mut record.head);
        if let Some(head) =
            head.or_else(|| self.statics.get_mut(uid).map(|record| &mut record.head))
        {
            head.status = Json::Null;
            self.touched.insert(uid.to_owned());
        }
    }

    fn rule_status(&self, uid: &str, record: &RuleRecord, now: &str) -> StatusUpdate {
        let (stats, refused, mut conditions) = self.rule_stats(record);
        let (mut kind, mut stats) = (Kind::SpiffeId, json!(stats));
        if let Some(namespace) = &record.head.namespace {
            kind = Kind::WorkloadSpiffeId;
            stats = of_tenant(&stats, refused);
            if self.policy(record, namespace).is_none() {
                conditions = Conditions {
                    ready: false,
                    degraded: true,
                    reason: "NotAllowed",
                    message: NO_POLICY.to_owned(),
                };
            }
        }
        let status = json!({
            "stats": stats,
            "conditions": conditions.render(&record.head.status, record.head.generation, now),
            "observedGeneration": record.head.generation,
        });
        update(kind, uid, &record.head, status, &conditions)
    }

    /// The figures, how many pods are refused what they ask for, and the conditions.
    fn rule_stats(&self, record: &RuleRecord) -> (ClusterSPIFFEIDStats, i64, Conditions) {
        let mut stats = ClusterSPIFFEIDStats::default();
        let rule = match &record.rule {
            Ok(rule) => rule,
            Err(broken) => return (stats, 0, Conditions::invalid(&broken.problems)),
        };
        for namespace in self
            .namespaces
            .values()
            .filter(|namespace| rule.takes_namespace(&namespace.labels))
        {
            stats.namespaces_selected += 1;
            stats.namespaces_ignored += i64::from(namespace.ignored);
        }
        let mut failures: HashMap<&str, i64> = HashMap::new();
        let (mut pending, mut unset, mut refused) = (0_i64, 0_i64, 0_i64);
        for outcome in record.outcomes.values() {
            stats.pods_selected += 1;
            match outcome {
                Outcome::Pending => pending += 1,
                Outcome::Covered => {}
                Outcome::Refused(message) => {
                    refused += 1;
                    *failures.entry(message).or_default() += 1;
                }
                Outcome::Failed(message) => {
                    stats.pod_entry_render_failures += 1;
                    *failures.entry(message).or_default() += 1;
                }
                Outcome::Wanted(wanted) if !self.ledger.holds(&record.head.source, &wanted.key) => {
                    stats.entries_masked += 1
                }
                Outcome::Wanted(wanted) => {
                    stats.entries_to_set += 1;
                    if let Some(message) = self.ledger.failure(&wanted.key) {
                        stats.entry_failures += 1;
                        *failures.entry(message).or_default() += 1;
                    } else if !self.ledger.is_set(&wanted.key) {
                        unset += 1;
                    }
                }
            }
        }
        let conditions = conditions(&stats, &failures, pending, unset, refused);
        (stats, refused, conditions)
    }

    fn static_status(&self, uid: &str, record: &StaticRecord, now: &str) -> StatusUpdate {
        let (masked, set, conditions) = match &record.entry {
            Err(problems) => (false, false, Conditions::invalid(problems)),
            Ok(wanted) => {
                let masked = !self.ledger.holds(&record.head.source, &wanted.key);
                let set = self.ledger.is_set(&wanted.key);
                let failure = self.ledger.failure(&wanted.key);
                let (reason, message) = match failure {
                    Some(message) => ("Refused", message.to_owned()),
                    None if masked => (
                        "Masked",
                        "another resource, older than this one, declares the same entry".to_owned(),
                    ),
                    None if set => ("Registered", "the server has the entry".to_owned()),
                    None => ("Writing", "the entry is being written".to_owned()),
                };
                (
                    masked,
                    set && !masked,
                    Conditions {
                        ready: set,
                        degraded: failure.is_some(),
                        reason,
                        message,
                    },
                )
            }
        };
        let status = json!({
            "rendered": record.entry.is_ok(), "masked": masked, "set": set,
            "conditions": conditions.render(&record.head.status, record.head.generation, now),
            "observedGeneration": record.head.generation,
        });
        update(Kind::StaticEntry, uid, &record.head, status, &conditions)
    }
}

/// A tenant's figures: its own namespace's alone.
fn of_tenant(stats: &Json, refused: i64) -> Json {
    let mut figures: WorkloadSPIFFEIDStats =
        serde_json::from_value(stats.clone()).unwrap_or_default();
    figures.pods_refused = refused;
    json!(figures)
}

fn conditions(
    stats: &ClusterSPIFFEIDStats,
    failures: &HashMap<&str, i64>,
    pending: i64,
    unset: i64,
    refused: i64,
) -> Conditions {
    let failed = stats.pod_entry_render_failures + stats.entry_failures + refused;
    let reason = match (stats.pod_entry_render_failures, stats.entry_failures) {
        (1.., _) => "RenderFailed",
        (_, 1..) => "Refused",
        _ if refused > 0 => "NotAllowed",
        _ if unset > 0 => "Writing",
        _ => "Registered",
    };
    let mut message = format!(
        "{} pods selected, {} entries",
        stats.pods_selected, stats.entries_to_set
    );
    if unset > 0 {
        message += &format!(", {unset} being written");
    }
    if pending > 0 {
        message += &format!(", {pending} pods without a node yet");
    }
    let mut named: Vec<_> = failures.iter().collect();
    named.sort_by_key(|(message, count)| (-**count, **message));
    for (failure, count) in named.into_iter().take(MOST_NAMED) {
        message += &format!("; {count} × {failure}");
    }
    Conditions {
        ready: failed == 0 && unset == 0,
        degraded: failed > 0,
        reason,
        message,
    }
}

fn update(
    kind: Kind,
    uid: &str,
    head: &Head,
    status: Json,
    conditions: &Conditions,
) -> StatusUpdate {
    StatusUpdate {
        kind,
        name: head.name.clone(),
        namespace: head.namespace.clone(),
        uid: uid.to_owned(),
        status,
        event: conditions.event(&head.status),
    }
}
