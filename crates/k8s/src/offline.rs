//! Injection into manifests: the same function as the webhook's, on streams of YAML or JSON documents.
//!
//! Documents that are not changed stay as they are, byte for byte; changed ones are written anew, under the comment lines
//! they began with.

mod documents;
mod pod_template;
mod workload;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::inject::annotations::INJECT;
use crate::inject::{self, Drift, Namespace, Outcome, Refusal, Rules, Unchanged};

use self::workload::Places;

pub use self::documents::{Document, split};
pub use self::pod_template::{PodTemplate, PodTemplateError};

/// Manifests that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// Not YAML.
    #[error("document {number} (line {line}) is not YAML: {problem}")]
    Parse {
        /// Counted from 1.
        number: usize,
        /// Where the document begins.
        line: usize,
        /// The parser's words.
        problem: String,
    },
    /// A value YAML cannot hold.
    #[error("cannot write YAML: {0}")]
    Write(String),
}

/// What is to be done to every pod and pod template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Add what it asks for.
    Inject,
    /// Take out what was added.
    Uninject,
    /// Only compare.
    Check,
}

/// What came of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Injected, in that mode.
    Injected(inject::Mode),
    /// Taken out.
    Uninjected,
    /// Left as it is.
    Unchanged(Unchanged),
    /// Nothing of ours was in it.
    NotInjected,
    /// It asked and cannot get it; left as it is.
    Refused(Refusal),
    /// How it differs from what it would get.
    Compared(Drift),
}

/// One object of the stream that is or makes pods, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Such as `Deployment shop/web`.
    pub object: String,
    /// What came of it.
    pub verdict: Verdict,
    /// What its author should know.
    pub warnings: Vec<String>,
}

impl Report {
    /// Whether somebody has to do something.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        match &self.verdict {
            Verdict::Refused(_) => true,
            Verdict::Compared(drift) => !matches!(drift, Drift::None),
            _ => false,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        match &self.verdict {
            Verdict::Injected(mode) => write!(f, "injected ({})", mode.as_str())?,
            Verdict::Uninjected => f.write_str("taken out")?,
            Verdict::Unchanged(reason) => write!(f, "unchanged: {reason}")?,
            Verdict::NotInjected => f.write_str("unchanged: nothing was injected")?,
            Verdict::Refused(refusal) => write!(f, "refused ({}): {refusal}", refusal.code())?,
            Verdict::Compared(drift) => write!(f, "{drift}")?,
        }
        self.warnings
            .iter()
            .try_for_each(|warning| write!(f, "\n  warning: {warning}"))
    }
}

/// Reads one document, as `kubectl` would: `0644` is octal, `on` and `yes` are booleans.
///
/// # Errors
/// When it is not YAML.
pub fn parse(text: &str) -> Result<Value, OfflineError> {
    parse_at(text, 1, 1)
}

fn parse_at(text: &str, number: usize, line: usize) -> Result<Value, OfflineError> {
    // As large as the text may be, such as a cluster's pods in one List; what aliases make of it has bounds of its own.
    let nodes = text.len().max(250_000);
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! {
            max_nodes: nodes,
            max_events: nodes.saturating_mul(2),
            max_total_scalar_bytes: text.len().max(64 << 20),
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 250_000 },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| OfflineError::Parse {
        number,
        line,
        problem: error.to_string(),
    })
}

/// Writes documents, each after a line `---`.
///
/// # Errors
/// When a value cannot be written.
pub fn to_yaml(objects: &[Value]) -> Result<String, OfflineError> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&one_to_yaml(object)?);
    }
    Ok(text)
}

fn one_to_yaml(object: &Value) -> Result<String, OfflineError> {
    let mut text =
        serde_saphyr::to_string(object).map_err(|error| OfflineError::Write(error.to_string()))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Does `action` to every pod and pod template of a stream. Objects that name no namespace are in `namespace`; labels and
/// annotations of namespaces are taken from the stream's Namespace objects. Custom resources have pods where `templates` say.
///
/// # Errors
/// When a document is not YAML.
pub fn run(
    text: &str,
    action: Action,
    namespace: &str,
    rules: &Rules,
    templates: &[PodTemplate],
) -> Result<(String, Vec<Report>), OfflineError> {
    let mut parsed = Vec::new();
    let mut namespaces = BTreeMap::new();
    for (index, document) in split(text).into_iter().enumerate() {
        let value = if document.is_blank() {
            Value::Null
        } else {
            parse_at(document.body(), index + 1, document.line)?
        };
        workload::namespaces(&value, &mut namespaces);
        parsed.push((document, value));
    }
    let run = Run {
        action,
        namespace,
        namespaces,
        rules,
        templates,
    };
    let (mut written, mut reports) = (String::with_capacity(text.len()), Vec::new());
    for (document, mut value) in parsed {
        if run.object(&mut value, &mut reports) {
            documents::write(&document, &value, &mut written)?;
        } else {
            written.push_str(document.text);
        }
    }
    Ok((written, reports))
}

struct Run<'a> {
    action: Action,
    namespace: &'a str,
    namespaces: BTreeMap<String, Namespace>,
    rules: &'a Rules,
    templates: &'a [PodTemplate],
}

