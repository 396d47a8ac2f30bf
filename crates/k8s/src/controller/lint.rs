//! How many pods and namespaces a ClusterSPIFFEID would take: a warning in admission, where it is most.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::core::SelectorExt;
use serde_json::Value as Json;

use super::crd::ClusterSPIFFEIDSpec;
use super::desired::read_selector;
use super::state::State;

type Labels = BTreeMap<String, String>;

/// Fewer pods than this are no reason for a warning.
const FEW: usize = 10;

/// The cluster's labels as the loop last saw them; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<Seen>>);

/// Pods by namespace and labels, with how many there are: replicas have the same labels.
#[derive(Debug, Default)]
struct Seen {
    namespaces: BTreeMap<String, Labels>,
    pods: BTreeMap<(String, Labels), usize>,
    revision: usize,
}

impl Counts {
    /// Takes the labels of what `state` knows, when it is not what was last taken.
    pub(super) fn publish(&self, state: &State) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = state.revision();
        if seen.revision == revision {
            return;
        }
        let (namespaces, pods) = state.labels();
        *seen = Seen {
            namespaces,
            pods,
            revision,
        };
    }

    /// A warning when the selectors of `spec`, a ClusterSPIFFEID's, take most of a cluster's pods.
    #[must_use]
    pub fn warn(&self, spec: &Json) -> Option<String> {
        let spec: ClusterSPIFFEIDSpec = serde_json::from_value(spec.clone()).ok()?;
        let pods = read_selector(spec.pod_selector.as_ref()).ok()?;
        let namespaces = read_selector(spec.namespace_selector.as_ref()).ok()?;
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<&String> = seen
            .namespaces
            .iter()
            .filter(|(_, labels)| namespaces.matches(labels))
            .map(|(name, _)| name)
            .collect();
        let all: usize = seen.pods.values().sum();
        let matches = seen
            .pods
            .iter()
            .filter(|((namespace, labels), _)| taken.contains(&namespace) && pods.matches(labels));
        let count: usize = matches.map(|(_, count)| count).sum();
        (count >= FEW && count * 2 > all).then(|| {
            let namespaces = taken.len();
            format!(
                "the selectors take {count} of {all} pods, in {namespaces} of {} namespaces",
                seen.namespaces.len()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_takes_most_is_warned_of() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<Labels>()
        };
        let counts = Counts::default();
        *counts.0.lock().unwrap() = Seen {
            namespaces: [
                ("a".to_owned(), labels(&[("env", "prod")])),
                ("b".to_owned(), labels(&[])),
            ]
            .into(),
            pods: [
                (("a".to_owned(), labels(&[("app", "web")])), 30),
                (("b".to_owned(), labels(&[("app", "db")])), 5),
            ]
            .into(),
            revision: 1,
        };
        let warn = |more: Json| {
            let mut spec = json!({ "spiffeIDTemplate": "x" });
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            counts.warn(&spec)
        };
        assert_eq!(
            warn(json!({})).unwrap(),
            "the selectors take 35 of 35 pods, in 2 of 2 namespaces"
        );
        assert_eq!(
            warn(json!({ "namespaceSelector": { "matchLabels": { "env": "prod" } } })).unwrap(),
            "the selectors take 30 of 35 pods, in 1 of 2 namespaces"
        );
        assert_eq!(
            warn(json!({ "podSelector": { "matchLabels": { "app": "db" } } })),
            None
        );
        assert_eq!(warn(json!({ "podSelector": 5 })), None);
    }
}
