#![allow(unreachable_pub, reason = "the derive repeats the type out of reach")]
#![allow(clippy::duplicated_attributes, reason = "columns of one type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DURATION;

/// Which pods get which SPIFFE ID. Every pod that both selectors take is registered under the ID that the template makes.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "spire.spiffe.io",
    version = "v1alpha1",
    kind = "ClusterSPIFFEID",
    plural = "clusterspiffeids",
    singular = "clusterspiffeid",
    status = "ClusterSPIFFEIDStatus",
    derive = "PartialEq",
    doc = "ClusterSPIFFEID says which pods are registered under which SPIFFE ID.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Pods",
        type_ = "integer",
        json_path = ".status.stats.podsSelected"
    ),
    printcolumn(
        name = "Entries",
        type_ = "integer",
        json_path = ".status.stats.entriesToSet"
    ),
    printcolumn(
        name = "Failures",
        type_ = "integer",
        json_path = ".status.stats.entryFailures"
    ),
    printcolumn(
        name = "Template",
        type_ = "string",
        json_path = ".spec.spiffeIDTemplate",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSPIFFEIDSpec {
    /// Makes the SPIFFE ID: a Go text/template over `.TrustDomain`, `.ClusterName`, `.ClusterDomain`, `.PodMeta`, `.PodSpec`, `.NodeMeta`, `.NodeSpec`.
    #[serde(rename = "spiffeIDTemplate")]
    #[schemars(length(min = 1, max = 8192))]
    pub spiffe_id_template: String,
    /// The pods, by their labels; all when absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// The pods' namespaces, by their labels; all when absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Make DNS names of the SVID, by the rules of `spiffeIDTemplate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 8192)))]
    pub dns_name_templates: Vec<String>,
    /// Make selectors, written `type:value`, that a workload must match besides being of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)))]
    #[x_kube(validation = ("self.all(selector, selector.contains(':'))", "a selector is written type:value, for example k8s:container-name:app"))]
    pub workload_selector_templates: Vec<String>,
    /// Lifetime of X.509-SVIDs, such as `1h`; the server's default when absent or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub ttl: Option<String>,
    /// Lifetime of JWT-SVIDs, such as `5m`; the server's default when absent or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub jwt_ttl: Option<String>,
    /// Trust domains whose bundles the workloads receive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
    /// Whether the SVIDs may administrate the server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Whether the SVIDs may ask for a downstream CA.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub downstream: bool,
    /// Whether the names of the services that lead to the pod become DNS names of its SVID.
    #[serde(
        default,
        rename = "autoPopulateDNSNames",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub auto_populate_dns_names: bool,
    /// Whether this one is only for pods that no other ClusterSPIFFEID registers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fallback: bool,
    /// Which controller is to take it: the one whose `className` is the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class_name: String,
    /// Tells this identity from the workload's others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub hint: String,
}

/// What the controller made of a ClusterSPIFFEID.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSPIFFEIDStatus {
    /// Figures of the last look at all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<ClusterSPIFFEIDStats>,
    /// `Ready`: every selected pod that has a node is registered. `Degraded`: something of it fails; entries are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Figures of a ClusterSPIFFEID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSPIFFEIDStats {
    /// Namespaces that the selector takes.
    pub namespaces_selected: i64,
    /// Of them, those that the controller's config excludes.
    pub namespaces_ignored: i64,
    /// Pods that the selectors take.
    pub pods_selected: i64,
    /// Of them, those for which a template fails.
    pub pod_entry_render_failures: i64,
    /// Entries that another resource already declares.
    pub entries_masked: i64,
    /// Entries that are to be.
    pub entries_to_set: i64,
    /// Of them, those that the server refused.
    pub entry_failures: i64,
}
