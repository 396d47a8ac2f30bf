//! `signet.tenants` of the config file.

use identity::TrustDomain;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use runtime::config::Section;
use serde::Deserialize;
use serde_json::Value as Json;

use super::{NAMESPACE, Policies, Policy};
use crate::controller::desired::{lifetime, read_selector};

/// A policy as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Given {
    namespace_selector: Json,
    path_prefix: String,
    #[serde(default)]
    max_ttl: Option<String>,
    #[serde(default)]
    max_jwt_ttl: Option<String>,
    #[serde(default)]
    dns_name_suffixes: Vec<String>,
    #[serde(default)]
    federates_with: Vec<String>,
}

/// Reads the policies; a mistake is a problem of its item.
pub(in crate::controller) fn read(section: &mut Section) -> Policies {
    const KEY: &str = "tenants";
    let items = match section.get::<Json>(KEY) {
        None | Some(Json::Null) => return Policies::default(),
        Some(Json::Array(items)) => items,
        Some(_) => {
            let message = "give a list of {namespaceSelector, pathPrefix, …}";
            section.problem(KEY, message);
            return Policies::default();
        }
    };
    let mut policies = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        let given = serde_json::from_value::<Given>(item).map_err(|error| error.to_string());
        match given.and_then(policy) {
            Ok(policy) => policies.push(policy),
            Err(message) => section.problem(&format!("{KEY}[{at}]"), message),
        }
    }
    Policies(policies)
}

fn policy(given: Given) -> Result<Policy, String> {
    let at = |key: &'static str| move |message: String| format!("{key}: {message}");
    let name = |name: &String| {
        TrustDomain::parse(name).map_err(|error| format!("federatesWith: {name:?}: {error}"))
    };
    Ok(Policy {
        namespaces: selector(given.namespace_selector).map_err(at("namespaceSelector"))?,
        path: path(&given.path_prefix).map_err(at("pathPrefix"))?,
        x509_svid_ttl: lifetime(given.max_ttl.as_deref()).map_err(at("maxTtl"))?,
        jwt_svid_ttl: lifetime(given.max_jwt_ttl.as_deref()).map_err(at("maxJwtTtl"))?,
        dns_suffixes: given
            .dns_name_suffixes
            .iter()
            .map(|text| suffix(text).map_err(at("dnsNameSuffixes")))
            .collect::<Result<_, _>>()?,
        federates_with: given
            .federates_with
            .iter()
            .map(name)
            .collect::<Result<_, _>>()?,
    })
}

/// An empty selector takes every namespace, so that a key with a wrong letter must not make one.
fn selector(given: Json) -> Result<kube::core::Selector, String> {
    let Some(object) = given.as_object() else {
        return Err("give matchLabels or matchExpressions; {} takes every namespace".to_owned());
    };
    let known = ["matchLabels", "matchExpressions"];
    if let Some(unknown) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!(
            "unknown key {unknown:?}; there are matchLabels and matchExpressions"
        ));
    }
    let labels: LabelSelector = serde_json::from_value(given).map_err(|error| error.to_string())?;
    read_selector(Some(&labels))
}

fn path(given: &str) -> Result<String, String> {
    const SAMPLE: &str = "write it such as /ns/{namespace}/";
    let path = given.strip_suffix('/').unwrap_or(given);
    let Some(segments) = path.strip_prefix('/') else {
        return Err(format!("{given:?} does not begin with a slash; {SAMPLE}"));
    };
    let segments: Vec<_> = segments.split('/').collect();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = |segment: &&str| {
        *segment == NAMESPACE
            || (!segment.is_empty()
                && segment.chars().all(legal)
                && !matches!(*segment, "." | ".."))
    };
    if let Some(odd) = segments.iter().find(|segment| !fits(segment)) {
        return Err(format!("{odd:?} is no segment of a path; {SAMPLE}"));
    }
    if segments.first() == Some(&"spire") {
        return Err("IDs below /spire are the server's own".to_owned());
    }
    // Or namespaces could take each other's IDs.
    if !segments.contains(&NAMESPACE) {
        return Err(format!(
            "{given:?} does not hold {NAMESPACE} as a segment; {SAMPLE}"
        ));
    }
    Ok(path.to_owned())
}

fn suffix(given: &str) -> Result<String, String> {
    let text = given.strip_prefix('.').unwrap_or(given);
    let sample = text.replace(NAMESPACE, "namespace");
    match identity::check_dns_name(&sample) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(format!("{given:?}: {error}")),
    }
}
