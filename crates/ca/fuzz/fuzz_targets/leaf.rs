#![no_main]
//! Leaves of any names, times and subjects: no panic; what is signed keeps the rules of a leaf and says what was asked.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arbitrary::Arbitrary;
use ca::{Attribute, CaSpec, LeafSpec, PublicKey, Subject, X509Authority};
use identity::{Certificate, KeyType, PrivateKey, SpiffeId, TrustDomain, check_leaf};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Asked<'a> {
    path: &'a str,
    dns_names: Vec<&'a str>,
    subject: Option<Vec<(u8, &'a str)>>,
    ttl: u64,
    /// Against the authority's birth, in seconds.
    now: i32,
}

const BORN: Duration = Duration::from_secs(1_800_000_000);

struct World {
    trust_domain: TrustDomain,
    authority: X509Authority,
    key: PublicKey,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let trust_domain = TrustDomain::new("example.org").expect("a trust domain");
    let key = || PrivateKey::generate(KeyType::EcP256).expect("a key");
    let spec = CaSpec {
        trust_domain: &trust_domain,
        subject: Subject::ca(),
        ttl: Duration::from_secs(86_400),
    };
    let authority = X509Authority::self_signed(key(), &spec, UNIX_EPOCH + BORN);
    World {
        authority: authority.expect("an authority"),
        key: PublicKey::from_spki(key().public_key_spki()).expect("a public key"),
        trust_domain,
    }
});

fn subject(parts: Vec<(u8, &str)>) -> Subject {
    const KINDS: [Attribute; 5] = [
        Attribute::Country,
        Attribute::Organization,
        Attribute::OrganizationalUnit,
        Attribute::CommonName,
        Attribute::SerialNumber,
    ];
    parts
        .into_iter()
        .fold(Subject::empty(), |subject, (kind, value)| {
            subject.with(KINDS[usize::from(kind) % KINDS.len()], value)
        })
}

fn time(offset: i32) -> SystemTime {
    let distance = Duration::from_secs(offset.unsigned_abs().into());
    let born = UNIX_EPOCH + BORN;
    if offset < 0 {
        born - distance
    } else {
        born + distance
    }
}

fuzz_target!(|asked: Asked<'_>| {
    let world = &*WORLD;
    let Ok(id) = SpiffeId::new(&world.trust_domain, asked.path) else {
        return;
    };
    let dns_names: Vec<String> = asked
        .dns_names
        .iter()
        .map(|&name| name.to_owned())
        .collect();
    let subject = asked.subject.map(subject);
    let spec = LeafSpec {
        id: &id,
        public_key: &world.key,
        dns_names: &dns_names,
        ttl: Duration::from_secs(asked.ttl),
        subject: subject.as_ref(),
    };
    let now = time(asked.now);
    if let Ok(issued) = world.authority.sign(&spec, now) {
        let leaf = Certificate::from_der(&issued.der).expect("a certificate");
        assert_eq!(check_leaf(&leaf), Ok(&id));
        assert_eq!(leaf.dns_names(), dns_names);
        assert_eq!(leaf.serial(), Some(issued.serial));
        let born = world.authority.certificate().not_before();
        // Under a clock that was set back, a leaf is valid as soon as its authority is.
        assert!(leaf.not_before() <= now.max(born) && born <= leaf.not_before());
        assert!(leaf.not_before() < leaf.not_after());
        assert!(now < leaf.not_after() + Duration::from_secs(1));
        assert!(leaf.not_after() <= world.authority.not_after());
    }
});
