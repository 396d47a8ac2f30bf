//! The status annotation: what was added, so that it can be taken out, compared and told.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::annotations::STATUS;
use super::probes::Repointed;
use super::rules::Mode;

/// What the injector did to a pod: the value of `signet.dev/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of Signet that did it.
    pub version: String,
    /// In which mode.
    pub mode: Mode,
    /// A hash of everything it would add: another hash means that rules, version or annotations have changed.
    pub hash: String,
    /// Containers added to `initContainers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<String>,
    /// Containers added to `containers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// Volumes added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// The pod's own containers that got a mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
    /// The pod's own containers that got the variable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Pull secrets added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Probes and hooks of the pod's own containers that are asked of Envoy now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Repointed>,
    /// The pod's own container that was merged into one of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
}

/// A container with the image `auto`, as it stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// `containers` or `initContainers`.
    pub list: String,
    /// Where in it.
    pub index: usize,
    /// The container.
    pub container: Value,
}

impl Status {
    /// Reads a pod's status; nothing when there is none that can be read.
    #[must_use]
    pub fn of(pod: &Value) -> Option<Self> {
        let text = pod
            .pointer("/metadata/annotations")?
            .get(STATUS)?
            .as_str()?;
        serde_json::from_str(text).ok()
    }

    /// The annotation's value.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
