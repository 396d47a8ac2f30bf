//! What is published, and where: the block `signet.bundle` of the controller's file.

use identity::Bundle;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use runtime::config::Section;
use serde_json::{Value as Json, json};

use crate::controller::desired::read_selector;

/// What is published, and where. Names and their defaults are those of SPIRE's `k8sbundle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The namespace that gets a ConfigMap whatever its labels; the process's own when absent.
    pub namespace: Option<String>,
    /// The other namespaces that get one; none when absent.
    pub selector: Option<Selector>,
    /// The ConfigMaps' name.
    pub config_map: String,
    /// The key of the bundle in them.
    pub key: String,
    /// How it is written there.
    pub format: Format,
    /// The ClusterTrustBundle, if there is to be one.
    pub trust_bundle: Option<TrustBundle>,
    /// Whether it is the `caBundle` of the webhooks, aggregated APIs and conversions that ask for it.
    pub ca_bundles: bool,
}

/// How a bundle is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The X.509 authorities as PEM.
    Pem,
    /// A SPIFFE bundle: X.509 and JWT authorities as JSON.
    Spiffe,
    /// The JWT authorities as a JWKS.
    Jwks,
}

impl Format {
    /// The bundle as text.
    #[must_use]
    pub fn write(self, bundle: &Bundle) -> String {
        match self {
            Self::Pem => bundle.to_pem(),
            Self::Spiffe => bundle.to_spiffe_json(),
            Self::Jwks => bundle.to_jwks(),
        }
    }
}

/// A ClusterTrustBundle; always PEM, as its API wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// Its name, the signer's part included.
    pub name: String,
    /// Its signer, if any.
    pub signer: Option<String>,
}

impl TrustBundle {
    /// The API server wants the signer's name before the bundle's.
    fn new(name: &str, signer: Option<String>) -> Self {
        let prefix = signer.as_ref().map(|signer| signer.replace('/', ":"));
        Self {
            name: prefix.map_or_else(|| name.to_owned(), |prefix| format!("{prefix}:{name}")),
            signer,
        }
    }
}

/// Reads the block `bundle`; none when there is none.
pub(crate) fn read(parent: &mut Section) -> Option<Config> {
    let section = &mut block(parent, "bundle")?;
    let name = name(section, "configMap").unwrap_or_else(|| "spire-bundle".to_owned());
    let key = section
        .get::<String>("configMapKey")
        .filter(|key| !key.is_empty())
        .unwrap_or_else(|| "bundle.crt".to_owned());
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if key.len() > 253 || !key.chars().all(legal) {
        section.problem("configMapKey", "use A-Z, a-z, 0-9, `.`, `_` and `-`");
    }
    let formats = [
        ("pem", Format::Pem),
        ("spiffe", Format::Spiffe),
        ("jwks", Format::Jwks),
    ];
    Some(Config {
        namespace: self::name(section, "namespace"),
        selector: block(section, "namespaceSelector").and_then(selector),
        ca_bundles: section.get("caBundles").unwrap_or(false),
        format: section.choice("format", &formats).unwrap_or(Format::Pem),
        trust_bundle: block(section, "clusterTrustBundle")
            .map(|section| trust_bundle(section, &name)),
        config_map: name,
        key,
    })
}

/// A block that is there, if only as `{}`; `null` is none.
fn block(parent: &mut Section, key: &str) -> Option<Section> {
    parent.has(key).then(|| parent.section(key))
}

/// A name as Kubernetes wants it.
fn name(section: &mut Section, key: &str) -> Option<String> {
    section.parse(key, |text| {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_name = text.len() <= 253
            && text.chars().all(legal)
            && text.starts_with(edge)
            && text.ends_with(edge);
        let hint = "is no name; use a-z, 0-9, `-` and `.`";
        is_name
            .then(|| text.to_owned())
            .ok_or_else(|| format!("{text:?} {hint}"))
    })
}

