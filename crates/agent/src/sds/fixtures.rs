//! Trust domains, SVIDs and views for the tests of this room.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use identity::{
    Bundle, Certificate, EntryId, KeyType, PrivateKey, RegistrationEntry, Selector, SpiffeId,
    TrustDomain, X509Authority, X509Svid,
};
use prost::Message as _;
use proto::envoy::{Any, tls::Secret};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    SanType,
};

use super::TYPE_URL;
use crate::workloads::{Identity, WorkloadView};

pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A trust domain with one CA.
pub(super) struct Domain {
    pub(super) bundle: Arc<Bundle>,
    issuer: Issuer<'static, PrivateKey>,
}

impl Domain {
    pub(super) fn new(name: &str) -> Self {
        let mut params = params(&format!("spiffe://{name}"));
        params
            .distinguished_name
            .push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let certificate = Certificate::from_der(certificate.der()).unwrap();
        let mut bundle = Bundle::empty(TrustDomain::new(name).unwrap());
        bundle
            .x509_authorities
            .push(X509Authority::new(certificate));
        Self {
            bundle: Arc::new(bundle),
            issuer: Issuer::new(params, key),
        }
    }

    pub(super) fn id(&self, path: &str) -> SpiffeId {
        SpiffeId::new(&self.bundle.trust_domain, path).unwrap()
    }

    pub(super) fn svid(&self, path: &str) -> Arc<X509Svid> {
        let mut params = params(self.id(path).as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let leaf = Certificate::from_der(leaf.der()).unwrap();
        Arc::new(X509Svid::new(vec![leaf], key).unwrap())
    }

    /// An entry created `age` seconds after the others' beginning.
    pub(super) fn entry(&self, path: &str, age: u64) -> Arc<RegistrationEntry> {
        Arc::new(RegistrationEntry {
            selectors: [Selector::parse("unix:uid:1000").unwrap()]
                .into_iter()
                .collect(),
            ..RegistrationEntry::new(
                EntryId::new(&path[1..]).unwrap(),
                self.id(path),
                self.id("/node"),
                UNIX_EPOCH + Duration::from_secs(age),
            )
        })
    }

    pub(super) fn identity(&self, path: &str, age: u64) -> Identity {
        Identity {
            entry: self.entry(path, age),
            svid: self.svid(path),
        }
    }

    /// A workload with these identities, oldest first.
    pub(super) fn view(&self, paths: &[&str]) -> WorkloadView {
        let identities = (0..).zip(paths).map(|(age, path)| self.identity(path, age));
        WorkloadView {
            synced: true,
            identities: identities.collect(),
            pending: Vec::new(),
            bundle: Arc::clone(&self.bundle),
            federated: BTreeMap::new(),
        }
    }
}

/// The same view, with another domain's bundle, and its first entry federating with that.
pub(super) fn federating(mut view: WorkloadView, with: &Domain) -> WorkloadView {
    let trust_domain = with.bundle.trust_domain.clone();
    let mut entry = (*view.identities[0].entry).clone();
    entry.federates_with.insert(trust_domain.clone());
    view.identities[0].entry = Arc::new(entry);
    view.federated
        .insert(trust_domain, Arc::clone(&with.bundle));
    view
}

/// Reads a sent secret.
pub(super) fn secret(any: &[u8]) -> Secret {
    let any = Any::decode(any).unwrap();
    assert_eq!(any.type_url, TYPE_URL);
    Secret::decode(&*any.value).unwrap()
}

fn params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now() - DAY).into();
    params.not_after = (now() + DAY).into();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params
}
