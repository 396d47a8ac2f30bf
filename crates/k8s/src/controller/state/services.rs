//! Which services lead to which pod, by EndpointSlices or Endpoints.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value as Json;

/// One slice: its service and the pods in it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Slice {
    service: String,
    pods: BTreeSet<String>,
}

/// The slices, and what they say of each pod.
#[derive(Debug, Default)]
pub(super) struct Services {
    slices: HashMap<String, Slice>,
    /// By the pod's UID, how many slices of each service hold it.
    by_pod: HashMap<String, BTreeMap<String, usize>>,
}

impl Services {
    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.slices.keys()
    }

    /// The services that lead to a pod; all are in its namespace.
    pub(super) fn of(&self, pod: &str) -> BTreeSet<String> {
        self.by_pod
            .get(pod)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect()
    }

    /// A slice; gives the pods for which something changed.
    pub(super) fn apply(
        &mut self,
        id: String,
        object: &Json,
        ready_only: bool,
    ) -> BTreeSet<String> {
        let slice = read(object, ready_only).unwrap_or_default();
        if self.slices.get(&id) == Some(&slice) {
            return BTreeSet::new();
        }
        let touched = self.remove(&id);
        let touched = touched.symmetric_difference(&slice.pods).cloned().collect();
        for pod in &slice.pods {
            *self
                .by_pod
                .entry(pod.clone())
                .or_default()
                .entry(slice.service.clone())
                .or_default() += 1;
        }
        self.slices.insert(id, slice);
        touched
    }

    /// The slice is gone; gives its pods.
    pub(super) fn remove(&mut self, id: &str) -> BTreeSet<String> {
        let Some(slice) = self.slices.remove(id) else {
            return BTreeSet::new();
        };
        for pod in &slice.pods {
            let Some(services) = self.by_pod.get_mut(pod) else {
                continue;
            };
            if let Some(count) = services.get_mut(&slice.service) {
                *count -= 1;
                if *count == 0 {
                    services.remove(&slice.service);
                }
            }
            if services.is_empty() {
                self.by_pod.remove(pod);
            }
        }
        slice.pods
    }
}

fn read(object: &Json, ready_only: bool) -> Option<Slice> {
    let name = || object.pointer("/metadata/name").and_then(Json::as_str);
    let pod = |reference: Option<&Json>| {
        let reference = reference?;
        let is_pod = reference.get("kind").and_then(Json::as_str) == Some("Pod");
        is_pod
            .then(|| {
                reference
                    .get("uid")
                    .and_then(Json::as_str)
                    .map(str::to_owned)
            })
            .flatten()
    };
    if let Some(endpoints) = object.get("endpoints").and_then(Json::as_array) {
        let label = object
            .pointer("/metadata/labels/kubernetes.io~1service-name")
            .and_then(Json::as_str);
        // Absent means ready.
        let ready = |endpoint: &Json| {
            endpoint
                .pointer("/conditions/ready")
                .and_then(Json::as_bool)
                .unwrap_or(true)
        };
        let endpoints = endpoints
            .iter()
            .filter(|endpoint| !ready_only || ready(endpoint));
        let pods = endpoints
            .filter_map(|endpoint| pod(endpoint.get("targetRef")))
            .collect();
        return Some(Slice {
            service: label?.to_owned(),
            pods,
        });
    }
    let subsets = object
        .get("subsets")
        .and_then(Json::as_array)
        .into_iter()
        .flatten();
    let kinds: &[&str] = if ready_only {
        &["addresses"]
    } else {
        &["addresses", "notReadyAddresses"]
    };
    let addresses = subsets.flat_map(|subset| {
        kinds
            .iter()
            .filter_map(|kind| subset.get(kind)?.as_array())
            .flatten()
    });
    let pods = addresses
        .filter_map(|address| pod(address.get("targetRef")))
        .collect();
    Some(Slice {
        service: name()?.to_owned(),
        pods,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(service: &str, pods: &[(&str, bool)]) -> Json {
        let endpoint = |(uid, ready): &(&str, bool)| json!({ "conditions": { "ready": ready }, "targetRef": { "kind": "Pod", "uid": uid } });
        json!({ "metadata": { "labels": { "kubernetes.io/service-name": service } }, "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>() })
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn ctl_13_slices_add_up() {
        let mut services = Services::default();
        assert_eq!(
            services.apply(
                "a/1".into(),
                &slice("web", &[("p1", true), ("p2", false)]),
                false
            ),
            set(&["p1", "p2"])
        );
        assert_eq!(
            services.apply("a/2".into(), &slice("web", &[("p1", true)]), false),
            set(&["p1"])
        );
        assert_eq!(
            services.apply("a/3".into(), &slice("alt", &[("p1", true)]), false),
            set(&["p1"])
        );
        assert_eq!(services.of("p1"), set(&["alt", "web"]));
        assert!(
            services
                .apply(
                    "a/1".into(),
                    &slice("web", &[("p1", true), ("p2", false)]),
                    false
                )
                .is_empty(),
            "nothing new"
        );
        services.remove("a/1");
        assert_eq!(
            (services.of("p1"), services.of("p2")),
            (set(&["alt", "web"]), set(&[]))
        );
        services.remove("a/2");
        assert_eq!(services.of("p1"), set(&["alt"]));
    }

    #[test]
    fn ctl_13_readiness_counts_when_asked() {
        let mut services = Services::default();
        services.apply(
            "a/1".into(),
            &slice("web", &[("p1", true), ("p2", false)]),
            true,
        );
        assert_eq!(
            (services.of("p1"), services.of("p2")),
            (set(&["web"]), set(&[]))
        );
    }

    #[test]
    fn ctl_13_endpoints_serve_too() {
        let mut services = Services::default();
        let address =
            |uid: &str| json!([{ "ip": "1.2.3.4", "targetRef": { "kind": "Pod", "uid": uid } }]);
        let endpoints = json!({ "metadata": { "name": "web" }, "subsets": [{ "addresses": address("p1"), "notReadyAddresses": address("p2") }] });
        services.apply("a/web".into(), &endpoints, false);
        assert_eq!(
            (services.of("p1"), services.of("p2")),
            (set(&["web"]), set(&["web"]))
        );
        services.apply("a/web".into(), &endpoints, true);
        assert_eq!(services.of("p1"), set(&["web"]));
    }
}
