use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use identity::{MAX_HINT_LEN, TrustDomain};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use runtime::config::Problem;

use super::lifetime;
use crate::controller::crd::ClusterSPIFFEIDSpec;
use crate::controller::template::{Scope, Sees, Template};

/// A ClusterSPIFFEID, read.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) id: Template,
    pub(super) dns_names: Vec<Template>,
    pub(super) selectors: Vec<Template>,
    pods: Selector,
    namespaces: Selector,
    pub(super) x509_svid_ttl: Option<Duration>,
    pub(super) jwt_svid_ttl: Option<Duration>,
    pub(super) federates_with: BTreeSet<TrustDomain>,
    pub(super) admin: bool,
    pub(super) downstream: bool,
    pub(super) service_names: bool,
    /// Whether it is only for pods without another entry.
    pub fallback: bool,
    pub(super) hint: String,
}

impl Rule {
    /// Reads a spec.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its path.
    pub fn compile(spec: &ClusterSPIFFEIDSpec, scope: &Scope) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |path: String, message: String| problems.push(Problem { path, message });
        let mut template = |path: String, text: &str| {
            let compiled = Template::compile(text, Sees::Pod);
            compiled
                .map_err(|error| problem(path, error.to_string()))
                .ok()
        };
        let id = template("spec.spiffeIDTemplate".to_owned(), &spec.spiffe_id_template);
        let mut all = |name: &str, texts: &[String]| -> Vec<Template> {
            let each = texts.iter().enumerate();
            each.filter_map(|(at, text)| template(format!("spec.{name}[{at}]"), text))
                .collect()
        };
        let dns_names = all("dnsNameTemplates", &spec.dns_name_templates);
        let selectors = all(
            "workloadSelectorTemplates",
            &spec.workload_selector_templates,
        );
        let mut selector = |name: &str, selector: Option<&LabelSelector>| {
            let read = read_selector(selector);
            read.map_err(|message| problem(format!("spec.{name}"), message))
                .ok()
        };
        let pods = selector("podSelector", spec.pod_selector.as_ref());
        let namespaces = selector("namespaceSelector", spec.namespace_selector.as_ref());
        let mut ttl = |name: &str, text: Option<&str>| {
            lifetime(text).unwrap_or_else(|message| {
                problem(format!("spec.{name}"), message);
                None
            })
        };
        let x509_svid_ttl = ttl("ttl", spec.ttl.as_deref());
        let jwt_svid_ttl = ttl("jwtTtl", spec.jwt_ttl.as_deref());
        let federates_with = federated(&spec.federates_with, scope, &mut problem);
        if spec.hint.len() > MAX_HINT_LEN {
            problem(
                "spec.hint".to_owned(),
                format!("longer than {MAX_HINT_LEN} bytes"),
            );
        }
        match (id, pods, namespaces) {
            (Some(id), Some(pods), Some(namespaces)) if problems.is_empty() => Ok(Self {
                id,
                dns_names,
                selectors,
                pods,
                namespaces,
                x509_svid_ttl,
                jwt_svid_ttl,
                federates_with,
                admin: spec.admin,
                downstream: spec.downstream,
                service_names: spec.auto_populate_dns_names,
                fallback: spec.fallback,
                hint: spec.hint.clone(),
            }),
            _ => Err(problems),
        }
    }

    /// Whether the namespace selector takes a namespace with these labels.
    #[must_use]
    pub fn takes_namespace(&self, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.matches(labels)
    }

    /// Whether the pod selector takes a pod with these labels.
    #[must_use]
    pub fn takes_pod(&self, labels: &BTreeMap<String, String>) -> bool {
        self.pods.matches(labels)
    }

    /// Whether it takes every pod of every namespace.
    #[must_use]
    pub fn takes_everything(&self) -> bool {
        self.pods.selects_all() && self.namespaces.selects_all()
    }

    /// Whether its DNS names hang on services.
    #[must_use]
    pub const fn wants_services(&self) -> bool {
        self.service_names
    }
}

/// Reads a selector of labels; an absent one takes everything.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read_selector(selector: Option<&LabelSelector>) -> Result<Selector, String> {
    let selector = selector.cloned().unwrap_or_default();
    for requirement in selector.match_expressions.iter().flatten() {
        let values = requirement.values.as_ref().map_or(0, Vec::len);
        match (requirement.operator.as_str(), values) {
            ("In" | "NotIn", 0) => {
                return Err(format!(
                    "{}: `{}` wants values",
                    requirement.key, requirement.operator
                ));
            }
            ("Exists" | "DoesNotExist", 1..) => {
                return Err(format!(
                    "{}: `{}` takes no values",
                    requirement.key, requirement.operator
                ));
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => {
                return Err(format!(
                    "{}: {other:?} is not one of In, NotIn, Exists, DoesNotExist",
                    requirement.key
                ));
            }
        }
    }
    selector
        .try_into()
        .map_err(|error: kube::core::ParseExpressionError| error.to_string())
}

/// Reads names of foreign trust domains.
pub(super) fn federated(
    names: &[String],
    scope: &Scope,
    problem: &mut impl FnMut(String, String),
) -> BTreeSet<TrustDomain> {
    let mut all = BTreeSet::new();
    for (at, name) in names.iter().enumerate() {
        let path = || format!("spec.federatesWith[{at}]");
        match TrustDomain::parse(name) {
            Ok(own) if own == scope.trust_domain => problem(
                path(),
                format!("{own} is the server's own trust domain; leave it out"),
            ),
            Ok(foreign) => drop(all.insert(foreign)),
            Err(error) => problem(path(), format!("{name:?}: {error}")),
        }
    }
    all
}
