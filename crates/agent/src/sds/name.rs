//! What a resource name asks for.

use std::sync::Arc;

use identity::{SpiffeId, TrustDomain};
use prost_types::value::Kind;
use proto::discovery::Node;

use super::{AllowList, Options};

/// The node metadata by which one Envoy says which of its workload's identities is its default.
const HINT_KEY: &str = "default_svid_hint";

/// Before the hint of a registration entry: the name of that entry's certificate.
const HINT_PREFIX: &str = "hint:";

/// What a name stands for. The kind of a name never changes: a certificate's name is never answered with a validation
/// context, nor the other way round, which Envoy would take as "trust everybody".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The certificate of the workload's first identity.
    DefaultSvid,
    /// The certificate of the first identity with this hint; of the workload's first when none has it.
    PreferredSvid(Arc<str>),
    /// The certificate of the first identity with this hint.
    HintedSvid(Arc<str>),
    /// The certificate of this identity.
    Svid(SpiffeId),
    /// The bundle of the agent's own trust domain.
    OwnBundle,
    /// The bundle of this trust domain.
    Bundle(TrustDomain),
    /// All bundles the workload may have.
    AllBundles,
    /// The bundles of these peers' trust domains, and these peers alone.
    Allowed(Arc<AllowList>),
    /// A file, as Istio's proxies ask for them by the name `file-root:…` or `file-cert:…`.
    IstioFile,
    /// Nothing.
    Unknown,
}

impl Name {
    /// Reads a name. The names of the options go first; of two equal ones, the certificate's, then the own bundle's.
    #[must_use]
    pub fn read(text: &str, options: &Options) -> Self {
        Self::read_for(None, text, options)
    }

    /// As [`Name::read`], for an Envoy that says by this hint which identity is its default.
    #[must_use]
    pub fn read_for(hint: Option<&str>, text: &str, options: &Options) -> Self {
        if text == options.default_svid_name {
            let hint = hint.or(options.default_svid_hint.as_deref());
            return hint.map_or(Self::DefaultSvid, |hint| Self::PreferredSvid(hint.into()));
        }
        if text == options.default_bundle_name {
            return Self::OwnBundle;
        }
        if text == options.default_all_bundles_name {
            return Self::AllBundles;
        }
        if let Some(list) = options.allow_lists.get(text) {
            return Self::Allowed(Arc::clone(list));
        }
        if let Some(hint) = text
            .strip_prefix(HINT_PREFIX)
            .filter(|hint| !hint.is_empty())
        {
            return Self::HintedSvid(hint.into());
        }
        if text.starts_with("file-root:") || text.starts_with("file-cert:") {
            return Self::IstioFile;
        }
        match SpiffeId::parse(text) {
            Ok(id) if id.path().is_empty() => Self::Bundle(id.trust_domain().clone()),
            Ok(id) => Self::Svid(id),
            Err(_) => Self::Unknown,
        }
    }

    /// The hint of the identity that is the default of the Envoy that describes itself like this.
    #[must_use]
    pub fn hint_of(node: &Node) -> Option<&str> {
        let value = node.metadata.as_ref()?.fields.get(HINT_KEY)?;
        match value.kind.as_ref()? {
            Kind::StringValue(hint) if !hint.is_empty() => Some(hint),
            _ => None,
        }
    }

    /// Whether it stands for trust bundles rather than for a certificate.
    #[must_use]
    pub const fn is_bundle(&self) -> bool {
        matches!(
            self,
            Self::OwnBundle | Self::Bundle(_) | Self::AllBundles | Self::Allowed(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_stand_for() {
        let options = Options::default();
        let trust_domain = TrustDomain::new("example.org").unwrap();
        let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
        for (text, name) in [
            ("default", Name::DefaultSvid),
            ("ROOTCA", Name::OwnBundle),
            ("ALL", Name::AllBundles),
            ("spiffe://example.org", Name::Bundle(trust_domain)),
            ("spiffe://example.org/web", Name::Svid(id)),
            ("file-root:system", Name::IstioFile),
            ("file-cert:/etc/a.pem~/etc/b.pem", Name::IstioFile),
            ("", Name::Unknown),
            ("*", Name::Unknown),
            ("rootca", Name::Unknown),
            ("example.org", Name::Unknown),
            ("spiffe://example.org/", Name::Unknown),
            ("https://example.org/web", Name::Unknown),
        ] {
            assert_eq!(Name::read(text, &options), name, "{text}");
        }
    }

    /// As Istio's federation recipe renames them.
    #[test]
    fn names_can_be_given_to_another() {
        let options = Options {
            default_bundle_name: "null".to_owned(),
            default_all_bundles_name: "ROOTCA".to_owned(),
            ..Options::default()
        };
        assert_eq!(Name::read("ROOTCA", &options), Name::AllBundles);
        assert_eq!(Name::read("null", &options), Name::OwnBundle);
        assert_eq!(Name::read("ALL", &options), Name::Unknown);
    }
}
