//! The requirements on sessions, one by one.

use identity::SpiffeId;
use prost::Message as _;
use proto::{
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Node,
        Status,
    },
    envoy,
};

use super::*;
use crate::{
    sds::{
        DeltaSecrets, Options, Secrets, StreamSecrets,
        fixtures::{Domain, now, secret},
    },
    workloads::WorkloadView,
};

pub(super) const WEB: &str = "spiffe://example.org/web";
pub(super) const API: &str = "spiffe://example.org/api";
pub(super) const TRUST_DOMAIN: &str = "spiffe://example.org";

pub(super) fn sotw(view: &WorkloadView) -> StreamSecrets {
    let secrets = Arc::new(Secrets::new(Options::default()));
    StreamSecrets::new(secrets, Arc::new(view.clone()), 7)
}

pub(super) fn delta(view: &WorkloadView) -> DeltaSecrets {
    let secrets = Arc::new(Secrets::new(Options::default()));
    DeltaSecrets::new(secrets, Arc::new(view.clone()), 7)
}

pub(super) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

pub(super) fn ask(wanted: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names(wanted),
        type_url: TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

pub(super) fn ack(response: &DiscoveryResponse, wanted: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..ask(wanted)
    }
}

pub(super) fn nack(response: &DiscoveryResponse, wanted: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: String::new(),
        error_detail: Some(refusal()),
        ..ack(response, wanted)
    }
}

pub(super) fn refusal() -> Status {
    Status {
        code: 13,
        message: "KEY_VALUES_MISMATCH".to_owned(),
    }
}

pub(super) fn subscribe(wanted: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names(wanted),
        type_url: TYPE_URL.to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

pub(super) fn answer(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        response_nonce: response.nonce.clone(),
        ..subscribe(&[])
    }
}

/// Everything there is to send, and the names of the secrets in it.
pub(super) fn all(session: &mut StreamSecrets) -> (Vec<DiscoveryResponse>, Vec<String>) {
    let responses: Vec<_> = std::iter::from_fn(|| session.next(now())).collect();
    let resources = responses.iter().flat_map(|response| &response.resources);
    let names = resources.map(|any| secret(any).name).collect();
    (responses, names)
}

/// As [`all`]; names of removed resources are marked with `-`.
pub(super) fn all_delta(session: &mut DeltaSecrets) -> (Vec<DeltaDiscoveryResponse>, Vec<String>) {
    let responses: Vec<_> = std::iter::from_fn(|| session.next(now())).collect();
    let names = responses.iter().flat_map(|response| {
        let removed = response
            .removed_resources
            .iter()
            .map(|name| format!("-{name}"));
        let sent = response.resources.iter().map(|one| {
            assert_eq!(secret(&one.resource).name, one.name);
            one.name.clone()
        });
        sent.chain(removed)
    });
    let names = names.collect();
    (responses, names)
}

#[test]
fn s_5_02_one_stream_many_names() {
    let domain = Domain::new("example.org");
    let wanted = ["default", WEB, "ROOTCA", "ALL", TRUST_DOMAIN];
    let mut session = sotw(&domain.view(&["/web"]));
    session.on_request(&ask(&wanted), now()).unwrap();
    // Bundles first.
    assert_eq!(
        all(&mut session).1,
        ["ALL", "ROOTCA", TRUST_DOMAIN, "default", WEB]
    );
    let mut session = delta(&domain.view(&["/web"]));
    session.on_request(&subscribe(&wanted), now()).unwrap();
    assert_eq!(
        all_delta(&mut session).1,
        ["ALL", "ROOTCA", TRUST_DOMAIN, "default", WEB]
    );
}

#[test]
fn s_5_03_a_name_that_is_not_served_ends_nothing() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web"]));
    session
        .on_request(&ask(&["nonsense", API, WEB]), now())
        .unwrap();
    assert_eq!(all(&mut session).1, [WEB]);
    let notes = session.take_notes();
    let withheld = |name: &str, why| Note::Withheld {
        name: name.into(),
        why,
    };
    assert_eq!(notes.len(), 2);
    assert!(notes.contains(&withheld("nonsense", Absent::Unknown)));
    assert!(notes.contains(&withheld(
        API,
        Absent::NotEntitled(SpiffeId::parse(API).unwrap())
    )));
    // Told once.
    session.on_view(Arc::new(domain.view(&["/web"])));
    assert_eq!(all(&mut session).1, [WEB]);
    assert_eq!(session.take_notes(), []);
}

