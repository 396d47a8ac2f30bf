//! Where pods are described in the kinds that make them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::inject::Namespace;
use crate::inject::annotations::INJECT;

/// Where the pod is in an object, from the top: empty for a Pod.
type Place = &'static [&'static str];

/// Where the pod or pod template of this object is; nothing for other kinds.
pub(super) fn template(object: &Value) -> Option<Place> {
    let version = object.get("apiVersion")?.as_str()?;
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match (group, object.get("kind")?.as_str()?) {
        ("", "Pod") => Some(&[]),
        ("", "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
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

fn at(object: &Value, place: Place) -> &Value {
    place.iter().fold(object, |value, key| &value[*key])
}

/// The pod, with metadata even where the template has none.
pub(super) fn pod(object: &Value, place: Place) -> Value {
    let mut pod = at(object, place).clone();
    if let Some(pod) = pod.as_object_mut()
        && pod.get("metadata").is_none_or(Value::is_null)
    {
        pod.insert("metadata".to_owned(), json!({}));
    }
    pod
}

/// Puts the pod back where it was; a template's empty metadata are left out.
pub(super) fn put(object: &mut Value, place: Place, pod: &Value) {
    let mut slot = object;
    for key in place {
        let Some(next) = slot.get_mut(*key) else {
            return;
        };
        slot = next;
    }
    *slot = pod.clone();
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

/// The switch on the workload rather than on its pods does nothing, which is easily overlooked.
pub(super) fn misplaced(object: &Value, place: Place) -> Vec<String> {
    let has = |value: &Value| {
        ["labels", "annotations"]
            .iter()
            .any(|kind| value["metadata"][*kind].get(INJECT).is_some())
    };
    if place.is_empty() || !has(object) || has(at(object, place)) {
        return Vec::new();
    }
    vec![format!(
        "{INJECT} stands on the workload, not on its pods: move it to {}.metadata",
        place.join(".")
    )]
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
