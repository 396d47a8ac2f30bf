//! Pods, nodes, namespaces and endpoints.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value as Json;
use tokio::time::Instant;

use super::{Kind, Namespace, State};
use crate::controller::desired::{Node, Pod};

impl State {
    pub(super) fn apply(&mut self, kind: Kind, id: String, object: Json, now: Instant) {
        match kind {
            Kind::Pod => self.apply_pod(object),
            Kind::Node => self.apply_node(id, object),
            Kind::Namespace => self.apply_namespace(id, &object),
            Kind::Endpoints => {
                let touched = self
                    .services
                    .apply(id, &object, self.config.ready_endpoints_only);
                self.mark_all(touched);
            }
            Kind::SpiffeId => self.apply_rule(id, object, now),
            Kind::WorkloadSpiffeId => self.apply_workload(id, object, now),
            Kind::StaticEntry => self.apply_static(id, object, now),
            Kind::FederatedTrustDomain => {}
        }
    }

    /// It is gone; `deliberate` when somebody deleted it, not when a list does not show it.
    pub(super) fn remove(&mut self, kind: Kind, id: &str, deliberate: bool) {
        match kind {
            Kind::Pod => self.remove_pod(id),
            Kind::Node => drop(self.nodes.remove(id)),
            Kind::Namespace => {
                self.namespaces.remove(id);
                self.changes += 1;
                self.mark_all(members(&self.pods_in, id));
            }
            Kind::Endpoints => {
                let touched = self.services.remove(id);
                self.mark_all(touched);
            }
            Kind::SpiffeId | Kind::WorkloadSpiffeId => self.remove_rule(id, deliberate),
            Kind::StaticEntry => self.remove_static(id, deliberate),
            Kind::FederatedTrustDomain => {}
        }
    }

    fn apply_pod(&mut self, object: Json) {
        let Some(pod) = Pod::read(object) else { return };
        let before = self.pods.get(&pod.uid);
        if before.is_some_and(|before| **before == pod) {
            return;
        }
        if let Some(node) = before.and_then(|before| before.node.clone()) {
            take(&mut self.pods_on, &node, &pod.uid);
        }
        if let Some(node) = &pod.node {
            self.pods_on
                .entry(node.clone())
                .or_default()
                .insert(pod.uid.clone());
        }
        self.pods_in
            .entry(pod.namespace.clone())
            .or_default()
            .insert(pod.uid.clone());
        self.mark(&pod.uid);
        self.changes += 1;
        self.pods.insert(pod.uid.clone(), Arc::new(pod));
    }

    fn remove_pod(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            take(&mut self.pods_in, &pod.namespace, uid);
            if let Some(node) = &pod.node {
                take(&mut self.pods_on, node, uid);
            }
            self.mark(uid);
            self.changes += 1;
        }
    }

    /// A node that goes takes nothing with it: its pods stay as they are until they go too.
    fn apply_node(&mut self, name: String, object: Json) {
        let Some(node) = Node::read(object) else {
            return;
        };
        if self.nodes.get(&name).is_some_and(|before| **before == node) {
            return;
        }
        self.nodes.insert(name.clone(), Arc::new(node));
        self.mark_all(members(&self.pods_on, &name));
    }

    fn apply_namespace(&mut self, name: String, object: &Json) {
        let labels = object
            .pointer("/metadata/labels")
            .and_then(Json::as_object)
            .into_iter()
            .flatten();
        let labels: BTreeMap<String, String> = labels
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        if self
            .namespaces
            .get(&name)
            .is_some_and(|before| before.labels == labels)
        {
            return;
        }
        let ignored = self
            .config
            .ignore_namespaces
            .iter()
            .any(|pattern| pattern.is_match(&name));
        self.namespaces
            .insert(name.clone(), Namespace { labels, ignored });
        self.touched.extend(self.rules.keys().cloned());
        self.mark_all(members(&self.pods_in, &name));
    }
}

fn members(of: &HashMap<String, HashSet<String>>, name: &str) -> Vec<String> {
    of.get(name).into_iter().flatten().cloned().collect()
}

fn take(of: &mut HashMap<String, HashSet<String>>, name: &str, member: &str) {
    if let Some(members) = of.get_mut(name) {
        members.remove(member);
        if members.is_empty() {
            of.remove(name);
        }
    }
}
