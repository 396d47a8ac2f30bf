//! Which entries are to be: custom resources, pods, nodes and services in, registration entries out. No I/O, no clock.

mod pod;
mod rule;
mod static_entry;

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use identity::{EntryError, EntryId, RegistrationEntry, Selectors, SpiffeId, TrustDomain};

pub(in crate::controller) use pod::service_names;
pub use pod::{Node, Pod, PodError, render};
pub use rule::Rule;
pub(crate) use rule::read_selector;
pub use static_entry::static_entry;

/// What makes two entries the same one to a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Whom the workload becomes.
    pub spiffe_id: SpiffeId,
    /// Under whom.
    pub parent_id: SpiffeId,
    /// What it must match.
    pub selectors: Selectors,
}

impl Key {
    /// The UIDs of the pods that the selectors name.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        let of_kubernetes = self
            .selectors
            .iter()
            .filter(|selector| selector.kind() == "k8s");
        of_kubernetes.filter_map(|selector| selector.value().strip_prefix("pod-uid:"))
    }
}

/// An entry that is to be, without an ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What makes it this entry.
    pub key: Key,
    /// Lifetime of X.509-SVIDs.
    pub x509_svid_ttl: Option<Duration>,
    /// Lifetime of JWT-SVIDs.
    pub jwt_svid_ttl: Option<Duration>,
    /// Foreign trust domains.
    pub federates_with: BTreeSet<TrustDomain>,
    /// Administrates the server.
    pub admin: bool,
    /// Asks for downstream CAs.
    pub downstream: bool,
    /// DNS names; the first is the common name.
    pub dns_names: Vec<String>,
    /// Tells the identity from others.
    pub hint: String,
    /// Goes to a secret store.
    pub store_svid: bool,
}

impl Wanted {
    /// What an entry of the server is, seen as something that is to be.
    #[must_use]
    pub fn of(entry: &RegistrationEntry) -> Self {
        Self {
            key: Key {
                spiffe_id: entry.spiffe_id.clone(),
                parent_id: entry.parent_id.clone(),
                selectors: entry.selectors.clone(),
            },
            x509_svid_ttl: entry.x509_svid_ttl,
            jwt_svid_ttl: entry.jwt_svid_ttl,
            federates_with: entry.federates_with.clone(),
            admin: entry.admin,
            downstream: entry.downstream,
            dns_names: entry.dns_names.clone(),
            hint: entry.hint.clone(),
            store_svid: entry.store_svid,
        }
    }

    /// As an entry under `id`.
    #[must_use]
    pub fn entry(&self, id: EntryId) -> RegistrationEntry {
        RegistrationEntry {
            id,
            spiffe_id: self.key.spiffe_id.clone(),
            parent_id: self.key.parent_id.clone(),
            selectors: self.key.selectors.clone(),
            x509_svid_ttl: self.x509_svid_ttl,
            jwt_svid_ttl: self.jwt_svid_ttl,
            federates_with: self.federates_with.clone(),
            admin: self.admin,
            downstream: self.downstream,
            expires_at: None,
            dns_names: self.dns_names.clone(),
            revision: 0,
            store_svid: self.store_svid,
            hint: self.hint.clone(),
            created_at: UNIX_EPOCH,
            disable_x509_svid_prefetch: false,
            jwt_svid_include_jti: false,
        }
    }

    /// In what `other`, under the same key, differs. DNS names are a set, as a server may keep them so.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let names = |wanted: &Self| wanted.dns_names.iter().cloned().collect::<BTreeSet<_>>();
        let differ = [
            ("X.509-SVID TTL", self.x509_svid_ttl != other.x509_svid_ttl),
            ("JWT-SVID TTL", self.jwt_svid_ttl != other.jwt_svid_ttl),
            ("federatesWith", self.federates_with != other.federates_with),
            ("admin", self.admin != other.admin),
            ("downstream", self.downstream != other.downstream),
            ("DNS names", names(self) != names(other)),
            ("hint", self.hint != other.hint),
            ("storeSVID", self.store_svid != other.store_svid),
        ];
        let differ = differ.into_iter().filter(|(_, differs)| *differs);
        differ.map(|(name, _)| name).collect()
    }

    /// Checks it by the rules of a server of `trust_domain`.
    fn validate(&self, trust_domain: &TrustDomain) -> Result<(), EntryError> {
        self.entry(EntryId::new("x")?).validate(trust_domain)
    }
}

/// The resource that declares an entry, as far as it decides which of several declarations holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Whether it is a namespace's own, which never holds against one for the cluster.
    pub tenant: bool,
    /// When the resource was created, as Kubernetes writes it; older ones hold.
    pub created: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its UID, lower ones hold.
    pub uid: String,
}

/// A Go duration of a resource as a lifetime; 0 and nothing mean the server's default.
pub(in crate::controller) fn lifetime(text: Option<&str>) -> Result<Option<Duration>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed = runtime::config::parse_duration(text);
    let parsed =
        parsed.ok_or_else(|| format!("{text:?} is not a duration such as \"1h\" or \"30m\""))?;
    // The wire counts seconds, in 31 bits.
    let whole = Duration::from_secs(parsed.as_secs());
    if i32::try_from(whole.as_secs()).is_err() {
        return Err(format!("{text:?} is longer than 68 years"));
    }
    Ok((!whole.is_zero()).then_some(whole))
}

#[cfg(test)]
mod tests;
