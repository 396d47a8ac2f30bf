//! Requests and limits.

use serde::{Deserialize, Serialize};

use crate::inject::quantity::Quantity;

/// A container's requests and limits, as Kubernetes quantities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Resources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage_request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage_limit: Option<String>,
}

impl Resources {
    /// Resource, request and limit.
    pub(crate) fn pairs(&self) -> [(&'static str, Option<&String>, Option<&String>); 3] {
        [
            ("cpu", self.cpu_request.as_ref(), self.cpu_limit.as_ref()),
            (
                "memory",
                self.memory_request.as_ref(),
                self.memory_limit.as_ref(),
            ),
            (
                "ephemeral-storage",
                self.ephemeral_storage_request.as_ref(),
                self.ephemeral_storage_limit.as_ref(),
            ),
        ]
    }

    pub(crate) fn validate(&self, key: &str, problems: &mut Vec<String>) {
        for (resource, request, limit) in self.pairs() {
            let mut parsed = Vec::new();
            for text in [request, limit].into_iter().flatten() {
                match Quantity::parse(text) {
                    Ok(quantity) => parsed.push(quantity),
                    Err(why) => problems.push(format!("{key}: {resource} {text:?}: {why}")),
                }
            }
            if let [request, limit] = parsed[..]
                && limit < request
            {
                problems.push(format!(
                    "{key}: the limit of {resource} is below its request"
                ));
            }
        }
    }
}
