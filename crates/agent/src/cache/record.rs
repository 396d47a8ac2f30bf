//! What is kept of one entry.

use std::{sync::Arc, time::SystemTime};

use identity::{Bundle, EntryId, RegistrationEntry, X509Svid};

/// An entry, and what was issued for it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) entry: Arc<RegistrationEntry>,
    pub(super) svid: Option<Held>,
    /// A newer one, whose authority is not in the bundle yet: nobody could verify it.
    pub(super) unproven: Option<Held>,
    /// How many watched selector sets match.
    pub(super) watchers: usize,
    pub(super) idle_since: Option<u64>,
}

/// An SVID, and when it ends.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) svid: Arc<X509Svid>,
    /// When its time is over, however the clock was set since it came.
    pub(super) until: SystemTime,
}

impl Held {
    pub(super) fn new(svid: Arc<X509Svid>) -> Self {
        Self {
            until: svid.expires_at(),
            svid,
        }
    }

    /// By its certificate, or sooner.
    pub(super) fn ends(&self) -> SystemTime {
        self.until.min(self.svid.expires_at())
    }
}

/// Was it signed by an authority that is not to be trusted for long?
#[must_use]
pub fn is_tainted(bundle: &Bundle, svid: &X509Svid) -> bool {
    let Some(issuer) = issuer_id(svid) else {
        return false;
    };
    bundle
        .x509_authorities
        .iter()
        .any(|one| one.tainted && one.certificate.subject_key_id() == Some(issuer))
}

/// Is the authority that signed it in the bundle?
pub(super) fn knows_issuer(bundle: &Bundle, svid: &X509Svid) -> bool {
    let issuer = issuer_id(svid);
    let mut authorities = bundle.x509_authorities.iter();
    issuer.is_none() || authorities.any(|one| one.certificate.subject_key_id() == issuer)
}

/// The key identifier of the authority at the end of the chain.
#[must_use]
pub fn issuer_id(svid: &X509Svid) -> Option<&[u8]> {
    svid.chain().last()?.authority_key_id()
}

/// The order of identities in a view.
pub(super) fn order(entry: &RegistrationEntry) -> (SystemTime, EntryId) {
    (entry.created_at, entry.id.clone())
}