#[test]
fn s_5_04_held_and_pushed_when_it_appears() {
    let domain = Domain::new("example.org");
    let (nobody, somebody) = (domain.view(&[]), Arc::new(domain.view(&["/web"])));
    let mut session = sotw(&nobody);
    session.on_request(&ask(&[WEB]), now()).unwrap();
    assert_eq!(session.next(now()), None);
    session.on_view(Arc::clone(&somebody));
    assert_eq!(all(&mut session).1, [WEB]);
    // Gone again: Envoy keeps what it has, and gets nothing new.
    session.on_view(Arc::new(nobody.clone()));
    assert_eq!(session.next(now()), None);
    session.on_view(Arc::new(domain.view(&["/web"])));
    assert_eq!(all(&mut session).1, [WEB]);

    let mut session = delta(&nobody);
    session.on_request(&subscribe(&[WEB]), now()).unwrap();
    assert_eq!(all_delta(&mut session).1, [format!("-{WEB}")]);
    session.on_view(somebody);
    assert_eq!(all_delta(&mut session).1, [WEB]);
    session.on_view(Arc::new(nobody));
    assert_eq!(all_delta(&mut session).1, [format!("-{WEB}")]);
}

#[test]
fn s_5_04_what_may_still_come_is_not_called_removed() {
    let domain = Domain::new("example.org");
    let mut view = domain.view(&[]);
    view.pending.push(domain.entry("/web", 0));
    let unsynced = WorkloadView {
        synced: false,
        ..domain.view(&[])
    };
    for view in [view, unsynced] {
        let mut session = delta(&view);
        session.on_request(&subscribe(&[WEB]), now()).unwrap();
        assert_eq!(all_delta(&mut session).1, [""; 0]);
        assert_eq!(session.take_notes().len(), 1);
    }
}

#[test]
fn s_5_05_what_other_selectors_could_change_is_worth_another_look() {
    let domain = Domain::new("example.org");
    for (name, view, worth) in [
        (WEB, domain.view(&[]), true),
        (WEB, domain.view(&["/api"]), true),
        ("spiffe://partner.test", domain.view(&["/web"]), true),
        (WEB, domain.view(&["/web"]), false),
        ("nonsense", domain.view(&["/web"]), false),
    ] {
        let (mut sotw, mut delta) = (sotw(&view), delta(&view));
        sotw.on_request(&ask(&[name]), now()).unwrap();
        delta.on_request(&subscribe(&[name]), now()).unwrap();
        all(&mut sotw);
        all_delta(&mut delta);
        assert_eq!(sotw.lacks_selectors(), worth, "{name}");
        assert_eq!(delta.lacks_selectors(), worth, "{name}");
    }
}

#[test]
fn s_5_06_a_client_that_comes_back_gets_nothing_twice() {
    let domain = Domain::new("example.org");
    let view = domain.view(&["/web", "/api"]);
    for wanted in [&[WEB][..], &[TRUST_DOMAIN], &[WEB, API, TRUST_DOMAIN]] {
        let mut session = sotw(&view);
        session.on_request(&ask(wanted), now()).unwrap();
        let last = all(&mut session).0.pop().unwrap();
        // A new agent, a new stream.
        let back = DiscoveryRequest {
            response_nonce: String::new(),
            ..ack(&last, wanted)
        };
        let mut session = sotw(&view);
        session.on_request(&back, now()).unwrap();
        assert_eq!(session.next(now()), None, "{wanted:?}");
        session.on_view(Arc::new(domain.view(&["/web", "/api"])));
        let rotated = wanted.iter().filter(|name| **name != TRUST_DOMAIN).count();
        assert_eq!(all(&mut session).1.len(), rotated);
    }
    let mut session = delta(&view);
    session.on_request(&subscribe(&[WEB, API]), now()).unwrap();
    let held = all_delta(&mut session)
        .0
        .into_iter()
        .flat_map(|one| one.resources);
    let mut back = subscribe(&[WEB, API]);
    back.initial_resource_versions = held.map(|one| (one.name, one.version)).collect();
    let mut session = delta(&view);
    session.on_request(&back, now()).unwrap();
    assert_eq!(session.next(now()), None);
    // One of them, in a version of long ago.
    back.initial_resource_versions
        .insert(API.to_owned(), "0123456789abcdef".to_owned());
    let mut session = delta(&view);
    session.on_request(&back, now()).unwrap();
    assert_eq!(all_delta(&mut session).1, [API]);
}

