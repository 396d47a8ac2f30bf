//! SVIDs that nobody issued.

use std::time::{Duration, SystemTime};

use ca::{CaSpec, LeafSpec, PublicKey, Subject, X509Authority};
use identity::{Certificate, KeyType, PrivateKey, SpiffeId, X509Svid};

/// An SVID of this ID under an authority of its own, valid for an hour around `now`.
pub fn forge(id: &SpiffeId, now: SystemTime) -> X509Svid {
    let authority = X509Authority::self_signed(
        key(),
        &CaSpec {
            trust_domain: id.trust_domain(),
            subject: Subject::ca(),
            ttl: Duration::from_secs(7200),
        },
        now,
    )
    .expect("an authority must be had");
    let key = key();
    let public_key = PublicKey::from_spki(key.public_key_spki()).expect("the key must be one");
    let leaf = LeafSpec {
        id,
        public_key: &public_key,
        dns_names: &[],
        ttl: Duration::from_secs(3600),
        subject: None,
    };
    let issued = authority.sign(&leaf, now).expect("a leaf must be signed");
    let leaf = Certificate::from_der(&issued.der).expect("a leaf must be one");
    X509Svid::new(vec![leaf], key).expect("the SVID must keep the rules")
}

fn key() -> PrivateKey {
    PrivateKey::generate(KeyType::EcP256).expect("a key must be had")
}
