#![allow(unreachable_pub, reason = "the derive repeats the type out of reach")]
#![allow(clippy::duplicated_attributes, reason = "columns of one type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DURATION;

/// One registration entry, as it is.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "spire.spiffe.io",
    version = "v1alpha1",
    kind = "ClusterStaticEntry",
    plural = "clusterstaticentries",
    singular = "clusterstaticentry",
    status = "ClusterStaticEntryStatus",
    derive = "PartialEq",
    doc = "ClusterStaticEntry is one registration entry.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "SPIFFE ID", type_ = "string", json_path = ".spec.spiffeID"),
    printcolumn(
        name = "Parent",
        type_ = "string",
        json_path = ".spec.parentID",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStaticEntrySpec {
    /// Whom the workload becomes.
    #[serde(rename = "spiffeID")]
    #[schemars(length(min = 1, max = 2048))]
    pub spiffe_id: String,
    /// Under which agent, node alias or server.
    #[serde(rename = "parentID")]
    #[schemars(length(min = 1, max = 2048))]
    pub parent_id: String,
    /// What the workload must match, each written `type:value`.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4352)))]
    #[x_kube(validation = ("self.all(selector, selector.contains(':'))", "a selector is written type:value, for example unix:uid:1000"))]
    pub selectors: Vec<String>,
    /// Trust domains whose bundles the workload receives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
    /// Lifetime of X.509-SVIDs, such as `1h`; the server's default when absent or 0.
    #[serde(
        default,
        rename = "x509SVIDTTL",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(regex(pattern = DURATION))]
    pub x509_svid_ttl: Option<String>,
    /// Lifetime of JWT-SVIDs, such as `5m`; the server's default when absent or 0.
    #[serde(
        default,
        rename = "jwtSVIDTTL",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(regex(pattern = DURATION))]
    pub jwt_svid_ttl: Option<String>,
    /// DNS names of the SVID.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Tells this identity from the workload's others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub hint: String,
    /// Whether the SVID may administrate the server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Whether the SVID may ask for a downstream CA.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub downstream: bool,
    /// Whether the SVID goes to a secret store instead of a workload.
    #[serde(
        default,
        rename = "storeSVID",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub store_svid: bool,
    /// Which controller is to take it: the one whose `className` is the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class_name: String,
}

/// What the controller made of a ClusterStaticEntry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStaticEntryStatus {
    /// Whether the spec is an entry.
    pub rendered: bool,
    /// Whether another resource already declares the entry.
    pub masked: bool,
    /// Whether the server has the entry.
    pub set: bool,
    /// `Ready`: the server has the entry. `Degraded`: it cannot have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation that this status is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