#[test]
fn s_5_06_a_client_of_another_server_gets_everything() {
    let domain = Domain::new("example.org");
    for version in [
        "1",
        "",
        "ffffffffffffffff",
        "FFFFFFFFFFFFFFFF",
        "+000000000000001",
    ] {
        let mut session = sotw(&domain.view(&["/web"]));
        let mut request = ask(&[WEB]);
        request.version_info = version.to_owned();
        session.on_request(&request, now()).unwrap();
        assert_eq!(all(&mut session).1, [WEB]);
    }
}

#[test]
fn s_5_06_a_held_secret_is_not_sent_again_once_it_is_there_after_a_restart() {
    let domain = Domain::new("example.org");
    let view = domain.view(&["/web"]);
    let mut session = sotw(&view);
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let version = session.next(now()).unwrap().version_info;
    let mut request = ask(&[WEB]);
    request.version_info = version;
    let mut session = sotw(&WorkloadView {
        synced: false,
        ..domain.view(&[])
    });
    session.on_request(&request, now()).unwrap();
    assert_eq!(session.next(now()), None);
    session.on_view(Arc::new(view));
    assert_eq!(session.next(now()), None);
}

#[test]
fn s_5_07_only_what_changed_goes_out() {
    let domain = Domain::new("example.org");
    let mut view = domain.view(&["/web", "/api"]);
    let mut session = delta(&view);
    session
        .on_request(&subscribe(&[WEB, API, TRUST_DOMAIN]), now())
        .unwrap();
    all_delta(&mut session);
    session.on_view(Arc::new(view.clone()));
    assert_eq!(session.next(now()), None);
    view.identities[1].svid = domain.svid("/api");
    session.on_view(Arc::new(view));
    assert_eq!(all_delta(&mut session).1, [API]);
}

#[test]
fn s_5_08_one_secret_in_a_response() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web", "/api"]));
    session.on_request(&ask(&[WEB, API]), now()).unwrap();
    let (responses, _) = all(&mut session);
    assert!(
        responses
            .iter()
            .all(|response| response.resources.len() == 1)
    );
    // One bad secret does not keep the other away.
    session
        .on_request(&nack(&responses[0], &[WEB, API]), now())
        .unwrap();
    session
        .on_request(&ack(&responses[1], &[WEB, API]), now())
        .unwrap();
    assert_eq!(session.next(now()), None);
}

#[test]
fn s_5_09_a_late_answer_still_changes_the_names() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web", "/api"]));
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let first = session.next(now()).unwrap();
    session.on_view(Arc::new(domain.view(&["/web", "/api"])));
    let second = session.next(now()).unwrap();
    assert_ne!(first.nonce, second.nonce);
    // The rejection comes late and is not counted against the second.
    session
        .on_request(&nack(&first, &[WEB, API]), now())
        .unwrap();
    assert_eq!(all(&mut session).1, [API]);
    assert_eq!(session.take_notes(), []);
    // Nobody's nonces at all.
    for nonce in [
        "x",
        "0000000000000007-99",
        "0000000000000008-1",
        "-",
        "7-1-1",
        "0000000000000007--1",
    ] {
        let mut request = nack(&second, &[WEB, API]);
        request.response_nonce = nonce.to_owned();
        session.on_request(&request, now()).unwrap();
        assert_eq!(session.next(now()), None);
        assert_eq!(session.take_notes(), []);
    }
}

