//! How a pod differs from what it would get now.

use std::fmt;

use serde_json::Value;

use super::reason::Refusal;
use super::rules::{Mode, Rules};
use super::status::Status;
use super::{Namespace, Outcome, apply, ask, list, name_of};

/// How a pod differs from what it would get now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// It does not ask and has nothing, or has exactly what it would get.
    None,
    /// It asks and has nothing.
    Missing,
    /// It asks and would be refused.
    Refused(Refusal),
    /// It has something and does not ask any more.
    Unasked,
    /// It has something else than it would get: what.
    Different(Vec<String>),
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("up to date"),
            Self::Missing => f.write_str("asks for it and has nothing: not injected"),
            Self::Refused(refusal) => write!(f, "asks for it and cannot get it: {refusal}"),
            Self::Unasked => f.write_str("has it and does not ask for it any more"),
            Self::Different(what) => f.write_str(&what.join("; ")),
        }
    }
}

/// Compares a pod with what it would get now.
#[must_use]
pub fn check(pod: &Value, namespace: &Namespace, rules: &Rules) -> Drift {
    let status = Status::of(pod);
    let mode = match (ask::mode(pod, namespace, rules), &status) {
        (Ok(mode), _) => mode,
        (Err(Outcome::Refused(refusal)), _) => return Drift::Refused(refusal),
        (Err(_), Some(_)) => return Drift::Unasked,
        (Err(_), None) => return Drift::None,
    };
    if let Err(refusal) = super::check_shape(pod) {
        return Drift::Refused(refusal);
    }
    let Some(status) = status else {
        return match super::inject(pod, namespace, rules) {
            Outcome::Refused(refusal) => Drift::Refused(refusal),
            _ => Drift::Missing,
        };
    };
    match differences(pod, &status, mode, namespace, rules) {
        Ok(what) if what.is_empty() => Drift::None,
        Ok(what) => Drift::Different(what),
        Err(refusal) => Drift::Refused(refusal),
    }
}

/// What the pod lacks or has otherwise than it would get now.
pub(crate) fn differences(
    pod: &Value,
    status: &Status,
    mode: Mode,
    namespace: &Namespace,
    rules: &Rules,
) -> Result<Vec<String>, Refusal> {
    let mut what = Vec::new();
    if status.mode != mode {
        what.push(format!(
            "mode is {}, would be {}",
            status.mode.as_str(),
            mode.as_str()
        ));
    }
    let base = apply::take_out(pod, status);
    let wanted = match super::fresh(base, mode, namespace, rules)? {
        Outcome::Patched(patched) => patched,
        _ => return Ok(what),
    };
    if status.hash != wanted.status.hash {
        let (have, would) = (&status.hash, &wanted.status.hash);
        what.push(format!(
            "injected by version {} as {have}, would be {would} now: rules, version or annotations have changed",
            status.version
        ));
    }
    let have = apply::sidecar_of(pod, status);
    let want = apply::sidecar_of(&wanted.pod, &wanted.status);
    if status.hash == wanted.status.hash
        && let Some(want) = want
        && !have.is_some_and(|have| apply::contains(have, want))
    {
        what.push(format!("container {} is gone or was edited", name_of(want)));
    }
    missing("volume", &wanted.status.volumes, &status.volumes, &mut what);
    missing(
        "mount in container",
        &wanted.status.mounts,
        &status.mounts,
        &mut what,
    );
    missing(
        "variable in container",
        &wanted.status.env,
        &status.env,
        &mut what,
    );
    missing(
        "pull secret",
        &wanted.status.image_pull_secrets,
        &status.image_pull_secrets,
        &mut what,
    );
    for name in &status.volumes {
        let want = list(&wanted.pod, "volumes").find(|volume| name_of(volume) == name);
        let have = list(pod, "volumes").find(|volume| name_of(volume) == name);
        let same = want.is_none_or(|want| have.is_some_and(|have| apply::contains(have, want)));
        if !same && status.hash == wanted.status.hash {
            what.push(format!("volume {name} is gone or was edited"));
        }
    }
    if what.is_empty() && !apply::contains(&pod["spec"], &wanted.pod["spec"]) {
        what.push("something that was added is gone or was edited".to_owned());
    }
    Ok(what)
}

fn missing(kind: &str, wanted: &[String], have: &[String], what: &mut Vec<String>) {
    for name in wanted.iter().filter(|name| !have.contains(name)) {
        what.push(format!("{kind} {name} is missing"));
    }
}
