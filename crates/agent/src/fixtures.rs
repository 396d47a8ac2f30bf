//! What the unit tests of this crate share: a CA, SVIDs and entries.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use identity::{
    Bundle, Certificate, EntryId, KeyType, PrivateKey, RegistrationEntry, Selector, Selectors,
    SpiffeId, TrustDomain, X509Authority, X509Svid,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType,
};

/// A quiet moment.
pub(crate) fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

/// A self-signed authority of `example.org`, valid from a day before noon for ten days.
pub(crate) struct Ca {
    pub(crate) certificate: Certificate,
    issuer: Issuer<'static, PrivateKey>,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params("spiffe://example.org", noon(), Duration::from_hours(240));
        params.not_before = (noon() - Duration::from_hours(24)).into();
        params
            .distinguished_name
            .push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let signed = params.self_signed(&key).unwrap();
        Self {
            certificate: Certificate::from_der(signed.der()).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        let mut bundle = Bundle::empty(trust_domain());
        bundle
            .x509_authorities
            .push(X509Authority::new(self.certificate.clone()));
        bundle.sequence = 1;
        bundle
    }

    pub(crate) fn svid(&self, path: &str, from: SystemTime, life: Duration) -> Arc<X509Svid> {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        self.svid_for(key, path, from, life)
    }

    pub(crate) fn svid_for(
        &self,
        key: PrivateKey,
        path: &str,
        from: SystemTime,
        life: Duration,
    ) -> Arc<X509Svid> {
        let mut params = params(&format!("spiffe://example.org{path}"), from, life);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let leaf = Certificate::from_der(signed.der()).unwrap();
        Arc::new(X509Svid::new(vec![leaf], key).unwrap())
    }
}

fn params(uri: &str, from: SystemTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = from.into();
    params.not_after = (from + life).into();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params
}

/// One authority for tests that do not care which.
pub(crate) static CA: LazyLock<Ca> = LazyLock::new(|| Ca::new("the test authority"));

/// An SVID of an hour's life, made at noon.
pub(crate) fn svid(path: &str) -> Arc<X509Svid> {
    CA.svid(path, noon(), Duration::from_hours(1))
}

pub(crate) fn selectors(texts: &[&str]) -> Selectors {
    texts
        .iter()
        .map(|text| Selector::parse(text).unwrap())
        .collect()
}

/// An entry with this ID, for `spiffe://example.org/<id>`.
pub(crate) fn entry(id: &str, texts: &[&str]) -> RegistrationEntry {
    RegistrationEntry {
        selectors: selectors(texts),
        ..RegistrationEntry::new(
            EntryId::new(id).unwrap(),
            SpiffeId::new(&trust_domain(), &format!("/{id}")).unwrap(),
            SpiffeId::parse("spiffe://example.org/spire/agent/x").unwrap(),
            noon() - Duration::from_hours(1),
        )
    }
}
