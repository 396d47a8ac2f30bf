//! What admission checks of the custom resources, beyond what their schemas can say. Pure and bounded in time.

use identity::{Bundle, SpiffeId, TrustDomain};
use runtime::config::Problem as Found;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::crd::{
    ClusterFederatedTrustDomainSpec, ClusterSPIFFEIDSpec, ClusterStaticEntrySpec,
    WorkloadSPIFFEIDSpec,
};
use super::desired::{self, Node, Pod, Rule};
use super::template::{Sees, Template};

pub use super::template::Scope;

/// What is wrong, and where: `spec.spiffeIDTemplate`.
pub type Problem = Found;

/// What the user may not have meant.
pub type Warnings = Vec<String>;

/// Checks a ClusterSPIFFEID, whole as the API server sends it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn cluster_spiffe_id(object: &Json, scope: &Scope) -> Result<Warnings, Vec<Problem>> {
    let spec: ClusterSPIFFEIDSpec = spec(object)?;
    let rule = Rule::compile(&spec, scope)?;
    let mut warnings = Warnings::new();
    if rule.takes_everything() {
        warnings.push("neither podSelector nor namespaceSelector: every pod of the cluster gets an identity by this template".to_owned());
    }
    if spec.admin {
        warnings.push("admin: every workload it registers may administrate the server".to_owned());
    }
    warnings.extend(dry_run(&spec, &rule, scope)?);
    Ok(warnings)
}

/// Checks a WorkloadSPIFFEID, whole as the API server sends it. What its namespace is allowed, its status tells.
///
/// # Errors
/// Everything that is wrong with it.
pub fn workload_spiffe_id(object: &Json, scope: &Scope) -> Result<Warnings, Vec<Problem>> {
    let spec: WorkloadSPIFFEIDSpec = spec(object)?;
    let spec = ClusterSPIFFEIDSpec::from(spec);
    let rule = Rule::compile(&spec, scope)?;
    Ok(dry_run(&spec, &rule, scope)?.into_iter().collect())
}

/// Renders for a made-up pod. What fails for it may work for real pods, which have labels and whatever else the template
/// asks for; an ID outside the trust domain is wrong for all of them.
fn dry_run(
    spec: &ClusterSPIFFEIDSpec,
    rule: &Rule,
    scope: &Scope,
) -> Result<Option<String>, Vec<Problem>> {
    let labels = spec
        .pod_selector
        .as_ref()
        .and_then(|selector| selector.match_labels.clone())
        .unwrap_or_default();
    let pod = Pod::read(json!({
        "metadata": { "name": "sample", "namespace": "default", "uid": "00000000-0000-0000-0000-000000000001", "labels": labels },
        "spec": { "serviceAccountName": "default", "nodeName": "node", "containers": [{ "name": "app", "image": "app" }] },
    }));
    let node = Node::read(
        json!({ "metadata": { "name": "node", "uid": "00000000-0000-0000-0000-000000000002" }, "spec": {} }),
    );
    let parent = Template::compile("spiffe://{{ .TrustDomain }}/spire/agent/sample", Sees::Node);
    let (Some(pod), Some(node), Ok(parent)) = (pod, node, parent) else {
        return Ok(None);
    };
    let Err(error) = desired::render(rule, scope, &parent, &pod, &node, &[].into()) else {
        return Ok(None);
    };
    let text = error.to_string();
    let literal = spec
        .spiffe_id_template
        .split("{{")
        .next()
        .unwrap_or_default();
    let prefix = format!("spiffe://{}/", scope.trust_domain);
    if !literal.starts_with(&prefix) && !prefix.starts_with(literal) {
        let message =
            format!("it makes {literal:?}…, but IDs of this server begin with {prefix:?}");
        return Err(vec![Problem {
            path: "spec.spiffeIDTemplate".to_owned(),
            message,
        }]);
    }
    Ok(Some(format!(
        "for a made-up pod it fails: {text}; check that your pods have what it asks for"
    )))
}

/// Checks a ClusterStaticEntry, whole as the API server sends it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn cluster_static_entry(object: &Json, scope: &Scope) -> Result<Warnings, Vec<Problem>> {
    let spec: ClusterStaticEntrySpec = spec(object)?;
    let entry = desired::static_entry(&spec, scope)?;
    let admin = entry
        .admin
        .then(|| "admin: the workload may administrate the server".to_owned());
    Ok(admin.into_iter().collect())
}