#[test]
fn s_5_09_empty_nonces_after_a_response_are_subscriptions() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web", "/api"]));
    session.on_request(&ask(&[WEB]), now()).unwrap();
    session.on_request(&ask(&[WEB, API]), now()).unwrap();
    session
        .on_request(&ask(&[WEB, API, TRUST_DOMAIN]), now())
        .unwrap();
    assert_eq!(all(&mut session).1, [TRUST_DOMAIN, API, WEB]);
    session
        .on_request(&ask(&[WEB, API, TRUST_DOMAIN]), now())
        .unwrap();
    assert_eq!(session.next(now()), None);
}

#[test]
fn s_5_10_a_repeated_answer_asks_for_the_secret_again() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web"]));
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let response = session.next(now()).unwrap();
    session.on_request(&ack(&response, &[WEB]), now()).unwrap();
    assert_eq!(session.next(now()), None);
    session.on_request(&ack(&response, &[WEB]), now()).unwrap();
    let again = session.next(now()).unwrap();
    assert_eq!(
        (&again.resources, &again.version_info),
        (&response.resources, &response.version_info)
    );
    assert_ne!(again.nonce, response.nonce);
    session.on_request(&ack(&again, &[WEB]), now()).unwrap();
    assert_eq!(session.next(now()), None);
}

#[test]
fn s_5_10_a_client_that_says_everything_twice_does_not_loop() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web"]));
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let mut sent = 0;
    while let Some(response) = session.next(now()) {
        sent += 1;
        assert!(sent < 100);
        session.on_request(&ack(&response, &[WEB]), now()).unwrap();
        session.on_request(&ack(&response, &[WEB]), now()).unwrap();
    }
    // New content is another matter.
    session.on_view(Arc::new(domain.view(&["/web"])));
    let response = session.next(now()).unwrap();
    session.on_request(&ack(&response, &[WEB]), now()).unwrap();
    session.on_request(&ack(&response, &[WEB]), now()).unwrap();
    assert!(session.next(now()).is_some());
}

#[test]
fn s_5_10_a_late_first_answer_is_no_repetition() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web", "/api"]));
    session.on_request(&ask(&[WEB, API]), now()).unwrap();
    let (responses, names) = all(&mut session);
    // The name of the newest response is dropped before that is answered.
    let [kept, dropped] = &responses[..] else {
        panic!("two responses");
    };
    session.on_request(&ask(&[&names[0]]), now()).unwrap();
    for response in [kept, dropped] {
        session
            .on_request(&ack(response, &[&names[0]]), now())
            .unwrap();
        assert_eq!(session.next(now()), None);
    }
}

#[test]
fn s_5_11_nothing_is_sent_unasked() {
    let domain = Domain::new("example.org");
    let view = domain.view(&["/web"]);
    let mut session = sotw(&view);
    session.on_request(&ask(&[]), now()).unwrap();
    assert_eq!(session.next(now()), None);
    assert_eq!(session.take_notes(), [Note::Wildcard]);
    session.on_view(Arc::new(domain.view(&["/web"])));
    assert_eq!(session.next(now()), None);
    // After names, no names means none.
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let response = session.next(now()).unwrap();
    session.on_request(&ack(&response, &[]), now()).unwrap();
    session.on_view(Arc::new(domain.view(&["/web"])));
    assert_eq!(session.next(now()), None);
    assert_eq!(session.take_notes(), []);
    // The empty name is a name.
    session.on_request(&ask(&[""]), now()).unwrap();
    assert_eq!(session.next(now()), None);

    for wildcard in [&[][..], &["*"]] {
        let mut session = delta(&view);
        session.on_request(&subscribe(wildcard), now()).unwrap();
        assert_eq!(session.next(now()), None);
        assert_eq!(session.take_notes(), [Note::Wildcard]);
    }
}

