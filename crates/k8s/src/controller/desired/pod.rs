use std::collections::{BTreeMap, BTreeSet};

use identity::{Selector, SpiffeId};
use serde_json::Value as Json;

use super::{Key, Rule, Wanted};
use crate::controller::template::{Data, Scope, Template};

/// A pod, as much of it as templates and selectors see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.nodeName`; none until it is scheduled.
    pub node: Option<String>,
    /// Whether it has ended, well or badly: no process of it will ask for an SVID.
    pub finished: bool,
    /// `metadata` without `managedFields`, and `spec`, as JSON text: a parsed tree takes several times as much memory.
    json: Box<str>,
}

impl Pod {
    /// Reads a pod. None without UID, name and namespace, which a stored pod has.
    #[must_use]
    pub fn read(mut object: Json) -> Option<Self> {
        let meta = object.get_mut("metadata")?.as_object_mut()?;
        meta.remove("managedFields");
        let text = |meta: &serde_json::Map<String, Json>, key: &str| {
            meta.get(key).and_then(Json::as_str).map(str::to_owned)
        };
        let labels = meta
            .get("labels")
            .and_then(Json::as_object)
            .into_iter()
            .flatten();
        let labels = labels
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        let (uid, namespace, name) = (
            text(meta, "uid")?,
            text(meta, "namespace")?,
            text(meta, "name")?,
        );
        let phase = object
            .pointer("/status/phase")
            .and_then(Json::as_str)
            .unwrap_or_default();
        let finished = matches!(phase, "Succeeded" | "Failed");
        let node = object
            .pointer("/spec/nodeName")
            .and_then(Json::as_str)
            .filter(|name| !name.is_empty());
        let node = node.map(str::to_owned);
        let kept = serde_json::json!({ "metadata": object["metadata"].take(), "spec": object["spec"].take() });
        Some(Self {
            uid,
            namespace,
            name,
            labels,
            node,
            finished,
            json: kept.to_string().into(),
        })
    }

    pub(super) fn json(&self) -> Json {
        // What this was written from was JSON.
        serde_json::from_str(&self.json).unwrap_or_default()
    }
}

/// A node, as much of it as templates see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    json: Json,
}

impl Node {
    /// Reads a node. None without a name.
    #[must_use]
    pub fn read(mut object: Json) -> Option<Self> {
        let meta = object.get_mut("metadata")?.as_object_mut()?;
        // What changes every few seconds and no template needs would make every pod of the node look new.
        for noise in ["managedFields", "resourceVersion"] {
            meta.remove(noise);
        }
        let name = meta.get("name")?.as_str()?.to_owned();
        let json = serde_json::json!({ "metadata": object["metadata"].take(), "spec": object["spec"].take() });
        Some(Self { name, json })
    }
}

/// Why there is no entry for a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    /// The templates do not make an entry of it.
    #[error("{field}: {message}")]
    Template {
        /// Which template.
        field: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The entry is none that a server would take.
    #[error("{0}")]
    Entry(String),
}

/// The entry that `rule` makes for `pod` on `node`; `services` are those that lead to it, all in its namespace.
///
/// # Errors
/// When a template fails, or makes what cannot be in an entry.
pub fn render(
    rule: &Rule,
    scope: &Scope,
    parent: &Template,
    pod: &Pod,
    node: &Node,
    services: &BTreeSet<String>,
) -> Result<Wanted, PodError> {
    let templates = [&rule.id, parent]
        .into_iter()
        .chain(&rule.dns_names)
        .chain(&rule.selectors);
    let data = Data::new(templates, scope, &pod.json(), &node.json);
    let spiffe_id = id("spiffeIDTemplate", &rule.id, &data)?;
    let parent_id = id("parentIDTemplate", parent, &data)?;
    let mut selectors = vec![
        Selector::new("k8s", &format!("pod-uid:{}", pod.uid))
            .map_err(|error| PodError::Entry(error.to_string()))?,
    ];
    for template in &rule.selectors {
        const FIELD: &str = "workloadSelectorTemplates";
        let text = text(FIELD, template, &data)?;
        let selector = Selector::parse(&text).map_err(|error| PodError::Template {
            field: FIELD,
            message: format!("{text:?}: {error}"),
        })?;
        selectors.push(selector);
    }
    let wanted = Wanted {
        key: Key {
            spiffe_id,
            parent_id,
            selectors: selectors.into_iter().collect(),
        },
        x509_svid_ttl: rule.x509_svid_ttl,
        jwt_svid_ttl: rule.jwt_svid_ttl,
        federates_with: rule.federates_with.clone(),
        admin: rule.admin,
        downstream: rule.downstream,
        dns_names: dns_names(rule, scope, &data, pod, services)?,
        hint: rule.hint.clone(),
        store_svid: false,
    };
    wanted
        .validate(&scope.trust_domain)
        .map_err(|error| PodError::Entry(error.to_string()))?;
    Ok(wanted)
}

fn id(field: &'static str, template: &Template, data: &Data) -> Result<SpiffeId, PodError> {
    let text = text(field, template, data)?;
    SpiffeId::parse(&text).map_err(|error| PodError::Template {
        field,
        message: format!("{text:?}: {error}"),
    })
}

/// What the template makes. What Go writes for an absent value is in no ID, name or selector that anybody meant.
fn text(field: &'static str, template: &Template, data: &Data) -> Result<String, PodError> {
    let text = template.render(data).map_err(|error| PodError::Template {
        field,
        message: error.to_string(),
    })?;
    if text.contains("<no value>") {
        let message = format!("{text:?}: the pod does not have a value that the template asks for");
        return Err(PodError::Template { field, message });
    }
    Ok(text)
}

/// Those of the templates in their order, then those of the services, sorted; none twice.
fn dns_names(
    rule: &Rule,
    scope: &Scope,
    data: &Data,
    pod: &Pod,
    services: &BTreeSet<String>,
) -> Result<Vec<String>, PodError> {
    const FIELD: &str = "dnsNameTemplates";
    let mut names = Vec::new();
    let mut seen = BTreeSet::new();
    for template in &rule.dns_names {
        let name = text(FIELD, template, data)?;
        identity::check_dns_name(&name).map_err(|error| PodError::Template {
            field: FIELD,
            message: error.to_string(),
        })?;
        if seen.insert(name.clone()) {
            names.push(name);
        }
    }
    if rule.service_names {
        let of_services = service_names(services, &pod.namespace, scope).into_iter();
        names.extend(of_services.filter(|name| !seen.contains(name)));
    }
    Ok(names)
}

/// The names of services of a namespace. One that is too long with the cluster's domain is left out.
pub(in crate::controller) fn service_names(
    services: &BTreeSet<String>,
    namespace: &str,
    scope: &Scope,
) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for service in services {
        names.insert(service.clone());
        names.insert(format!("{service}.{namespace}"));
        names.insert(format!("{service}.{namespace}.svc"));
        if let Some(domain) = &scope.cluster_domain {
            names.insert(format!("{service}.{namespace}.svc.{domain}"));
        }
    }
    names.retain(|name| identity::check_dns_name(name).is_ok());
    names
}
