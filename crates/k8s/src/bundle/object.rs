//! ConfigMaps and ClusterTrustBundles as JSON: what is written, and what is seen.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use serde_json::{Value as Json, json};

use super::config::Config;
use super::plan::Target;

/// Who writes, in managed fields: owns the bundle and the mark, and nothing else.
pub(super) const MANAGER: &str = "signet-bundle";

/// Whose bundle it is, for people and for other installations.
const MARK: &str = "signet.dev/bundle-of";

/// An object as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// What stands where the bundle belongs.
    pub(super) content: Option<String>,
    /// Whose bundle it says it is.
    pub(super) trust_domain: Option<String>,
    /// Whether our field manager owns something of it.
    pub(super) is_managed: bool,
    /// All field managers, for people.
    pub(super) managers: String,
    pub(super) uid: Option<String>,
}

/// The names of what is published.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) config: Config,
    pub(super) trust_domain: String,
    /// How the cluster calls ClusterTrustBundles, once that is known.
    pub(super) trust_bundles: Option<ApiResource>,
}

impl Names {
    /// The kind of a target's object; none for a ClusterTrustBundle before the cluster is known to have them.
    pub(super) fn resource(&self, target: &Target) -> Option<ApiResource> {
        match target {
            Target::ConfigMap(_) => Some(ApiResource::erase::<ConfigMap>(&())),
            Target::TrustBundle => self.trust_bundles.clone(),
        }
    }

    /// The name of a target's object.
    pub(super) fn name(&self, target: &Target) -> &str {
        match (target, &self.config.trust_bundle) {
            (Target::TrustBundle, Some(bundle)) => &bundle.name,
            _ => &self.config.config_map,
        }
    }

    /// The target's object with this bundle: what is applied.
    pub(super) fn object(&self, target: &Target, resource: &ApiResource, content: &str) -> Json {
        let mut object = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {
                "name": self.name(target),
                "annotations": { MARK: self.trust_domain },
            },
        });
        match target {
            Target::ConfigMap(namespace) => {
                object["metadata"]["namespace"] = json!(namespace);
                object["data"] = json!({ &self.config.key: content });
            }
            Target::TrustBundle => {
                object["spec"] = json!({ "trustBundle": content });
                let bundle = self.config.trust_bundle.as_ref();
                if let Some(signer) = bundle.and_then(|bundle| bundle.signer.as_ref()) {
                    object["spec"]["signerName"] = json!(signer);
                }
            }
        }
        object
    }

    /// What matters of an object that is there.
    pub(super) fn seen(&self, object: &DynamicObject) -> Seen {
        let text = |value: Option<&Json>| value.and_then(Json::as_str).map(str::to_owned);
        let data = &object.data;
        let content = match data.get("spec") {
            Some(spec) => text(spec.get("trustBundle")),
            None => text(data.get("data").and_then(|data| data.get(&self.config.key))),
        };
        let annotations = object.metadata.annotations.as_ref();
        let entries = object.metadata.managed_fields.iter().flatten();
        let managers = entries.filter_map(|entry| entry.manager.as_deref());
        let mut managers: Vec<&str> = managers.collect();
        managers.dedup();
        Seen {
            content,
            trust_domain: annotations.and_then(|all| all.get(MARK)).cloned(),
            is_managed: managers.contains(&MANAGER),
            managers: managers.join(", "),
            uid: object.metadata.uid.clone(),
        }
    }
}

/// ClusterTrustBundles of this version of their API.
pub(super) fn trust_bundles(version: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk("certificates.k8s.io", version, "ClusterTrustBundle");
    ApiResource::from_gvk_with_plural(&kind, "clustertrustbundles")
}