#[test]
fn s_5_11_unsubscribed_names_are_not_pushed() {
    let domain = Domain::new("example.org");
    let mut session = delta(&domain.view(&["/web", "/api"]));
    session.on_request(&subscribe(&[WEB, API]), now()).unwrap();
    let (responses, _) = all_delta(&mut session);
    let mut request = answer(&responses[0]);
    request.resource_names_unsubscribe = names(&[API, "*", "never"]);
    session.on_request(&request, now()).unwrap();
    session.on_view(Arc::new(domain.view(&["/web", "/api"])));
    assert_eq!(all_delta(&mut session).1, [WEB]);
    // Asked for again, it is sent again, though it has not changed.
    session.on_request(&subscribe(&[API]), now()).unwrap();
    assert_eq!(all_delta(&mut session).1, [API]);
    session.on_request(&subscribe(&[API]), now()).unwrap();
    assert_eq!(all_delta(&mut session).1, [API]);
}

#[test]
fn s_5_12_every_response_says_what_it_is() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web"]));
    session
        .on_request(&ask(&[WEB, TRUST_DOMAIN]), now())
        .unwrap();
    for response in all(&mut session).0 {
        assert_eq!(response.type_url, TYPE_URL);
        assert_eq!(response.version_info.len(), 16);
        assert!(!response.nonce.is_empty());
        assert!(
            response
                .control_plane
                .unwrap()
                .identifier
                .starts_with("signet-agent/")
        );
    }
    let mut session = delta(&domain.view(&["/web"]));
    session.on_request(&subscribe(&[WEB, API]), now()).unwrap();
    for response in all_delta(&mut session).0 {
        assert_eq!(response.type_url, TYPE_URL);
        assert!(!response.nonce.is_empty());
        assert!(response.control_plane.is_some());
    }
}

#[test]
fn s_5_13_the_node_is_remembered_from_the_first_request() {
    let domain = Domain::new("example.org");
    let plain = |name: &str| Node {
        id: name.to_owned(),
        cluster: "fleet".to_owned(),
        metadata: Some(prost_types::Struct {
            fields: [(
                "disable_spiffe_cert_validation".to_owned(),
                prost_types::Value {
                    kind: Some(prost_types::value::Kind::BoolValue(true)),
                },
            )]
            .into(),
        }),
        ..Node::default()
    };
    let mut session = sotw(&domain.view(&["/web"]));
    let mut first = ask(&[]);
    first.node = Some(plain("envoy-1"));
    session.on_request(&first, now()).unwrap();
    session.on_request(&ask(&[TRUST_DOMAIN]), now()).unwrap();
    assert_eq!(session.node(), Some("fleet/envoy-1"));
    let sent = secret(&session.next(now()).unwrap().resources[0]);
    let Some(envoy::tls::secret::Type::ValidationContext(context)) = sent.r#type else {
        panic!("a validation context");
    };
    assert!(context.trusted_ca.is_some() && context.custom_validator_config.is_none());
}

/// The slim message reads what Envoy's own writes, and skips the bulk.
#[test]
fn s_5_14_requests_are_read_without_the_bulk_of_the_node() {
    let extension = |number: u32| envoy::core::Extension {
        name: format!("envoy.extension.{number}"),
        category: "x".repeat(100),
        ..envoy::core::Extension::default()
    };
    let full = envoy::discovery::DiscoveryRequest {
        version_info: "v".to_owned(),
        node: Some(envoy::core::Node {
            id: "id".to_owned(),
            cluster: "cluster".to_owned(),
            user_agent_name: "envoy".to_owned(),
            extensions: (0..516).map(extension).collect(),
            user_agent_version_type: Some(
                envoy::core::node::UserAgentVersionType::UserAgentBuildVersion(
                    envoy::core::BuildVersion::default(),
                ),
            ),
            ..envoy::core::Node::default()
        }),
        resource_names: names(&[WEB]),
        type_url: TYPE_URL.to_owned(),
        response_nonce: "n".to_owned(),
        ..envoy::discovery::DiscoveryRequest::default()
    };
    let slim = DiscoveryRequest::decode(&*full.encode_to_vec()).unwrap();
    let node = slim.node.clone().unwrap();
    assert_eq!((&*node.id, &*node.cluster), ("id", "cluster"));
    assert_eq!(
        (&slim.version_info, &slim.response_nonce),
        (&full.version_info, &full.response_nonce)
    );
    assert_eq!(
        (&slim.resource_names, &slim.type_url),
        (&full.resource_names, &full.type_url)
    );
    assert!(slim.encoded_len() < 200);

    // And Envoy's own reads what the slim ones write.
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web"]));
    session.on_request(&slim, now()).unwrap();
    let response = session.next(now()).unwrap();
    let read = envoy::discovery::DiscoveryResponse::decode(&*response.encode_to_vec()).unwrap();
    assert_eq!(
        (&read.nonce, &read.type_url),
        (&response.nonce, &response.type_url)
    );
    assert_eq!(read.resources[0].encode_to_vec(), response.resources[0]);
    let mut session = delta(&domain.view(&["/web"]));
    session.on_request(&subscribe(&[WEB]), now()).unwrap();
    let response = session.next(now()).unwrap();
    let read =
        envoy::discovery::DeltaDiscoveryResponse::decode(&*response.encode_to_vec()).unwrap();
    assert_eq!(
        (&*read.resources[0].name, &read.resources[0].version),
        (WEB, &response.resources[0].version)
    );
}

