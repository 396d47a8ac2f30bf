//! The injector's core: a pod and the rules in, the changed pod and its JSON Patch out, or a reason.
//!
//! Nothing here does I/O, reads a clock or logs: the webhook, the offline commands and the tests call the same functions.
//! Pods are [`serde_json::Value`]s, so that fields this version does not know survive.
//!
//! * [`inject`] is idempotent. What it added stands in the annotation `signet.dev/status`; on a pod that has one, everything
//!   is compared, and only when something is missing or outdated taken out and added anew.
//! * [`uninject`] takes out exactly what the status names.
//! * [`check`] says how a pod differs from what it would get now.
//!
//! Kubernetes makes no difference between a list that is absent, null or empty, and neither does this module.

mod additions;
pub mod annotations;
mod apply;
mod ask;
mod bootstrap;
mod captured;
mod drift;
mod edit;
mod probes;
pub mod pss;
mod quantity;
mod reason;
mod rules;
mod sidecar;
mod status;
pub mod upstream;

use std::collections::BTreeMap;

use json_patch::Patch;
use serde_json::Value;

pub use self::drift::{Drift, check};
pub use self::probes::{Kind as ProbeKind, Repointed};
pub use self::reason::{REFUSALS, Refusal, Unchanged};
pub use self::rules::{
    EnvoyRules, FilesRules, Images, Mode, NativeSidecars, PullPolicy, Resources, Rules, SocketKind,
    SocketRules, Versions,
};
pub use self::status::{Overlay, Status};

use self::additions::{Additions, sidecar_name};
use self::edit::Edit;

pub(crate) use self::additions::socket_hash;

/// Namespaces that are never touched.
pub const EXCLUDED: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// The name of the Envoy container, and of the volume that holds its admin socket.
pub const ENVOY: &str = "signet-envoy";
/// The name of the init container that redirects connections to Envoy.
pub const CAPTURE: &str = "signet-capture";
/// The name of the helper of mode `files`, and of the volume it writes.
pub const FILES: &str = "signet-files";
/// The name of the volume with the agent's socket.
pub const SOCKET_VOLUME: &str = "spiffe-workload-api";
/// Where it is mounted.
pub const SOCKET_DIR: &str = "/spiffe-workload-api";
/// The variable that names the socket to SPIFFE libraries.
pub const SOCKET_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// Its value.
pub const SOCKET_URI: &str = "unix:///spiffe-workload-api/spire-agent.sock";
/// Where the helper writes its files.
pub const FILES_DIR: &str = "/run/signet/files";
const SOCKET_FILE: &str = "/spiffe-workload-api/spire-agent.sock";
const ADMIN_DIR: &str = "/run/signet/envoy";
const ADMIN_SOCKET: &str = "/run/signet/envoy/admin.sock";

/// The pod's namespace, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Namespace {
    /// A namespace without labels.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }
}

/// What came of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It did not ask, or has everything.
    Unchanged(Unchanged),
    /// It asked, and cannot get it.
    Refused(Refusal),
    /// It gets it.
    Patched(Box<Patched>),
}

impl Outcome {
    /// For counters: `injected`, or the reason's code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unchanged(reason) => reason.code(),
            Self::Refused(refusal) => refusal.code(),
            Self::Patched(_) => "injected",
        }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A pod with everything added.
#[derive(Clone, Debug, PartialEq)]
pub struct Patched {
    /// The pod.
    pub pod: Value,
    /// What makes it of the pod given.
    pub patch: Patch,
    /// What was added.
    pub status: Status,
    /// What the pod's author should know.
    pub warnings: Vec<String>,
}

/// Adds to a pod what it or its namespace asks for.
#[must_use]
pub fn inject(pod: &Value, namespace: &Namespace, rules: &Rules) -> Outcome {
    inject_owned(pod.clone(), namespace, rules)
}

/// As [`inject`], into the pod itself: most of the time of a review would go into a copy.
#[must_use]
pub fn inject_owned(pod: Value, namespace: &Namespace, rules: &Rules) -> Outcome {
    match try_inject(pod, namespace, rules) {
        Ok(outcome) => outcome,
        Err(refusal) => Outcome::Refused(refusal),
    }
}

fn try_inject(pod: Value, namespace: &Namespace, rules: &Rules) -> Result<Outcome, Refusal> {
    let mode = match ask::mode(&pod, namespace, rules) {
        Ok(mode) => mode,
        Err(outcome) => return Ok(outcome),
    };
    check_shape(&pod)?;
    let Some(status) = Status::of(&pod) else {
        return fresh(pod, mode, namespace, rules);
    };
    if drift::differences(&pod, &status, mode, namespace, rules)?.is_empty() {
        return Ok(Outcome::Unchanged(Unchanged::AlreadyInjected));
    }
    let base = apply::take_out(&pod, &status);
    match fresh(base, mode, namespace, rules)? {
        Outcome::Patched(mut patched) => {
            patched.patch = json_patch::diff(&pod, &patched.pod);
            Ok(Outcome::Patched(patched))
        }
        other => Ok(other),
    }
}

/// Injects into a pod that has nothing of ours.
fn fresh(pod: Value, mode: Mode, namespace: &Namespace, rules: &Rules) -> Result<Outcome, Refusal> {
    let mut edit = Edit::new(pod);
    let overlay = match sidecar_name(mode) {
        Some(name) => apply::take_overlay(&mut edit, name)?,
        None => None,
    };
    let additions = Additions::plan(&edit.pod, mode, namespace, rules)?;
    let (status, warnings) = apply::apply(&mut edit, additions, overlay)?;
    let (pod, patch) = edit.finish();
    Ok(Outcome::Patched(Box::new(Patched {
        pod,
        patch,
        status,
        warnings,
    })))
}

/// Takes out what [`inject`] added; nothing when the pod has no status of ours.
#[must_use]
pub fn uninject(pod: &Value) -> Option<Value> {
    Status::of(pod).map(|status| apply::take_out(pod, &status))
}

const fn mount_path(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Socket => Some(SOCKET_DIR),
        Mode::Files => Some(FILES_DIR),
        Mode::Envoy => None,
    }
}

/// The items of a list of the pod's spec.
fn list<'a>(pod: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    let list = pod.get("spec").and_then(|spec| spec.get(key));
    list.and_then(Value::as_array).into_iter().flatten()
}

/// `containers` or `initContainers`.
fn containers<'a>(pod: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    list(pod, key)
}

fn name_of(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Refuses what is no pod before anything is looked up in it.
fn check_shape(pod: &Value) -> Result<(), Refusal> {
    let malformed = |what: &str| Err(Refusal::MalformedPod(what.to_owned()));
    if !pod.get("metadata").is_some_and(Value::is_object) {
        return malformed("metadata must be an object");
    }
    let Some(spec) = pod.get("spec").filter(|spec| spec.is_object()) else {
        return malformed("spec must be an object");
    };
    for key in [
        "containers",
        "initContainers",
        "volumes",
        "imagePullSecrets",
    ] {
        match spec.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) if items.iter().all(Value::is_object) => {}
            Some(_) => return malformed(&format!("spec.{key} must be a list of objects")),
        }
    }
    for key in ["containers", "initContainers"] {
        if containers(pod, key).any(|container| name_of(container).is_empty()) {
            return malformed(&format!("every one of spec.{key} must have a name"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
