//! A trust domain for tests: an authority of each kind, entries, and what a workload sees of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent::workloads::{Identity, WorkloadView};
use ca::{CaSpec, JwtAuthority, JwtSpec, LeafSpec, PublicKey, Subject, X509Authority};
use identity::{
    Bundle, Certificate, EntryId, JwtSvid, KeyType, PrivateKey, RegistrationEntry, SpiffeId,
    TrustDomain, X509Svid,
};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);

/// The time in all tests.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A trust domain with an X.509 and a JWT authority.
pub(crate) struct Domain {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) bundle: Arc<Bundle>,
    now: SystemTime,
    x509: X509Authority,
    jwt: JwtAuthority,
}

impl Domain {
    pub(crate) fn new(name: &str) -> Self {
        Self::at(name, now())
    }

    /// One whose SVIDs are valid at `now`.
    pub(crate) fn at(name: &str, now: SystemTime) -> Self {
        let trust_domain = TrustDomain::new(name).unwrap();
        let spec = CaSpec {
            trust_domain: &trust_domain,
            subject: Subject::ca(),
            ttl: DAY,
        };
        let key = || PrivateKey::generate(KeyType::EcP256).unwrap();
        let x509 = X509Authority::self_signed(key(), &spec, now).unwrap();
        let jwt = JwtAuthority::new(format!("key-of-{name}"), key(), now + DAY);
        let mut bundle = Bundle::empty(trust_domain.clone());
        let authority = identity::X509Authority::new(x509.certificate().clone());
        bundle.x509_authorities.push(authority);
        bundle.jwt_authorities.push(jwt.public());
        Self {
            trust_domain,
            bundle: Arc::new(bundle),
            now,
            x509,
            jwt,
        }
    }

    pub(crate) fn id(&self, path: &str) -> SpiffeId {
        SpiffeId::new(&self.trust_domain, path).unwrap()
    }

    /// An entry, created `age` seconds after the others' beginning.
    pub(crate) fn entry(&self, path: &str, age: u64, hint: &str) -> Arc<RegistrationEntry> {
        Arc::new(RegistrationEntry {
            hint: hint.to_owned(),
            ..RegistrationEntry::new(
                EntryId::new(path.trim_start_matches('/')).unwrap(),
                self.id(path),
                self.id("/node"),
                UNIX_EPOCH + Duration::from_secs(age),
            )
        })
    }

    /// An entry and a new SVID for it.
    pub(crate) fn identity(&self, path: &str, age: u64, hint: &str) -> Identity {
        let entry = self.entry(path, age, hint);
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let spec = LeafSpec {
            id: &entry.spiffe_id,
            public_key: &PublicKey::from_spki(key.public_key_spki()).unwrap(),
            dns_names: &[],
            ttl: HOUR,
            subject: None,
        };
        let leaf = self.x509.sign(&spec, self.now).unwrap();
        let chain = vec![Certificate::from_der(&leaf.der).unwrap()];
        Identity {
            entry,
            svid: Arc::new(X509Svid::new(chain, key).unwrap()),
        }
    }

    pub(crate) fn jwt_svid(&self, path: &str, audience: &[&str]) -> JwtSvid {
        let audience: Vec<String> = audience.iter().map(|one| (*one).to_owned()).collect();
        let spec = JwtSpec {
            id: &self.id(path),
            audience: &audience,
            ttl: HOUR,
            issuer: Some("https://issuer.example"),
            include_jti: false,
        };
        let token = self.jwt.sign(&spec, self.now).unwrap().token;
        JwtSvid::parse_unverified(&token).unwrap()
    }

    /// A synced view of these identities and nothing else.
    pub(crate) fn view(&self, identities: impl IntoIterator<Item = Identity>) -> WorkloadView {
        WorkloadView {
            synced: true,
            identities: identities.into_iter().collect(),
            pending: Vec::new(),
            bundle: self.bundle.clone(),
            federated: BTreeMap::new(),
        }
    }

    /// This domain's view, with the bundles of others.
    pub(crate) fn federated<'a>(
        &self,
        identities: impl IntoIterator<Item = Identity>,
        others: impl IntoIterator<Item = &'a Arc<Bundle>>,
    ) -> WorkloadView {
        let others = others.into_iter();
        WorkloadView {
            federated: others
                .map(|bundle| (bundle.trust_domain.clone(), bundle.clone()))
                .collect(),
            ..self.view(identities)
        }
    }
}
