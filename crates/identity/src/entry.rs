//! Registration entries: which selectors make a workload which SPIFFE ID.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::id::{SpiffeId, TrustDomain};
use crate::selector::Selectors;

/// The longest hint, in bytes (SPIFFE Workload API §8).
pub const MAX_HINT_LEN: usize = 1024;

const MAX_ENTRY_ID_LEN: usize = 255;
const MAX_DNS_NAME_LEN: usize = 253;
const MAX_DNS_LABEL_LEN: usize = 63;

/// IDs below this path are the server's and the agents' own.
const RESERVED_PATH: &str = "/spire/";

/// Why an entry is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryError {
    /// A malformed entry ID.
    #[error("entry ID {0:?}: use 1 to {MAX_ENTRY_ID_LEN} of A-Z, a-z, 0-9, `.`, `_` and `-`")]
    Id(String),
    /// No selectors.
    #[error("the entry has no selectors; give at least one, for example `unix:uid:1000`")]
    NoSelectors,
    /// Foreign SPIFFE ID.
    #[error("SPIFFE ID {id} is not in the trust domain {trust_domain}")]
    ForeignSpiffeId {
        /// The entry's SPIFFE ID.
        id: SpiffeId,
        /// The server's trust domain.
        trust_domain: TrustDomain,
    },
    /// SPIFFE ID without a path.
    #[error("SPIFFE ID {0} has no path; a workload's ID needs one")]
    NoPath(SpiffeId),
    /// SPIFFE ID below the reserved path.
    #[error("SPIFFE ID {0} is below {RESERVED_PATH}, which is reserved")]
    Reserved(SpiffeId),
    /// Foreign parent ID.
    #[error("parent ID {id} is not in the trust domain {trust_domain}")]
    ForeignParent {
        /// The entry's parent ID.
        id: SpiffeId,
        /// The server's trust domain.
        trust_domain: TrustDomain,
    },
    /// Parent ID without a path.
    #[error(
        "parent ID {0} has no path; it is an agent's ID, a node alias, or spiffe://<trust domain>/spire/server"
    )]
    ParentNoPath(SpiffeId),
    /// A bad DNS name.
    #[error(
        "DNS name {0:?} is not one: labels of a-z, 0-9 and `-`, parted by dots; a wildcard only as the first label"
    )]
    DnsName(String),
    /// The same DNS name twice.
    #[error("DNS name {0:?} is given twice")]
    DuplicateDnsName(String),
    /// Too long a hint.
    #[error("the hint is longer than {MAX_HINT_LEN} bytes")]
    HintTooLong,
    /// Federates with itself.
    #[error("the entry federates with its own trust domain {0}; leave that out")]
    FederatesWithItself(TrustDomain),
    /// Selectors of several types for a stored SVID.
    #[error("an entry with `store_svid` takes selectors of one type only")]
    StoredSelectorTypes,
}

/// An entry's ID: a UUID unless the user chose one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(Arc<str>);

impl EntryId {
    /// Takes an ID.
    ///
    /// # Errors
    /// When it is empty, too long, or holds other bytes than `A-Z a-z 0-9 . _ -`.
    pub fn new(text: &str) -> Result<Self, EntryError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > MAX_ENTRY_ID_LEN || !text.bytes().all(legal) {
            return Err(EntryError::Id(
                text.chars().take(MAX_ENTRY_ID_LEN).collect(),
            ));
        }
        Ok(Self(text.into()))
    }

    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A registration entry. The fields are public since most hold no invariant of their own; [`RegistrationEntry::validate`]
/// checks the ones that hang together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationEntry {
    /// The entry's ID.
    pub id: EntryId,
    /// Whom the workload becomes.
    pub spiffe_id: SpiffeId,
    /// The agent, node alias or server under which the entry is issued.
    pub parent_id: SpiffeId,
    /// What the workload must match, all of them.
    pub selectors: Selectors,
    /// Lifetime of its X.509-SVIDs; the server's default when unset.
    pub x509_svid_ttl: Option<Duration>,
    /// Lifetime of its JWT-SVIDs; the server's default when unset.
    pub jwt_svid_ttl: Option<Duration>,
    /// The foreign trust domains whose bundles it receives.
    pub federates_with: BTreeSet<TrustDomain>,
    /// Whether its SVID may call the server's admin methods.
    pub admin: bool,
    /// Whether its SVID may ask for a downstream CA.
    pub downstream: bool,
    /// When the entry is pruned; no bound on its SVIDs.
    pub expires_at: Option<SystemTime>,
    /// DNS names in its X.509-SVID; the first is also the common name.
    pub dns_names: Vec<String>,
    /// Counts the updates from 0.
    pub revision: i64,
    /// Whether its SVID goes to a secret store instead of a workload.
    pub store_svid: bool,
    /// Tells this identity from the workload's others.
    pub hint: String,
    /// When it was created.
    pub created_at: SystemTime,
    /// Whether its X.509-SVID is made only when a workload asks.
    pub disable_x509_svid_prefetch: bool,
    /// Whether its JWT-SVIDs carry a `jti`.
    pub jwt_svid_include_jti: bool,
}

