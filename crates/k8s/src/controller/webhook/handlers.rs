//! From a review of a custom resource to its answer, on the paths of SPIRE's controller manager.

use std::sync::Arc;

use serde_json::Value;

use crate::admission::review::{AdmissionRequest, Answer};
use crate::admission::server::{Handler, Handling, Routes};
use crate::controller::template::Scope;
use crate::controller::validate::{self, Problem, Warnings};

/// Says how much a ClusterSPIFFEID's selectors catch, when that is too much.
pub(super) type Lint = Arc<dyn Fn(&Value) -> Option<String> + Send + Sync>;

type Validate = fn(&Value, &Scope) -> Result<Warnings, Vec<Problem>>;

/// The handlers of all kinds.
pub(super) fn routes(scope: &Scope, lint: &Lint) -> Routes {
    let of = |validate: Validate, lint: Option<Lint>| Custom {
        validate,
        lint,
        scope: scope.clone(),
    };
    Routes::new()
        .with(
            "/validate-spire-spiffe-io-v1alpha1-clusterspiffeid",
            of(validate::cluster_spiffe_id, Some(Arc::clone(lint))),
        )
        .with(
            "/validate-signet-dev-v1alpha1-workloadspiffeid",
            of(validate::workload_spiffe_id, None),
        )
        .with(
            "/validate-spire-spiffe-io-v1alpha1-clusterstaticentry",
            of(validate::cluster_static_entry, None),
        )
        .with(
            "/validate-spire-spiffe-io-v1alpha1-clusterfederatedtrustdomain",
            of(validate::cluster_federated_trust_domain, None),
        )
}

struct Custom {
    validate: Validate,
    lint: Option<Lint>,
    scope: Scope,
}

impl Custom {
    fn answer(&self, request: &AdmissionRequest) -> Answer {
        if !matches!(request.operation.as_str(), "CREATE" | "UPDATE")
            || !request.sub_resource.is_empty()
        {
            return Answer::allow();
        }
        let Some(object) = &request.object else {
            return Answer::deny(400, "BadRequest", "the request holds no object");
        };
        // An object on its way out is only rid of its finalizers.
        if object
            .pointer("/metadata/deletionTimestamp")
            .is_some_and(Value::is_string)
        {
            return Answer::allow();
        }
        match (self.validate)(object, &self.scope) {
            Ok(mut warnings) => {
                let lint = self.lint.as_ref();
                warnings
                    .extend(lint.and_then(|lint| lint(object.get("spec").unwrap_or(&Value::Null))));
                Answer {
                    warnings,
                    ..Answer::allow()
                }
            }
            Err(problems) => {
                let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
                Answer::invalid(all.join("; "))
            }
        }
    }
}

impl Handler for Custom {
    fn handle(&self, request: AdmissionRequest) -> Handling<'_> {
        Box::pin(std::future::ready(Ok(self.answer(&request))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(operation: &str, spec: Value) -> Answer {
        let scope = Scope {
            trust_domain: identity::TrustDomain::new("example.org").unwrap(),
            cluster_name: "demo".to_owned(),
            cluster_domain: None,
        };
        let lint: Lint = Arc::new(|spec| {
            spec.get("podSelector")
                .is_none()
                .then(|| "selects 7 pods".to_owned())
        });
        let custom = Custom {
            validate: validate::cluster_spiffe_id,
            lint: Some(lint),
            scope,
        };
        let object = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ClusterSPIFFEID",
            "metadata": {"name": "web"},
            "spec": spec,
        });
        custom.answer(&AdmissionRequest {
            operation: operation.to_owned(),
            object: (operation != "DELETE").then_some(object),
            ..AdmissionRequest::default()
        })
    }

    #[test]
    fn ctl_12_a_good_resource_passes_with_a_word_on_its_reach() {
        let template = "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}";
        let good = answer(
            "CREATE",
            json!({"spiffeIDTemplate": template, "podSelector": {"matchLabels": {"app": "web"}}}),
        );
        assert_eq!(good.denied, None);
        let broad = answer("UPDATE", json!({"spiffeIDTemplate": template}));
        assert_eq!(broad.denied, None);
        assert!(
            broad.warnings.contains(&"selects 7 pods".to_owned()),
            "{:?}",
            broad.warnings
        );
    }

    #[test]
    fn ctl_12_a_broken_resource_is_refused_with_the_path_of_each_mistake() {
        let bad = answer(
            "CREATE",
            json!({"spiffeIDTemplate": "spiffe://{{ .Nope }", "ttl": "x"}),
        );
        let denial = bad.denied.unwrap();
        assert_eq!(denial.code, 422);
        assert!(
            denial.message.contains("spec.spiffeIDTemplate"),
            "{}",
            denial.message
        );
        assert_eq!(answer("DELETE", json!({})), Answer::allow());
    }
}
