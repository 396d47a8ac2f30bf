#![allow(unreachable_pub, reason = "the derive repeats the type out of reach")]
#![allow(clippy::duplicated_attributes, reason = "columns of one type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TRUST_DOMAIN;

/// A foreign trust domain whose bundle the server fetches.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "spire.spiffe.io",
    version = "v1alpha1",
    kind = "ClusterFederatedTrustDomain",
    plural = "clusterfederatedtrustdomains",
    singular = "clusterfederatedtrustdomain",
    status = "ClusterFederatedTrustDomainStatus",
    derive = "PartialEq",
    doc = "ClusterFederatedTrustDomain is a foreign trust domain whose bundle the server fetches.",
    printcolumn(
        name = "Trust Domain",
        type_ = "string",
        json_path = ".spec.trustDomain"
    ),
    printcolumn(
        name = "Endpoint URL",
        type_ = "string",
        json_path = ".spec.bundleEndpointURL"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFederatedTrustDomainSpec {
    /// Its name.
    #[schemars(regex(pattern = TRUST_DOMAIN))]
    pub trust_domain: String,
    /// Where its bundle is.
    #[serde(rename = "bundleEndpointURL")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.startsWith('https://')", "a bundle endpoint is an https URL, for example https://spire.example.org:8443"))]
    pub bundle_endpoint_url: String,
    /// How the endpoint is known to be right.
    pub bundle_endpoint_profile: BundleEndpointProfile,
    /// Its bundle to begin with, as a SPIFFE JSON document; `https_spiffe` needs one from here or from elsewhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trust_domain_bundle: String,
    /// Which controller is to take it: the one whose `className` is the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class_name: String,
}

/// How a bundle endpoint authenticates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = (
    "self.type == 'https_spiffe' ? has(self.endpointSPIFFEID) && self.endpointSPIFFEID != '' : !has(self.endpointSPIFFEID) || self.endpointSPIFFEID == ''",
    "https_spiffe needs endpointSPIFFEID, https_web must not have it"
))]
pub struct BundleEndpointProfile {
    /// `https_spiffe` (an SVID) or `https_web` (a certificate of the web).
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["https_spiffe", "https_web"]))]
    pub kind: String,
    /// The endpoint's SPIFFE ID; with `https_spiffe` only.
    #[serde(
        default,
        rename = "endpointSPIFFEID",
        skip_serializing_if = "String::is_empty"
    )]
    #[schemars(length(max = 2048))]
    pub endpoint_spiffe_id: String,
}

/// What the controller made of a ClusterFederatedTrustDomain.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterFederatedTrustDomainStatus {
    /// `Ready`: the server has the relationship. `Degraded`: it cannot have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The sequence number of the bundle that the server has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_sequence: Option<i64>,
    /// The generation that this status is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