#[test]
fn s_5_14_names_are_bounded() {
    let domain = Domain::new("example.org");
    let view = domain.view(&["/web"]);
    let many: Vec<String> = (0..10_000)
        .map(|number| format!("spiffe://example.org/{number}"))
        .collect();
    let request = DiscoveryRequest {
        resource_names: many.clone(),
        ..ask(&[])
    };
    assert_eq!(
        sotw(&view).on_request(&request, now()),
        Err(RequestError::TooManyNames)
    );
    let refused = fetch(&Secrets::new(Options::default()), &view, &request, now());
    assert_eq!(refused, Err(RequestError::TooManyNames.into()));
    let mut session = delta(&view);
    let part = |names: &[String]| DeltaDiscoveryRequest {
        resource_names_subscribe: names.to_vec(),
        ..subscribe(&[])
    };
    assert_eq!(session.on_request(&part(&many[..MAX_NAMES]), now()), Ok(()));
    // The same ones again are no more than before.
    assert_eq!(session.on_request(&part(&many[..MAX_NAMES]), now()), Ok(()));
    assert_eq!(
        session.on_request(&part(&many[MAX_NAMES..=MAX_NAMES]), now()),
        Err(RequestError::TooManyNames)
    );
}

#[test]
fn s_5_15_fetch_gives_what_there_is() {
    let domain = Domain::new("example.org");
    let secrets = Secrets::new(Options::default());
    let view = domain.view(&["/web"]);
    let fetched = |view, wanted: &[&str]| fetch(&secrets, view, &ask(wanted), now());
    let response = fetched(&view, &[WEB, "nonsense", TRUST_DOMAIN]).unwrap();
    let sent: Vec<_> = response
        .resources
        .iter()
        .map(|any| secret(any).name)
        .collect();
    assert_eq!(sent, [TRUST_DOMAIN, WEB]);
    assert_eq!(response.type_url, TYPE_URL);
    assert!(Version::read(&response.version_info).is_some());
    assert_eq!(fetched(&view, &[]), Err(FetchError::NoNames));
    assert!(matches!(
        fetched(&view, &[API]),
        Err(FetchError::Refused { .. })
    ));
    let mut waiting = domain.view(&[]);
    waiting.pending.push(domain.entry("/web", 0));
    let refused = fetched(&waiting, &["nonsense", WEB, "zzz"]);
    assert!(matches!(&refused, Err(FetchError::NotYet { name, .. }) if name == WEB));
}

#[test]
fn s_5_32_another_type_of_resource_is_a_clear_error() {
    let domain = Domain::new("example.org");
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let error = RequestError::Type(cluster.to_owned());
    let text = error.to_string();
    assert!(text.contains(cluster) && text.contains(TYPE_URL));
    let refused = Err(error);
    let mut request = ask(&[WEB]);
    request.type_url = cluster.to_owned();
    assert_eq!(sotw(&domain.view(&[])).on_request(&request, now()), refused);
    let mut request = subscribe(&[WEB]);
    request.type_url = cluster.to_owned();
    assert_eq!(
        delta(&domain.view(&[])).on_request(&request, now()),
        refused
    );
    // A stream of secrets alone need not say so.
    let mut request = ask(&[WEB]);
    request.type_url = String::new();
    assert_eq!(sotw(&domain.view(&[])).on_request(&request, now()), Ok(()));
}

