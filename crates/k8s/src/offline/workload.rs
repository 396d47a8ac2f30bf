//! Where pods are described in the kinds that make them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::PodTemplate;
use crate::inject::Namespace;
use crate::inject::annotations::INJECT;

/// Where the pods and pod templates of an object are.
pub(super) enum Places {
    /// In an object of a kind of Kubernetes: a JSON pointer, empty for a Pod.
    Known(&'static str),
    /// In a custom resource.
    Told(Vec<String>),
}

/// Where the pods and pod templates of this object are; nothing for kinds that nobody knows.
pub(super) fn places(object: &Value, told: &[PodTemplate]) -> Option<Places> {
    let version = object.get("apiVersion")?.as_str()?;
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = object.get("kind")?.as_str()?;
    if let Some(place) = known(group, kind) {
        return Some(Places::Known(place));
    }
    let told = told.iter().filter(|one| one.is_of(group, kind));
    let found: Vec<_> = told.map(|one| one.places(object)).collect();
    (!found.is_empty()).then(|| Places::Told(found.concat()))
}

fn known(group: &str, kind: &str) -> Option<&'static str> {
    match (group, kind) {
        ("", "Pod") => Some(""),
        ("", "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job") => Some("/spec/template"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// `List`, `PodList`, `DeploymentList`…
pub(super) fn is_list(object: &Value) -> bool {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    kind.ends_with("List") && object.get("items").is_some_and(Value::is_array)
}

pub(super) fn namespace_of(object: &Value) -> Option<&str> {
    object
        .pointer("/metadata/namespace")?
        .as_str()
        .filter(|name| !name.is_empty())
}

/// `Deployment shop/web`.
pub(super) fn told(object: &Value, namespace: &str) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").or_else(|| text("/metadata/generateName"));
    format!(
        "{} {namespace}/{}",
        text("/kind").unwrap_or_default(),
        name.unwrap_or("?")
    )
}

/// The pod, with metadata even where the template has none.
pub(super) fn pod(object: &Value, place: &str) -> Value {
    let mut pod = object.pointer(place).cloned().unwrap_or_default();
    if let Some(pod) = pod.as_object_mut()
        && pod.get("metadata").is_none_or(Value::is_null)
    {
        pod.insert("metadata".to_owned(), json!({}));
    }
    pod
}

/// Puts the pod back where it was; a template's empty metadata are left out.
pub(super) fn put(object: &mut Value, place: &str, pod: Value) {
    let Some(slot) = object.pointer_mut(place) else {
        return;
    };
    *slot = pod;
    if let Some(map) = slot.as_object_mut()
        && !place.is_empty()
        && map
            .get("metadata")
            .and_then(Value::as_object)
            .is_some_and(Map::is_empty)
    {
        map.remove("metadata");
    }
}

/// A JSON pointer as people write it.
pub(super) fn dotted(place: &str) -> String {
    place.trim_start_matches('/').replace('/', ".")
}

/// The switch on the workload rather than on its pods does nothing, which is easily overlooked.
pub(super) fn misplaced(object: &Value, place: &str) -> Vec<String> {
    let has = |value: &Value| {
        ["labels", "annotations"]
            .iter()
            .any(|kind| value["metadata"][*kind].get(INJECT).is_some())
    };
    if place.is_empty() || !has(object) || object.pointer(place).is_some_and(has) {
        return Vec::new();
    }
    vec![format!(
        "{INJECT} stands on the workload, not on its pods: move it to {}.metadata",
        dotted(place)
    )]
}

/// Whether a label or annotation below the spec is the switch.
pub(super) fn asks_somewhere(object: &Value) -> bool {
    fn has(value: &Value) -> bool {
        match value {
            Value::Object(map) => map.contains_key(INJECT) || map.values().any(has),
            Value::Array(items) => items.iter().any(has),
            _ => false,
        }
    }
    // As deep as the parser lets it be.
    object.get("spec").is_some_and(has)
}

/// Collects the Namespace objects of a stream.
pub(super) fn namespaces(object: &Value, into: &mut BTreeMap<String, Namespace>) {
    if is_list(object) {
        let items = object["items"].as_array();
        items
            .into_iter()
            .flatten()
            .for_each(|item| namespaces(item, into));
        return;
    }
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    if object["apiVersion"] != "v1" || object["kind"] != "Namespace" {
        return;
    }
    let Some(name) = name else { return };
    let texts = |kind: &str| {
        let map = object["metadata"][kind].as_object();
        let pairs = map.into_iter().flatten();
        pairs
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    };
    let namespace = Namespace {
        name: name.to_owned(),
        labels: texts("labels"),
        annotations: texts("annotations"),
    };
    into.insert(name.to_owned(), namespace);
}