/// matchLabels and matchExpressions; without either, every namespace.
fn selector(mut section: Section) -> Option<Selector> {
    let labels = section.get::<Json>("matchLabels");
    let expressions = section.get::<Json>("matchExpressions");
    let given = json!({"matchLabels": labels, "matchExpressions": expressions});
    let read = serde_json::from_value::<LabelSelector>(given)
        .map_err(|error| error.to_string())
        .and_then(|selector| read_selector(Some(&selector)));
    read.map_err(|error| section.problem("", error)).ok()
}

fn trust_bundle(mut section: Section, default: &str) -> TrustBundle {
    let name = name(&mut section, "name");
    let signer = section.parse("signerName", |text| {
        let right = text.split_once('/').is_some_and(|(domain, path)| {
            domain.contains('.') && !path.is_empty() && !text.contains(':')
        });
        let hint = "is no signer; write it as example.org/name";
        right
            .then(|| text.to_owned())
            .ok_or_else(|| format!("{text:?} {hint}"))
    });
    TrustBundle::new(name.as_deref().unwrap_or(default), signer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::core::SelectorExt as _;

    use super::*;

    fn read(block: &str) -> Result<Option<Config>, String> {
        let text = format!("clusterName: c\ntrustDomain: example.org\nsignet:\n  {block}\n");
        crate::controller::config::read(&text, None)
            .map(|config| config.bundle)
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn defaults_are_those_of_k8sbundle() {
        for nothing in ["readyEndpointsOnly: true", "bundle: null"] {
            assert_eq!(read(nothing).unwrap(), None, "{nothing}");
        }
        let config = read("bundle: {namespaceSelector: null, clusterTrustBundle: null}");
        let config = config.unwrap().unwrap();
        let names = (config.config_map.as_str(), config.key.as_str());
        assert_eq!(names, ("spire-bundle", "bundle.crt"));
        assert_eq!(config.format, Format::Pem);
        assert_eq!((config.namespace, config.selector), (None, None));
        assert_eq!((config.trust_bundle, config.ca_bundles), (None, false));
    }

    #[test]
    fn names_selector_format_and_signer_can_be_given() {
        let config = read(
            "bundle: {namespace: spire, configMap: trust, configMapKey: b.json, format: spiffe, \
             namespaceSelector: {matchLabels: {a: b}}, caBundles: true, clusterTrustBundle: {signerName: corp.example/mesh}}",
        );
        let config = config.unwrap().unwrap();
        assert_eq!(config.namespace.as_deref(), Some("spire"));
        assert!(config.ca_bundles);
        let labels = |value: &str| BTreeMap::from([("a".to_owned(), value.to_owned())]);
        let selector = config.selector.unwrap();
        assert!(selector.matches(&labels("b")) && !selector.matches(&labels("c")));
        let trust_bundle = config.trust_bundle.unwrap();
        assert_eq!(trust_bundle.name, "corp.example:mesh:trust");
        assert_eq!(trust_bundle.signer.as_deref(), Some("corp.example/mesh"));
        let everywhere = read("bundle: {namespaceSelector: {}}").unwrap().unwrap();
        assert!(everywhere.selector.unwrap().matches(&labels("c")));
    }

    #[test]
    fn a_mistake_is_named_and_never_selects_everything() {
        for (block, expected) in [
            ("bundle: {configmap: x}", "signet.bundle.configmap"),
            ("bundle: {configMap: X_y}", "signet.bundle.configMap"),
            ("bundle: {configMapKey: a/b}", "signet.bundle.configMapKey"),
            ("bundle: {format: der}", "signet.bundle.format"),
            ("bundle: {caBundles: {}}", "signet.bundle.caBundles"),
            (
                "bundle: {namespaceSelector: {matchLabel: {a: b}}}",
                "namespaceSelector.matchLabel",
            ),
            (
                "bundle: {namespaceSelector: {matchLabels: [a]}}",
                "signet.bundle.namespaceSelector",
            ),
            (
                "bundle: {namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}}",
                "signet.bundle.namespaceSelector",
            ),
            (
                "bundle: {clusterTrustBundle: {signerName: mesh}}",
                "clusterTrustBundle.signerName",
            ),
        ] {
            let told = read(block).unwrap_err();
            assert!(told.contains(expected), "{block}: {told}");
        }
    }
}
