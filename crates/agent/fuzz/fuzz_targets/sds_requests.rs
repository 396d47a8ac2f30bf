#![no_main]
//! Any requests, in any order with views and answers: no panic, nothing unasked, no nonce twice, and an end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent::sds::session::fetch;
use agent::sds::{DeltaSecrets, Options, Secrets, StreamSecrets};
use agent::workloads::{Identity, WorkloadView};
use ca::{CaSpec, LeafSpec, PublicKey, Subject, X509Authority};
use identity::{
    Bundle, Certificate, EntryId, KeyType, PrivateKey, RegistrationEntry, SpiffeId, TrustDomain,
    X509Svid,
};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use proto::envoy::{Any, tls::Secret};

const HOUR: Duration = Duration::from_secs(3_600);
const NAMES: [&str; 5] = [
    "default",
    "ROOTCA",
    "ALL",
    "spiffe://example.org",
    "spiffe://example.org/web",
];

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Nobody's, somebody's, and the same one's after a rotation.
static VIEWS: LazyLock<[Arc<WorkloadView>; 3]> = LazyLock::new(|| {
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let key = || PrivateKey::generate(KeyType::EcP256).unwrap();
    let spec = CaSpec {
        trust_domain: &trust_domain,
        subject: Subject::ca(),
        ttl: 24 * HOUR,
    };
    let authority = X509Authority::self_signed(key(), &spec, now()).unwrap();
    let mut bundle = Bundle::empty(trust_domain.clone());
    let certificate = authority.certificate().clone();
    bundle
        .x509_authorities
        .push(identity::X509Authority::new(certificate));
    let id = SpiffeId::new(&trust_domain, "/web").unwrap();
    let identity = || {
        let key = key();
        let spec = LeafSpec {
            id: &id,
            public_key: &PublicKey::from_spki(key.public_key_spki()).unwrap(),
            dns_names: &[],
            ttl: HOUR,
            subject: None,
        };
        let leaf = authority.sign(&spec, now()).unwrap();
        let chain = vec![Certificate::from_der(&leaf.der).unwrap()];
        Identity {
            entry: Arc::new(entry(&id)),
            svid: Arc::new(X509Svid::new(chain, key).unwrap()),
        }
    };
    let bundle = Arc::new(bundle);
    [vec![], vec![identity()], vec![identity()]].map(|identities| {
        Arc::new(WorkloadView {
            synced: true,
            identities,
            pending: Vec::new(),
            bundle: Arc::clone(&bundle),
            federated: BTreeMap::new(),
        })
    })
});

static SECRETS: LazyLock<Arc<Secrets>> =
    LazyLock::new(|| Arc::new(Secrets::new(Options::default())));

fn entry(id: &SpiffeId) -> RegistrationEntry {
    let name = EntryId::new("web").unwrap();
    RegistrationEntry::new(name, id.clone(), id.clone(), UNIX_EPOCH)
}

fn name_of(any: &[u8]) -> String {
    let any = Any::decode(any).unwrap();
    Secret::decode(&*any.value).unwrap().name
}

/// The input in parts: a kind, a length, and as many bytes.
fn parts(mut input: &[u8]) -> Vec<(u8, &[u8])> {
    let mut parts = Vec::new();
    while let [kind, length, rest @ ..] = input {
        let (part, next) = rest.split_at(rest.len().min(usize::from(*length)));
        parts.push((*kind, part));
        input = next;
    }
    parts
}

fn state_of_the_world(parts: &[(u8, &[u8])]) {
    let mut session = StreamSecrets::new(Arc::clone(&SECRETS), Arc::clone(&VIEWS[0]), 1);
    let mut wanted: Vec<String> = Vec::new();
    let (mut nonces, mut last) = (BTreeSet::new(), String::new());
    for (kind, part) in parts {
        let mut request = DiscoveryRequest::default();
        match kind % 4 {
            0 => {
                session.on_view(Arc::clone(&VIEWS[usize::from(kind / 4) % VIEWS.len()]));
                continue;
            }
            1 => request.resource_names = part.iter().map(|one| name(*one)).collect(),
            2 => {
                request.resource_names.clone_from(&wanted);
                request.response_nonce.clone_from(&last);
            }
            _ => match DiscoveryRequest::decode(*part) {
                Ok(decoded) => request = decoded,
                Err(_) => continue,
            },
        }
        let _ = fetch(&SECRETS, &VIEWS[1], &request, now());
        if session.on_request(&request, now()).is_err() {
            return;
        }
        wanted = request.resource_names;
        while let Some(response) = session.next(now()) {
            assert!(nonces.insert(response.nonce.clone()));
            last = response.nonce;
            assert!(wanted.contains(&name_of(&response.resources[0])));
        }
        session.take_notes();
    }
}

fn incremental(parts: &[(u8, &[u8])]) {
    let mut session = DeltaSecrets::new(Arc::clone(&SECRETS), Arc::clone(&VIEWS[0]), 1);
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let (mut nonces, mut last) = (BTreeSet::new(), String::new());
    for (kind, part) in parts {
        let mut request = DeltaDiscoveryRequest::default();
        match kind % 4 {
            0 => {
                session.on_view(Arc::clone(&VIEWS[usize::from(kind / 4) % VIEWS.len()]));
                continue;
            }
            1 => request.resource_names_subscribe = part.iter().map(|one| name(*one)).collect(),
            2 => {
                request.response_nonce.clone_from(&last);
                request.resource_names_unsubscribe = part.iter().map(|one| name(*one)).collect();
            }
            _ => match DeltaDiscoveryRequest::decode(*part) {
                Ok(decoded) => request = decoded,
                Err(_) => continue,
            },
        }
        if session.on_request(&request, now()).is_err() {
            return;
        }
        for name in &request.resource_names_unsubscribe {
            wanted.remove(name);
        }
        wanted.extend(request.resource_names_subscribe);
        while let Some(response) = session.next(now()) {
            assert!(nonces.insert(response.nonce.clone()));
            last = response.nonce;
            for resource in &response.resources {
                assert_eq!(name_of(&resource.resource), resource.name);
                assert!(wanted.contains(&resource.name));
            }
            assert!(
                response
                    .removed_resources
                    .iter()
                    .all(|name| wanted.contains(name))
            );
        }
        session.take_notes();
    }
}

fn name(number: u8) -> String {
    NAMES[usize::from(number) % NAMES.len()].to_owned()
}

fuzz_target!(|input: &[u8]| {
    let parts = parts(input);
    state_of_the_world(&parts);
    incremental(&parts);
});
