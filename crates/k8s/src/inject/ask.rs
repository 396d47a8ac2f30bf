//! Whether a pod asks, and for what.

use serde_json::Value;

use super::annotations::{INJECT, MODE};
use super::reason::{Refusal, Unchanged};
use super::rules::{Mode, Rules};
use super::upstream::Problem;
use super::{Namespace, Outcome};

enum Switch {
    On,
    Off,
    Mode(Mode),
}

/// The mode to inject, or why nothing is to be done.
pub(crate) fn mode(pod: &Value, namespace: &Namespace, rules: &Rules) -> Result<Mode, Outcome> {
    let label = |kind| {
        pod.pointer(kind)
            .and_then(|all| all.get(INJECT))
            .and_then(Value::as_str)
    };
    let on_pod = label("/metadata/labels").or_else(|| label("/metadata/annotations"));
    // The API server asks about a silent pod by its namespace's labels: its annotations could not be heeded there.
    let on_namespace = namespace.labels.get(INJECT);
    let excluded = rules.excludes(&namespace.name);
    let (switch, by_pod) = match (on_pod, on_namespace) {
        (Some(value), _) => (switch("pod", value), true),
        (None, Some(_)) if excluded => {
            return Err(Outcome::Unchanged(Unchanged::ExcludedNamespace));
        }
        (None, Some(value)) => (switch("namespace", value), false),
        (None, None) => return Err(Outcome::Unchanged(Unchanged::NotAsked)),
    };
    let mode = match switch.map_err(Outcome::Refused)? {
        Switch::Off => return Err(Outcome::Unchanged(Unchanged::Disabled)),
        Switch::Mode(mode) => mode,
        Switch::On => default_mode(pod, namespace, rules).map_err(Outcome::Refused)?,
    };
    if excluded && by_pod {
        return Err(Outcome::Refused(Refusal::NamespaceExcluded(
            namespace.name.clone(),
        )));
    }
    if pod
        .pointer("/metadata/annotations/kubernetes.io~1config.mirror")
        .is_some()
    {
        return Err(Outcome::Unchanged(Unchanged::StaticPod));
    }
    Ok(mode)
}

fn switch(on: &'static str, value: &str) -> Result<Switch, Refusal> {
    match value {
        "enabled" | "true" => Ok(Switch::On),
        "disabled" | "false" => Ok(Switch::Off),
        _ => Mode::named(value)
            .map(Switch::Mode)
            .ok_or_else(|| Refusal::InvalidInjectValue {
                on,
                value: value.to_owned(),
            }),
    }
}

fn default_mode(pod: &Value, namespace: &Namespace, rules: &Rules) -> Result<Mode, Refusal> {
    let on_pod = pod
        .pointer("/metadata/annotations")
        .and_then(|all| all.get(MODE))
        .and_then(Value::as_str);
    let Some(value) = on_pod.or_else(|| namespace.annotations.get(MODE).map(String::as_str)) else {
        return Ok(rules.default_mode);
    };
    Mode::named(value).ok_or_else(|| {
        Refusal::annotation(
            MODE,
            &Problem(format!("{value:?}: write socket, files or envoy")),
        )
    })
}
