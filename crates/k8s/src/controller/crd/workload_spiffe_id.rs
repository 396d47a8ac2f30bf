#![allow(unreachable_pub, reason = "the derive repeats the type out of reach")]
#![allow(clippy::duplicated_attributes, reason = "columns of one type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClusterSPIFFEIDSpec, DURATION};

/// Which pods of the resource's own namespace get which SPIFFE ID, within what the operator allows that namespace.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "signet.dev",
    version = "v1alpha1",
    kind = "WorkloadSPIFFEID",
    plural = "workloadspiffeids",
    singular = "workloadspiffeid",
    namespaced,
    status = "WorkloadSPIFFEIDStatus",
    derive = "PartialEq",
    doc = "WorkloadSPIFFEID says which pods of its namespace are registered under which SPIFFE ID.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
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
pub struct WorkloadSPIFFEIDSpec {
    /// Makes the SPIFFE ID, by the rules of a ClusterSPIFFEID; it must lie below the path that the namespace is allowed.
    #[serde(rename = "spiffeIDTemplate")]
    #[schemars(length(min = 1, max = 8192))]
    pub spiffe_id_template: String,
    /// The pods, by their labels; all of the namespace when absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Make DNS names of the SVID; each must end as the namespace is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 8192)))]
    pub dns_name_templates: Vec<String>,
    /// Make selectors, written `type:value`, that a workload must match besides being of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 8192)))]
    #[x_kube(validation = ("self.all(selector, selector.contains(':'))", "a selector is written type:value, for example k8s:container-name:app"))]
    pub workload_selector_templates: Vec<String>,
    /// Lifetime of X.509-SVIDs, such as `1h`; when absent or 0, the longest that is allowed, or the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub ttl: Option<String>,
    /// Lifetime of JWT-SVIDs, such as `5m`; when absent or 0, the longest that is allowed, or the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION))]
    pub jwt_ttl: Option<String>,
    /// Trust domains whose bundles the workloads receive, of those that are allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
    /// Whether the names of the services that lead to the pod become DNS names of its SVID, as far as they are allowed.
    #[serde(
        default,
        rename = "autoPopulateDNSNames",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub auto_populate_dns_names: bool,
    /// Which controller is to take it: the one whose `className` is the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class_name: String,
    /// Tells this identity from the workload's others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub hint: String,
}

/// What a tenant cannot ask for is off.
impl From<WorkloadSPIFFEIDSpec> for ClusterSPIFFEIDSpec {
    fn from(spec: WorkloadSPIFFEIDSpec) -> Self {
        Self {
            spiffe_id_template: spec.spiffe_id_template,
            pod_selector: spec.pod_selector,
            namespace_selector: None,
            dns_name_templates: spec.dns_name_templates,
            workload_selector_templates: spec.workload_selector_templates,
            ttl: spec.ttl,
            jwt_ttl: spec.jwt_ttl,
            federates_with: spec.federates_with,
            admin: false,
            downstream: false,
            auto_populate_dns_names: spec.auto_populate_dns_names,
            fallback: false,
            class_name: spec.class_name,
            hint: spec.hint,
        }
    }
}

/// What the controller made of a WorkloadSPIFFEID.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSPIFFEIDStatus {
    /// Figures of the last look at the namespace's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<WorkloadSPIFFEIDStats>,
    /// `Ready`: every selected pod that has a node is registered. `Degraded`: something of it fails or is not allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Figures of a WorkloadSPIFFEID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSPIFFEIDStats {
    /// Pods that the selector takes.
    pub pods_selected: i64,
    /// Of them, those for which a template fails.
    pub pod_entry_render_failures: i64,
    /// Of them, those whose entry is not allowed.
    pub pods_refused: i64,
    /// Entries that another resource already declares.
    pub entries_masked: i64,
    /// Entries that are to be.
    pub entries_to_set: i64,
    /// Of them, those that the server refused.
    pub entry_failures: i64,
}
