//! What namespaces may ask for themselves, by WorkloadSPIFFEIDs: nothing, unless the operator sets bounds.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use identity::{SpiffeId, TrustDomain};
use kube::core::{Selector, SelectorExt};

use super::desired::{Pod, Wanted};

pub(super) use read::read;

/// Stands for the namespace's name.
const NAMESPACE: &str = "{namespace}";

/// The bounds of all namespaces: the first policy that takes a namespace is its own.
#[derive(Clone, Debug, Default)]
pub struct Policies(Vec<Policy>);

impl Policies {
    /// Whether nobody may ask for anything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bounds of a namespace with these labels; none when it may ask for nothing.
    #[must_use]
    pub fn of(&self, labels: &BTreeMap<String, String>) -> Option<&Policy> {
        self.0
            .iter()
            .find(|policy| policy.namespaces.matches(labels))
    }
}

/// The bounds of some namespaces.
#[derive(Clone, Debug)]
pub struct Policy {
    namespaces: Selector,
    /// `/ns/{namespace}`: without a slash at its end, and with the placeholder as one of its segments.
    path: String,
    x509_svid_ttl: Option<Duration>,
    jwt_svid_ttl: Option<Duration>,
    dns_suffixes: Vec<String>,
    federates_with: BTreeSet<TrustDomain>,
}

impl Policy {
    /// Whether `id` is below the path of `namespace`.
    #[must_use]
    pub fn owns(&self, id: &SpiffeId, namespace: &str) -> bool {
        let own = self.path_of(namespace);
        let rest = id.path().strip_prefix(&own);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The entry within the bounds; `of_services` are names that were asked for only as far as they are allowed.
    ///
    /// # Errors
    /// What is not allowed.
    pub fn admit(
        &self,
        wanted: Wanted,
        pod: &Pod,
        of_services: &BTreeSet<String>,
    ) -> Result<Wanted, String> {
        let namespace = pod.namespace.as_str();
        let id = &wanted.key.spiffe_id;
        if !self.owns(id, namespace) {
            let path = self.path_of(namespace);
            return Err(format!(
                "{id}: namespace {namespace} may have IDs below {path} only"
            ));
        }
        // It would have a say in what becomes of the other pod's entries.
        if wanted.key.pods().any(|uid| uid != pod.uid) {
            return Err("a selector k8s:pod-uid: names another pod".to_owned());
        }
        if let Some(name) = wanted
            .federates_with
            .difference(&self.federates_with)
            .next()
        {
            return Err(format!(
                "namespace {namespace} may not federate with {name}"
            ));
        }
        let allowed = |name: &String| self.allows_name(name, namespace);
        let (dns_names, others): (Vec<_>, Vec<_>) =
            wanted.dns_names.iter().cloned().partition(allowed);
        if let Some(name) = others.iter().find(|name| !of_services.contains(*name)) {
            return Err(format!(
                "DNS name {name}: namespace {namespace} may have names that end in {}",
                self.endings(namespace)
            ));
        }
        Ok(Wanted {
            x509_svid_ttl: capped("ttl", wanted.x509_svid_ttl, self.x509_svid_ttl)?,
            jwt_svid_ttl: capped("jwtTtl", wanted.jwt_svid_ttl, self.jwt_svid_ttl)?,
            dns_names,
            ..wanted
        })
    }

    fn path_of(&self, namespace: &str) -> String {
        self.path.replace(NAMESPACE, namespace)
    }

    fn allows_name(&self, name: &str, namespace: &str) -> bool {
        self.dns_suffixes.iter().any(|suffix| {
            let suffix = suffix.replace(NAMESPACE, namespace);
            let rest = name.strip_suffix(&suffix);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    fn endings(&self, namespace: &str) -> String {
        let all = self.dns_suffixes.iter();
        let all: Vec<_> = all
            .map(|suffix| suffix.replace(NAMESPACE, namespace))
            .collect();
        match all.as_slice() {
            [] => "nothing".to_owned(),
            all => all.join(", "),
        }
    }
}

/// Who asks for no lifetime gets the longest that is allowed: the server's default may be longer.
fn capped(
    field: &str,
    asked: Option<Duration>,
    most: Option<Duration>,
) -> Result<Option<Duration>, String> {
    match (asked, most) {
        (Some(asked), Some(most)) if asked > most => Err(format!(
            "{field}: {}s is longer than the {}s that are allowed",
            asked.as_secs(),
            most.as_secs()
        )),
        (asked, most) => Ok(asked.or(most)),
    }
}

#[cfg(test)]
mod tests;