#[test]
fn s_5_37_a_rejection_is_told_with_name_version_and_words() {
    let domain = Domain::new("example.org");
    let view = domain.view(&["/web"]);
    let mut session = sotw(&view);
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let response = session.next(now()).unwrap();
    session.on_request(&nack(&response, &[WEB]), now()).unwrap();
    let notes = session.take_notes();
    let [
        Note::Rejected {
            name,
            version,
            certificate: Some(certificate),
            message,
        },
    ] = &notes[..]
    else {
        panic!("one rejection, not {notes:?}");
    };
    assert_eq!((&**name, &**message), (WEB, "KEY_VALUES_MISMATCH"));
    assert_eq!(*version, Version::read(&response.version_info));
    let svid = &view.identities[0].svid;
    assert_eq!(certificate.id, *svid.id());
    assert_eq!(certificate.serial, svid.leaf().serial_decimal());
    assert_eq!(certificate.expires_at, svid.expires_at());
}

#[test]
fn s_5_38_what_was_rejected_is_not_sent_again() {
    let domain = Domain::new("example.org");
    let (first, second, third) = (
        domain.view(&["/web"]),
        domain.view(&["/web"]),
        domain.view(&["/web"]),
    );
    let mut session = delta(&first);
    session.on_request(&subscribe(&[WEB]), now()).unwrap();
    let accepted = session.next(now()).unwrap();
    session.on_request(&answer(&accepted), now()).unwrap();
    session.on_view(Arc::new(second.clone()));
    let rejected = session.next(now()).unwrap();
    let mut request = answer(&rejected);
    request.error_detail = Some(refusal());
    session.on_request(&request, now()).unwrap();
    assert_eq!(session.next(now()), None);
    session.on_view(Arc::new(second));
    assert_eq!(session.next(now()), None);
    // What the client still holds need not be sent either, but something new is.
    session.on_view(Arc::new(first));
    assert_eq!(session.next(now()), None);
    session.on_view(Arc::new(third));
    assert_eq!(all_delta(&mut session).1, [WEB]);
}

#[test]
fn s_5_38_a_client_whose_state_is_unclear_is_brought_to_the_view() {
    let domain = Domain::new("example.org");
    let (first, second, third) = (
        domain.view(&["/web"]),
        domain.view(&["/web"]),
        domain.view(&["/web"]),
    );
    let mut session = delta(&first);
    session.on_request(&subscribe(&[WEB]), now()).unwrap();
    all_delta(&mut session);
    session.on_view(Arc::new(second));
    all_delta(&mut session);
    session.on_view(Arc::new(third));
    let last = session.next(now()).unwrap();
    // Which of the first two it holds, nobody knows.
    let mut request = answer(&last);
    request.error_detail = Some(refusal());
    session.on_request(&request, now()).unwrap();
    assert_eq!(session.next(now()), None);
    session.on_view(Arc::new(first));
    assert_eq!(all_delta(&mut session).1, [WEB]);
}

#[test]
fn s_5_40_a_slow_reader_gets_the_newest_alone() {
    let domain = Domain::new("example.org");
    let mut view = domain.view(&["/web"]);
    let mut session = sotw(&view);
    session.on_request(&ask(&[WEB]), now()).unwrap();
    for _ in 0..100 {
        view.identities[0].svid = domain.svid("/web");
        session.on_view(Arc::new(view.clone()));
    }
    let (responses, _) = all(&mut session);
    assert_eq!(responses.len(), 1);
    let sent = secret(&responses[0].resources[0]);
    let newest = view.identities[0].svid.chain_pem();
    assert!(format!("{:?}", sent.r#type.unwrap()).contains(&format!("{:?}", newest.as_bytes())));
}
