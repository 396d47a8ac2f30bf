//! The custom resources, by the field names and types of SPIRE's controller manager, so that manifests written for it apply
//! unchanged. What is added: conditions, `observedGeneration`, printer columns and rules that the API server checks; and a kind of
//! our own for namespaces, in a group of our own, where it clashes with nobody's.

mod cluster_federated_trust_domain;
mod cluster_spiffe_id;
mod cluster_static_entry;
mod workload_spiffe_id;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use cluster_federated_trust_domain::{
    BundleEndpointProfile, ClusterFederatedTrustDomain, ClusterFederatedTrustDomainSpec,
    ClusterFederatedTrustDomainStatus,
};
pub use cluster_spiffe_id::{
    ClusterSPIFFEID, ClusterSPIFFEIDSpec, ClusterSPIFFEIDStats, ClusterSPIFFEIDStatus,
};
pub use cluster_static_entry::{
    ClusterStaticEntry, ClusterStaticEntrySpec, ClusterStaticEntryStatus,
};

pub use workload_spiffe_id::{
    WorkloadSPIFFEID, WorkloadSPIFFEIDSpec, WorkloadSPIFFEIDStats, WorkloadSPIFFEIDStatus,
};

/// The resources' API group.
pub const GROUP: &str = "spire.spiffe.io";

/// The resources' only version.
pub const VERSION: &str = "v1alpha1";

/// Go's notation of a duration, as the schemas' pattern.
const DURATION: &str = r"^(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))*)$";

/// A trust domain's name; SPIRE's controller manager takes it with the scheme too.
const TRUST_DOMAIN: &str = "^(spiffe://)?[a-z0-9._-]{1,255}$";

/// All definitions: SPIRE's three, and that of tenants.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        ClusterSPIFFEID::crd(),
        ClusterStaticEntry::crd(),
        ClusterFederatedTrustDomain::crd(),
        WorkloadSPIFFEID::crd(),
    ]
}

/// The definitions as files: name and YAML. `manifests/crds` holds them.
///
/// # Errors
/// When a definition cannot be written as YAML; that would be a mistake of this program.
pub fn manifests() -> Result<Vec<(String, String)>, serde_saphyr::SerializeError> {
    let manifest = |crd: CustomResourceDefinition| {
        let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
        let mut json = serde_json::to_value(&crd).unwrap_or_default();
        if let Some(object) = json.as_object_mut() {
            object.remove("status");
        }
        Ok((name, serde_saphyr::to_string(&json)?))
    };
    all().into_iter().map(manifest).collect()
}

#[cfg(test)]
mod tests;
