//! The seam between the agent's core and its endpoints.
//!
//! An endpoint knows a caller's selectors and nothing of servers, keys or caches. From
//! [`Workloads`] it gets what such a caller may have, now and whenever that changes.

mod fixed;
pub(crate) mod living;

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use identity::{Bundle, BundleSet, JwtSvid, RegistrationEntry, Selectors, TrustDomain, X509Svid};
use tokio::sync::watch;

use fixed::Fixed;
use living::Living;

/// Where endpoints get identities from. Clones are the same.
#[derive(Clone)]
pub struct Workloads(Arc<Source>);

enum Source {
    /// Fed by hand.
    Fixed(Box<Fixed>),
    /// Fed by the agent's loops.
    Living(Arc<Living>),
}

/// All that a workload may have at one moment: the unit that is streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadView {
    /// Is this what the server said, now or before a restart? When false, nothing is known yet,
    /// and having no identity means nothing.
    pub synced: bool,
    /// Identities whose SVID is there and not expired, by the entry's creation time and ID.
    pub identities: Vec<Identity>,
    /// Entries that match, but whose SVID is not there yet; same order.
    pub pending: Vec<Arc<RegistrationEntry>>,
    /// The bundle of the agent's own trust domain.
    pub bundle: Arc<Bundle>,
    /// Bundles of the trust domains its entries federate with, as far as known.
    pub federated: BTreeMap<TrustDomain, Arc<Bundle>>,
}

impl WorkloadView {
    /// The view at this time: an identity whose SVID has expired since the view was made is pending again. Whoever hands
    /// out SVIDs asks for it, so that nobody hangs on a loop that drops them in time.
    #[must_use]
    pub fn at(self: &Arc<Self>, now: SystemTime) -> Arc<Self> {
        let expired = |one: &Identity| one.svid.expires_at() <= now;
        if !self.identities.iter().any(expired) {
            return Arc::clone(self);
        }
        let mut view = (**self).clone();
        let gone = view.identities.extract_if(.., |one| expired(one));
        view.pending.extend(gone.map(|one| one.entry));
        view.pending
            .sort_by_key(|entry| (entry.created_at, entry.id.clone()));
        Arc::new(view)
    }
}

/// One identity of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Why the workload has it.
    pub entry: Arc<RegistrationEntry>,
    /// Certificates and key.
    pub svid: Arc<X509Svid>,
}

/// Why there is no JWT-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtFetchError {
    /// The entry is not, or no longer, this agent's.
    #[error("the registration entry is not one of this agent's")]
    NotEntitled,
    /// The server cannot be reached or is too slow, and there is no token left to give.
    #[error("{0}")]
    Unavailable(String),
    /// The server does not accept the request.
    #[error("{0}")]
    Invalid(String),
}

impl Workloads {
    /// Everybody gets `view`, until [`Workloads::feed`] says otherwise. For tests of endpoints.
    #[must_use]
    pub fn fixed(view: Arc<WorkloadView>) -> Self {
        Self(Arc::new(Source::Fixed(Box::new(Fixed::new(view)))))
    }

    /// What the agent's loops say.
    pub(crate) fn living(living: Arc<Living>) -> Self {
        Self(Arc::new(Source::Living(living)))
    }

    /// Replaces what workloads with exactly these selectors get. Only for [`Workloads::fixed`];
    /// a living agent ignores it.
    pub fn feed(&self, selectors: Selectors, view: WorkloadView) {
        if let Source::Fixed(fixed) = &*self.0 {
            fixed.feed(selectors, Arc::new(view));
        }
    }

    /// Sets what everybody gets who asks for a JWT-SVID. Only for [`Workloads::fixed`].
    pub fn feed_jwt(&self, answer: Result<JwtSvid, JwtFetchError>) {
        if let Source::Fixed(fixed) = &*self.0 {
            fixed.feed_jwt(answer);
        }
    }

    /// What a workload with these selectors may have, from now on. While somebody holds the
    /// receiver its entries are waited for: their SVIDs are issued before others.
    #[must_use]
    pub fn subscribe(&self, selectors: Selectors) -> watch::Receiver<Arc<WorkloadView>> {
        match &*self.0 {
            Source::Fixed(fixed) => fixed.subscribe(selectors),
            Source::Living(living) => living.subscribe(selectors),
        }
    }

    /// A JWT-SVID of `entry` for `audience`, new or with at least half of its life left; when
    /// the server is slow or away, any that is still valid. The entry is the one the caller
    /// matched: once another stands under its ID, there is no token.
    ///
    /// # Errors
    /// See [`JwtFetchError`].
    pub async fn jwt_svid(
        &self,
        entry: &RegistrationEntry,
        audience: &[String],
    ) -> Result<JwtSvid, JwtFetchError> {
        match &*self.0 {
            Source::Fixed(fixed) => fixed.jwt_svid(),
            Source::Living(living) => living.jwt_svid(entry, audience).await,
        }
    }

    /// The bundles of the agent's own trust domain and of all known federated ones.
    #[must_use]
    pub fn bundles(&self) -> watch::Receiver<Arc<BundleSet>> {
        match &*self.0 {
            Source::Fixed(fixed) => fixed.bundles(),
            Source::Living(living) => living.bundles(),
        }
    }
}

impl fmt::Debug for Workloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workloads")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fixtures::{CA, entry, noon};

    /// The view may be older than its SVIDs live.
    #[test]
    fn i_5_an_expired_svid_is_in_no_view() {
        let minute = Duration::from_mins(1);
        let identity = |id: &str, life: u32| Identity {
            entry: Arc::new(entry(id, &["unix:uid:1"])),
            svid: CA.svid(&format!("/{id}"), noon(), life * minute),
        };
        let view = Arc::new(WorkloadView {
            synced: true,
            identities: vec![identity("a", 2), identity("b", 1), identity("c", 3)],
            pending: vec![Arc::new(entry("aa", &["unix:uid:1"]))],
            bundle: Arc::new(CA.bundle()),
            federated: BTreeMap::new(),
        });
        let last = noon() + minute - Duration::from_nanos(1);
        assert!(Arc::ptr_eq(&view.at(last), &view));
        let ids = |view: &WorkloadView| {
            let issued = view.identities.iter().map(|one| one.entry.id.to_string());
            let pending = view.pending.iter().map(|one| one.id.to_string());
            (issued.collect::<Vec<_>>(), pending.collect::<Vec<_>>())
        };
        let (issued, pending) = ids(&view.at(noon() + minute));
        assert_eq!(
            (issued.join(" "), pending.join(" ")),
            ("a c".into(), "aa b".into())
        );
        let (issued, pending) = ids(&view.at(noon() + 3 * minute));
        assert_eq!(
            (issued.join(" "), pending.join(" ")),
            ("".into(), "a aa b c".into())
        );
    }
}