impl Run<'_> {
    /// Whether the object, or one in it, was changed.
    fn object(&self, object: &mut Value, reports: &mut Vec<Report>) -> bool {
        if workload::is_list(object) {
            let items = object.get_mut("items").and_then(Value::as_array_mut);
            let mut changed = false;
            for item in items.into_iter().flatten() {
                changed |= self.object(item, reports);
            }
            return changed;
        }
        let places = match workload::places(object, self.templates) {
            None => {
                reports.extend(self.unknown(object));
                return false;
            }
            Some(Places::Known(place)) => return self.place(object, place, None, reports),
            Some(Places::Told(places)) => places,
        };
        if places.is_empty() {
            let mut report = self.report(object, None);
            report
                .warnings
                .push("the path of --pod-template leads to no pod template in it".to_owned());
            reports.push(report);
        }
        let mut changed = false;
        for place in &places {
            // Several in one object are told apart.
            let shown = (places.len() > 1).then_some(place.as_str());
            changed |= self.place(object, place, shown, reports);
        }
        changed
    }

    /// A kind that nobody knows, and the switch in it: left alone, which its author would not have thought.
    fn unknown(&self, object: &Value) -> Option<Report> {
        let asks = self.action == Action::Inject && workload::asks_somewhere(object);
        asks.then(|| {
            let mut report = self.report(object, None);
            report.warnings.push(format!(
                "{INJECT} stands in it, and where it has its pods is not known: give --pod-template '<resource>.<group>=<path>'"
            ));
            report
        })
    }

    fn namespace_of<'a>(&'a self, object: &'a Value) -> &'a str {
        workload::namespace_of(object).unwrap_or(self.namespace)
    }

    fn report(&self, object: &Value, shown: Option<&str>) -> Report {
        let mut told = workload::told(object, self.namespace_of(object));
        if let Some(place) = shown {
            told.push_str(&format!(" at {}", workload::dotted(place)));
        }
        Report {
            object: told,
            verdict: Verdict::NotInjected,
            warnings: Vec::new(),
        }
    }

    /// The pod or pod template at `place`: whether it was changed.
    fn place(
        &self,
        object: &mut Value,
        place: &str,
        shown: Option<&str>,
        reports: &mut Vec<Report>,
    ) -> bool {
        let mut report = self.report(object, shown);
        report.warnings = workload::misplaced(object, place);
        let name = self.namespace_of(object);
        let namespace = self.namespaces.get(name).cloned();
        let namespace = namespace.unwrap_or_else(|| Namespace::named(name));
        let pod = workload::pod(object, place);
        let changed = self.pod(&pod, &namespace, &mut report);
        reports.push(report);
        let is_changed = changed.is_some();
        if let Some(pod) = changed {
            workload::put(object, place, pod);
        }
        is_changed
    }

    fn pod(&self, pod: &Value, namespace: &Namespace, report: &mut Report) -> Option<Value> {
        match self.action {
            Action::Inject => match inject::inject(pod, namespace, self.rules) {
                Outcome::Unchanged(reason) => report.verdict = Verdict::Unchanged(reason),
                Outcome::Refused(refusal) => report.verdict = Verdict::Refused(refusal),
                Outcome::Patched(patched) => {
                    report.verdict = Verdict::Injected(patched.status.mode);
                    report.warnings.extend(patched.warnings);
                    return Some(patched.pod);
                }
            },
            Action::Uninject => {
                let pod = inject::uninject(pod)?;
                report.verdict = Verdict::Uninjected;
                return Some(pod);
            }
            Action::Check => {
                report.verdict = Verdict::Compared(inject::check(pod, namespace, self.rules));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
