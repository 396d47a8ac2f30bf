use identity::{EntryError, Selector, SpiffeId};
use runtime::config::Problem;

use super::rule::federated;
use super::{Key, Wanted, lifetime};
use crate::controller::crd::ClusterStaticEntrySpec;
use crate::controller::template::Scope;

/// The entry of a ClusterStaticEntry.
///
/// # Errors
/// Everything that is wrong with it, each with its path.
pub fn static_entry(spec: &ClusterStaticEntrySpec, scope: &Scope) -> Result<Wanted, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut problem = |path: String, message: String| problems.push(Problem { path, message });
    let mut id = |name: &str, text: &str| {
        let parsed = SpiffeId::parse(text);
        parsed
            .map_err(|error| problem(format!("spec.{name}"), format!("{text:?}: {error}")))
            .ok()
    };
    let spiffe_id = id("spiffeID", &spec.spiffe_id);
    let parent_id = id("parentID", &spec.parent_id);
    let mut selectors = Vec::new();
    for (at, text) in spec.selectors.iter().enumerate() {
        match Selector::parse(text) {
            Ok(selector) => selectors.push(selector),
            Err(error) => problem(
                format!("spec.selectors[{at}]"),
                format!("{text:?}: {error}"),
            ),
        }
    }
    let mut ttl = |name: &str, text: Option<&str>| {
        lifetime(text).unwrap_or_else(|message| {
            problem(format!("spec.{name}"), message);
            None
        })
    };
    let x509_svid_ttl = ttl("x509SVIDTTL", spec.x509_svid_ttl.as_deref());
    let jwt_svid_ttl = ttl("jwtSVIDTTL", spec.jwt_svid_ttl.as_deref());
    let federates_with = federated(&spec.federates_with, scope, &mut problem);
    let (Some(spiffe_id), Some(parent_id), true) = (spiffe_id, parent_id, problems.is_empty())
    else {
        return Err(problems);
    };
    let wanted = Wanted {
        key: Key {
            spiffe_id,
            parent_id,
            selectors: selectors.into_iter().collect(),
        },
        x509_svid_ttl,
        jwt_svid_ttl,
        federates_with,
        admin: spec.admin,
        downstream: spec.downstream,
        dns_names: spec.dns_names.clone(),
        hint: spec.hint.clone(),
        store_svid: spec.store_svid,
    };
    match wanted.validate(&scope.trust_domain) {
        Ok(()) => Ok(wanted),
        Err(error) => Err(vec![Problem {
            path: format!("spec{}", field(&error)),
            message: error.to_string(),
        }]),
    }
}

/// The field that is wrong.
const fn field(error: &EntryError) -> &'static str {
    match error {
        EntryError::ForeignSpiffeId { .. } | EntryError::NoPath(_) | EntryError::Reserved(_) => {
            ".spiffeID"
        }
        EntryError::ForeignParent { .. } | EntryError::ParentNoPath(_) => ".parentID",
        EntryError::NoSelectors | EntryError::StoredSelectorTypes => ".selectors",
        EntryError::DnsName(_) | EntryError::DuplicateDnsName(_) => ".dnsNames",
        EntryError::HintTooLong => ".hint",
        EntryError::FederatesWithItself(_) => ".federatesWith",
        _ => "",
    }
}