impl RegistrationEntry {
    /// An entry with these fields; all others are unset. It lacks its selectors.
    #[must_use]
    pub fn new(
        id: EntryId,
        spiffe_id: SpiffeId,
        parent_id: SpiffeId,
        created_at: SystemTime,
    ) -> Self {
        Self {
            id,
            spiffe_id,
            parent_id,
            selectors: Selectors::default(),
            x509_svid_ttl: None,
            jwt_svid_ttl: None,
            federates_with: BTreeSet::new(),
            admin: false,
            downstream: false,
            expires_at: None,
            dns_names: Vec::new(),
            revision: 0,
            store_svid: false,
            hint: String::new(),
            created_at,
            disable_x509_svid_prefetch: false,
            jwt_svid_include_jti: false,
        }
    }

    /// Checks what a server of `trust_domain` demands of an entry.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn validate(&self, trust_domain: &TrustDomain) -> Result<(), EntryError> {
        self.validate_ids(trust_domain)?;
        if self.selectors.is_empty() {
            return Err(EntryError::NoSelectors);
        }
        let mut kinds = self.selectors.iter().map(|selector| selector.kind());
        let first = kinds.next();
        if self.store_svid && kinds.any(|kind| Some(kind) != first) {
            return Err(EntryError::StoredSelectorTypes);
        }
        if self.hint.len() > MAX_HINT_LEN {
            return Err(EntryError::HintTooLong);
        }
        if self.federates_with.contains(trust_domain) {
            return Err(EntryError::FederatesWithItself(trust_domain.clone()));
        }
        self.validate_dns_names()
    }

    fn validate_ids(&self, trust_domain: &TrustDomain) -> Result<(), EntryError> {
        let (id, parent) = (&self.spiffe_id, &self.parent_id);
        if !id.is_member_of(trust_domain) {
            return Err(EntryError::ForeignSpiffeId {
                id: id.clone(),
                trust_domain: trust_domain.clone(),
            });
        }
        if !parent.is_member_of(trust_domain) {
            return Err(EntryError::ForeignParent {
                id: parent.clone(),
                trust_domain: trust_domain.clone(),
            });
        }
        if id.path().is_empty() {
            return Err(EntryError::NoPath(id.clone()));
        }
        if id.path().starts_with(RESERVED_PATH) {
            return Err(EntryError::Reserved(id.clone()));
        }
        if parent.path().is_empty() {
            return Err(EntryError::ParentNoPath(parent.clone()));
        }
        Ok(())
    }

    fn validate_dns_names(&self) -> Result<(), EntryError> {
        let mut seen = BTreeSet::new();
        for name in &self.dns_names {
            check_dns_name(name)?;
            if !seen.insert(name.as_str()) {
                return Err(EntryError::DuplicateDnsName(name.clone()));
            }
        }
        Ok(())
    }
}

/// Checks one DNS name as it may stand in an X.509-SVID: letters, digits and hyphens (names of other scripts in their
/// `xn--` form), a wildcard only as the whole first label.
///
/// # Errors
/// [`EntryError::DnsName`].
pub fn check_dns_name(name: &str) -> Result<(), EntryError> {
    let refused = || EntryError::DnsName(name.chars().take(MAX_DNS_NAME_LEN).collect());
    let plain = name.strip_prefix("*.").unwrap_or(name);
    if name.len() > MAX_DNS_NAME_LEN || !plain.split('.').all(is_dns_label) {
        return Err(refused());
    }
    Ok(())
}

fn is_dns_label(label: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let hyphen_ends = label.starts_with('-') || label.ends_with('-');
    // Hyphens in third and fourth place are kept for encodings; only the one in use is known to be safe.
    let odd_prefix =
        label.get(2..4) == Some("--") && !label.to_ascii_lowercase().starts_with("xn--");
    (1..=MAX_DNS_LABEL_LEN).contains(&label.len())
        && label.bytes().all(legal)
        && !hyphen_ends
        && !odd_prefix
}

#[cfg(test)]
mod tests;