/// Checks a ClusterFederatedTrustDomain, whole as the API server sends it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn cluster_federated_trust_domain(
    object: &Json,
    scope: &Scope,
) -> Result<Warnings, Vec<Problem>> {
    let spec: ClusterFederatedTrustDomainSpec = spec(object)?;
    federated_trust_domain(&spec, scope).map(|_| {
        let first = spec.bundle_endpoint_profile.kind == "https_spiffe" && spec.trust_domain_bundle.is_empty();
        let hint = "https_spiffe without trustDomainBundle: the server needs the first bundle from somewhere else (the Bundle API, or a bundle here)";
        first.then(|| hint.to_owned()).into_iter().collect()
    })
}

/// A federation relationship that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federation {
    /// The foreign trust domain.
    pub trust_domain: TrustDomain,
    /// Where its bundle is.
    pub url: String,
    /// The endpoint's ID with the profile `https_spiffe`; none with `https_web`.
    pub endpoint: Option<SpiffeId>,
    /// The bundle to begin with.
    pub bundle: Option<Bundle>,
}

/// Reads a ClusterFederatedTrustDomain.
///
/// # Errors
/// Everything that is wrong with it, each with its path.
pub fn federated_trust_domain(
    spec: &ClusterFederatedTrustDomainSpec,
    scope: &Scope,
) -> Result<Federation, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut problem = |path: &str, message: String| {
        problems.push(Problem {
            path: format!("spec.{path}"),
            message,
        })
    };
    let trust_domain = TrustDomain::parse(&spec.trust_domain);
    let trust_domain = trust_domain
        .map_err(|error| problem("trustDomain", error.to_string()))
        .ok();
    if trust_domain.as_ref() == Some(&scope.trust_domain) {
        problem(
            "trustDomain",
            "the server's own trust domain; name the foreign one".to_owned(),
        );
    }
    if let Err(message) = check_url(&spec.bundle_endpoint_url) {
        problem("bundleEndpointURL", message);
    }
    let profile = &spec.bundle_endpoint_profile;
    let endpoint = match (profile.kind.as_str(), profile.endpoint_spiffe_id.as_str()) {
        ("https_spiffe", "") => {
            problem(
                "bundleEndpointProfile.endpointSPIFFEID",
                "https_spiffe needs the endpoint's SPIFFE ID".to_owned(),
            );
            None
        }
        ("https_spiffe", id) => {
            let parsed = SpiffeId::parse(id);
            parsed
                .map_err(|error| {
                    problem("bundleEndpointProfile.endpointSPIFFEID", error.to_string())
                })
                .ok()
        }
        ("https_web", "") => None,
        ("https_web", _) => {
            problem(
                "bundleEndpointProfile.endpointSPIFFEID",
                "https_web has none; leave it out".to_owned(),
            );
            None
        }
        (other, _) => {
            problem(
                "bundleEndpointProfile.type",
                format!("{other:?} is neither https_spiffe nor https_web"),
            );
            None
        }
    };
    let mut bundle = None;
    if let (Some(trust_domain), false) = (&trust_domain, spec.trust_domain_bundle.is_empty()) {
        match Bundle::from_spiffe_json(trust_domain, spec.trust_domain_bundle.as_bytes()) {
            Ok(read) => bundle = Some(read),
            Err(error) => problem("trustDomainBundle", error.to_string()),
        }
    }
    match trust_domain {
        Some(trust_domain) if problems.is_empty() => Ok(Federation {
            trust_domain,
            url: spec.bundle_endpoint_url.clone(),
            endpoint,
            bundle,
        }),
        _ => Err(problems),
    }
}

fn check_url(text: &str) -> Result<(), String> {
    let hint = "give an https URL such as https://spire.example.org:8443/bundle";
    let url: http::Uri = text
        .parse()
        .map_err(|error| format!("{text:?}: {error}; {hint}"))?;
    let authority = url
        .authority()
        .map(http::uri::Authority::as_str)
        .unwrap_or_default();
    if url.scheme_str() != Some("https") || url.host().is_none_or(str::is_empty) {
        return Err(format!("{text:?}: {hint}"));
    }
    if authority.contains('@') {
        return Err(format!("{text:?}: no user name or password in it; {hint}"));
    }
    Ok(())
}

fn spec<T: DeserializeOwned>(object: &Json) -> Result<T, Vec<Problem>> {
    let spec = object.get("spec").cloned().unwrap_or(Json::Null);
    serde_json::from_value(spec).map_err(|error| {
        vec![Problem {
            path: "spec".to_owned(),
            message: error.to_string(),
        }]
    })
}

#[cfg(test)]
mod tests;
