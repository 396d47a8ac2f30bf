//! The requirements on sessions, one by one.

use identity::SpiffeId;
use proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Status,
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
