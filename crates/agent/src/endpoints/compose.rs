//! What a workload's view looks like on the wire. Equal views give equal bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use identity::{Bundle, PrivateKey, RegistrationEntry};
use proto::workload::{JwtBundlesResponse, X509BundlesResponse, X509svid, X509svidResponse};

use crate::workloads::WorkloadView;

/// All X.509-SVIDs of a view, the default first, with the bundles to verify others.
pub(super) fn x509_svids(view: &WorkloadView) -> X509svidResponse {
    let bundle = Bytes::from(view.bundle.x509_der());
    let mut hints = Hints::default();
    let given = view.identities.iter();
    let svids = given.filter(|identity| hints.admit(&identity.entry));
    let svids = svids.map(|identity| X509svid {
        spiffe_id: identity.svid.id().to_string(),
        x509_svid: identity.svid.chain_der().into(),
        x509_svid_key: Bytes::from_owner(Pkcs8(identity.svid.key().clone())),
        bundle: bundle.clone(),
        hint: identity.entry.hint.clone(),
    });
    X509svidResponse {
        svids: svids.collect(),
        crl: Vec::new(),
        federated_bundles: x509_bundles_of(view.federated.values()),
    }
}

/// The X.509 authorities of the own trust domain and the federated ones, by trust domain ID.
pub(super) fn x509_bundles(view: &WorkloadView) -> X509BundlesResponse {
    X509BundlesResponse {
        crl: Vec::new(),
        bundles: x509_bundles_of(bundles(view)),
    }
}

/// The JWT authorities of the own trust domain and the federated ones, as JWK sets by trust domain ID.
pub(super) fn jwt_bundles(view: &WorkloadView) -> JwtBundlesResponse {
    let jwks = |bundle: &Arc<Bundle>| (key(bundle), Bytes::from(bundle.to_jwks()));
    JwtBundlesResponse {
        bundles: bundles(view).map(jwks).collect(),
    }
}

/// All entries of a view, whether their X.509-SVID is there or not, the default first.
pub(super) fn entries(view: &WorkloadView) -> Vec<Arc<RegistrationEntry>> {
    let issued = view.identities.iter().map(|identity| &identity.entry);
    let mut entries: Vec<_> = issued.chain(&view.pending).collect();
    entries.sort_by(|a, b| rank(a).cmp(&rank(b)));
    let mut hints = Hints::default();
    entries.retain(|entry| hints.admit(entry));
    entries.into_iter().cloned().collect()
}

/// The order of a workload's identities: the oldest entry first.
pub(super) fn rank(entry: &RegistrationEntry) -> impl Ord + use<'_> {
    (entry.created_at, &entry.id)
}

/// The bundles a view has, its own first.
pub(super) fn bundles(view: &WorkloadView) -> impl Iterator<Item = &Arc<Bundle>> {
    [&view.bundle].into_iter().chain(view.federated.values())
}

/// A key's bytes, borrowed from the key: no copy that would have to be wiped.
struct Pkcs8(PrivateKey);

impl AsRef<[u8]> for Pkcs8 {
    fn as_ref(&self) -> &[u8] {
        self.0.as_pkcs8_der()
    }
}

/// Hints seen so far. A hint names one identity: of several entries with the same, the oldest is given out.
#[derive(Default)]
struct Hints<'a>(BTreeSet<&'a str>);

impl<'a> Hints<'a> {
    fn admit(&mut self, entry: &'a RegistrationEntry) -> bool {
        entry.hint.is_empty() || self.0.insert(&entry.hint)
    }
}

/// Without those that have no X.509 authority: py-spiffe's source ends for good on an empty one.
fn x509_bundles_of<'a>(bundles: impl Iterator<Item = &'a Arc<Bundle>>) -> BTreeMap<String, Bytes> {
    bundles
        .filter(|bundle| !bundle.x509_authorities.is_empty())
        .map(|bundle| (key(bundle), Bytes::from(bundle.x509_der())))
        .collect()
}

fn key(bundle: &Bundle) -> String {
    bundle.trust_domain.id().to_string()
}
