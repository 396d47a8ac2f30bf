//! The trust domain's own bundle: kept in the datastore, published from here.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Bundle, JwtAuthority, TrustDomain, X509Authority};
use store::{BundleWriteError, Store, StoreError};
use tokio::sync::watch;

/// Authorities stay so long after they expired, for clocks that lag far behind.
const PRUNE_AFTER: Duration = Duration::from_hours(24);

/// Writes the bundle to the datastore, then tells everybody. Cheap to clone.
#[derive(Clone)]
pub(super) struct Publisher {
    store: Store,
    trust_domain: TrustDomain,
    latest: Arc<watch::Sender<Arc<Bundle>>>,
}

impl Publisher {
    /// Takes up the bundle as it is in the datastore, which is empty before the first start.
    pub(super) async fn load(store: Store, trust_domain: &TrustDomain) -> Result<Self, StoreError> {
        let bundle = store.bundle(trust_domain).await?;
        let bundle = bundle.unwrap_or_else(|| Bundle::empty(trust_domain.clone()));
        Ok(Self {
            store,
            trust_domain: trust_domain.clone(),
            latest: Arc::new(watch::Sender::new(Arc::new(bundle))),
        })
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Bundle>> {
        self.latest.subscribe()
    }

    pub(super) fn latest(&self) -> Arc<Bundle> {
        Arc::clone(&self.latest.borrow())
    }

    /// Puts an authority in, unless it is there. When this returns, it is in the datastore and published.
    pub(super) async fn add(&self, authority: Public) -> Result<(), BundleWriteError> {
        if contains(&self.latest(), &authority) {
            return Ok(());
        }
        let add = move |bundle: &mut Bundle| {
            add(bundle, authority);
            Ok(())
        };
        self.edit(add).await
    }

    /// Puts authorities of others in, all or none; what is there stays as it is.
    pub(super) async fn append(&self, authorities: Vec<Public>) -> Result<(), BundleWriteError> {
        self.edit(move |bundle| {
            let mut authorities = authorities.into_iter();
            authorities.try_for_each(|authority| append(bundle, authority))
        })
        .await
    }

    /// Takes out what expired long ago.
    pub(super) async fn prune(&self, now: SystemTime) -> Result<(), BundleWriteError> {
        let prune = move |bundle: &mut Bundle| {
            prune(bundle, now);
            Ok(())
        };
        self.edit(prune).await
    }

    async fn edit(
        &self,
        edit: impl FnOnce(&mut Bundle) -> Result<(), String> + Send + 'static,
    ) -> Result<(), BundleWriteError> {
        let edited = self.store.edit_bundle(&self.trust_domain, edit).await?;
        // Two edits may end here in the other order than they were written.
        self.latest.send_if_modified(|latest| {
            let newer = edited.sequence > latest.sequence;
            if newer {
                *latest = Arc::new(edited);
            }
            newer
        });
        Ok(())
    }
}

/// An authority's public half.
pub(super) enum Public {
    X509(X509Authority),
    Jwt(JwtAuthority),
}

fn contains(bundle: &Bundle, authority: &Public) -> bool {
    match authority {
        Public::X509(one) => bundle
            .x509_authorities
            .iter()
            .any(|there| there.certificate == one.certificate),
        Public::Jwt(one) => bundle.jwt_authority(&one.key_id).is_some(),
    }
}

fn add(bundle: &mut Bundle, authority: Public) {
    if contains(bundle, &authority) {
        return;
    }
    match authority {
        Public::X509(one) => bundle.x509_authorities.push(one),
        Public::Jwt(one) => bundle.jwt_authorities.push(one),
    }
}

/// As [`add`], but tokens of the key that is there must not become another's.
fn append(bundle: &mut Bundle, authority: Public) -> Result<(), String> {
    if let Public::Jwt(one) = &authority {
        let there = bundle.jwt_authority(&one.key_id);
        if there.is_some_and(|there| there.public_key != one.public_key) {
            return Err(format!(
                "the bundle holds another key with the key ID {:?}; give this one an ID of its own",
                one.key_id
            ));
        }
    }
    add(bundle, authority);
    Ok(())
}

/// When the first authority is to be taken out; `None` when none will be.
pub(super) fn prune_at(bundle: &Bundle) -> Option<SystemTime> {
    let newest = newest(bundle);
    let x509 = bundle
        .x509_authorities
        .iter()
        .map(|one| one.certificate.not_after())
        .filter(|end| Some(*end) != newest);
    let jwt = bundle
        .jwt_authorities
        .iter()
        .filter_map(|one| one.expires_at);
    x509.chain(jwt).min()?.checked_add(PRUNE_AFTER)
}

/// Takes out what expired at least [`PRUNE_AFTER`] ago, but never the last X.509 authority: an empty bundle trusts nobody.
fn prune(bundle: &mut Bundle, now: SystemTime) {
    let over = |end: SystemTime| end.checked_add(PRUNE_AFTER).is_some_and(|end| end <= now);
    let newest = newest(bundle);
    bundle
        .jwt_authorities
        .retain(|one| !one.expires_at.is_some_and(over));
    bundle.x509_authorities.retain(|one| {
        let end = one.certificate.not_after();
        !over(end) || Some(end) == newest
    });
}

/// When the X.509 authority that lasts longest expires.
fn newest(bundle: &Bundle) -> Option<SystemTime> {
    let ends = bundle.x509_authorities.iter();
    ends.map(|one| one.certificate.not_after()).max()
}

#[cfg(test)]
mod tests;
