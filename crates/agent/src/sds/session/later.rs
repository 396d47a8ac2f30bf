//! The requirements that hang on time, on other streams, or on the operator's choices.

use std::time::Duration;

use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};
use proto::{
    discovery::Node,
    envoy::tls::{Secret, SpiffeCertValidatorConfig, secret::Type},
};

use super::{
    subscription::ANSWER_WITHIN,
    tests::{
        API, TRUST_DOMAIN, WEB, ack, all, all_delta, answer, ask, delta, nack, refusal, sotw,
        subscribe,
    },
    *,
};
use crate::{
    sds::{
        AllowList, Options, Secrets,
        fixtures::{DAY, Domain, federating, now, secret},
    },
    workloads::WorkloadView,
};

const SECOND: Duration = Duration::from_secs(1);

fn with(options: Options) -> Arc<Secrets> {
    Arc::new(Secrets::new(options))
}

fn session(secrets: &Arc<Secrets>, view: &WorkloadView) -> StreamSecrets {
    StreamSecrets::new(Arc::clone(secrets), Arc::new(view.clone()), 7)
}

/// A pause after which nothing is left but the alarm at this time.
fn pass(session: &mut StreamSecrets, time: std::time::SystemTime) -> Result<Vec<Note>, Absent> {
    assert_eq!(session.next(now()), None);
    let state = session.subscriptions_mut();
    assert_eq!(state.wake_at(), Some(time));
    state.on_time(time - Duration::from_millis(1)).unwrap();
    assert_eq!(state.take_notes(), []);
    let result = state.on_time(time);
    let notes = state.take_notes();
    result.map(|()| notes)
}

#[test]
fn s_5_05_a_stream_that_was_given_nothing_ends_after_hold_max() {
    let domain = Domain::new("example.org");
    let hold_max = Options::default().hold_max;
    let secrets = with(Options::default());
    let mut held = session(&secrets, &domain.view(&["/web"]));
    held.on_request(&ask(&[API]), now()).unwrap();
    assert_eq!(held.next(now()), None);
    held.take_notes();
    let why = pass(&mut held, now() + hold_max).unwrap_err();
    assert!(why.to_string().contains(API), "{why}");

    // One name that is served keeps the stream, whatever becomes of the others.
    let mut served = session(&secrets, &domain.view(&["/web"]));
    served.on_request(&ask(&[API, WEB]), now()).unwrap();
    assert_eq!(all(&mut served).1, [WEB]);
    assert_eq!(
        served.subscriptions_mut().on_time(now() + 2 * hold_max),
        Ok(())
    );
    // And what came in time counts.
    let mut late = session(&secrets, &domain.view(&[]));
    late.on_request(&ask(&[WEB]), now()).unwrap();
    assert_eq!(late.next(now()), None);
    late.on_view(Arc::new(domain.view(&["/web"])));
    assert_eq!(all(&mut late).1, [WEB]);
    assert_eq!(late.subscriptions_mut().on_time(now() + hold_max), Ok(()));
    // A definite answer is an answer.
    let mut told = delta(&domain.view(&[]));
    told.on_request(&subscribe(&[WEB]), now()).unwrap();
    assert_eq!(all_delta(&mut told).1, [format!("-{WEB}")]);
    assert_eq!(
        told.subscriptions_mut().on_time(now() + 2 * hold_max),
        Ok(())
    );
}

#[test]
fn s_5_05_hold_max_can_be_for_ever() {
    let secrets = with(Options {
        hold_max: Duration::ZERO,
        ..Options::default()
    });
    let mut held = session(&secrets, &Domain::new("example.org").view(&[]));
    held.on_request(&ask(&[WEB]), now()).unwrap();
    assert_eq!(held.next(now()), None);
    assert_eq!(held.subscriptions().wake_at(), None);
    assert_eq!(held.subscriptions_mut().on_time(now() + 365 * DAY), Ok(()));
}

#[test]
fn s_5_39_a_response_without_an_answer_is_told_once() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web"]));
    session.on_request(&ask(&[WEB]), now()).unwrap();
    all(&mut session);
    let notes = pass(&mut session, now() + ANSWER_WITHIN).unwrap();
    assert!(
        matches!(&notes[..], [Note::Unanswered { name, certificate: Some(_) }] if **name == *WEB),
        "{notes:?}"
    );
    assert_eq!(session.subscriptions().wake_at(), None);
}

#[test]
fn s_5_36_the_time_an_answer_takes_is_known() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web"]));
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let sent = session.next(now()).unwrap();
    session
        .on_request(&ack(&sent, &[WEB]), now() + SECOND)
        .unwrap();
    assert_eq!(session.subscriptions_mut().take_answer_times(), [SECOND]);
    assert_eq!(
        session.subscriptions_mut().take_answer_times(),
        [Duration::ZERO; 0]
    );
}

#[test]
fn s_5_18_a_certificate_that_expires_with_its_client_raises_the_alarm() {
    let domain = Domain::new("example.org");
    let mut view = domain.view(&["/web"]);
    let expires_at = view.identities[0].svid.expires_at();
    let mut session = sotw(&view);
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let sent = session.next(now()).unwrap();
    session.on_request(&ack(&sent, &[WEB]), now()).unwrap();
    // The server is away: no newer one comes, and the stream stays.
    let gone = view.identities.remove(0);
    view.pending.push(gone.entry);
    session.on_view(Arc::new(view.clone()));
    assert_eq!(session.next(now()), None);
    session.take_notes();
    let notes = pass(&mut session, expires_at).unwrap();
    assert!(
        matches!(&notes[..], [Note::Expired { certificate, .. }] if certificate.id.as_str() == WEB),
        "{notes:?}"
    );
    assert_eq!(session.subscriptions().wake_at(), None);
    // And it goes on where it left off.
    session.on_view(Arc::new(domain.view(&["/web"])));
    assert_eq!(all(&mut session).1, [WEB]);
}

#[test]
fn s_5_18_after_a_restart_the_certificate_of_before_counts_too() {
    let domain = Domain::new("example.org");
    let view = domain.view(&["/web"]);
    let mut session = sotw(&view);
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let mut back = ask(&[WEB]);
    back.version_info = session.next(now()).unwrap().version_info;
    let mut session = sotw(&view);
    session.on_request(&back, now()).unwrap();
    assert_eq!(session.next(now()), None);
    let expires_at = view.identities[0].svid.expires_at();
    assert_eq!(session.subscriptions().wake_at(), Some(expires_at));
}

#[test]
fn s_5_38_a_rotation_that_is_not_taken_is_told_while_there_is_time() {
    let domain = Domain::new("example.org");
    let first = domain.view(&["/web"]);
    let left = first.identities[0].svid.expires_at().duration_since(now());
    let half = now() + left.unwrap() / 2;
    let mut session = sotw(&first);
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let sent = session.next(now()).unwrap();
    session.on_request(&ack(&sent, &[WEB]), now()).unwrap();
    session.on_view(Arc::new(domain.view(&["/web"])));
    let rotated = session.next(now()).unwrap();
    session.on_request(&nack(&rotated, &[WEB]), now()).unwrap();
    assert_eq!(session.next(now()), None);
    session.take_notes();
    let notes = pass(&mut session, half).unwrap();
    assert!(matches!(&notes[..], [Note::Overdue { .. }]), "{notes:?}");
    // One that is taken ends it.
    session.on_view(Arc::new(domain.view(&["/web"])));
    let third = session.next(now()).unwrap();
    session.on_request(&ack(&third, &[WEB]), now()).unwrap();
    assert!(session.subscriptions().wake_at() > Some(half));
}

/// Two Envoys of one node, of which one is slow with the new authority.
#[test]
fn s_5_28_a_new_authority_is_everywhere_before_its_certificates() {
    let (old, new) = (Domain::new("example.org"), Domain::new("example.org"));
    let secrets = with(Options::default());
    let before = old.view(&["/web"]);
    let mut both = (*old.bundle).clone();
    both.x509_authorities
        .push(new.bundle.x509_authorities[0].clone());
    let mut after = new.view(&["/web"]);
    after.bundle = Arc::new(both);

    let mut bundle = session(&secrets, &before);
    bundle.on_request(&ask(&[TRUST_DOMAIN]), now()).unwrap();
    let sent = bundle.next(now()).unwrap();
    bundle
        .on_request(&ack(&sent, &[TRUST_DOMAIN]), now())
        .unwrap();
    let mut certificate = session(&secrets, &before);
    certificate.on_request(&ask(&[WEB]), now()).unwrap();
    let sent = certificate.next(now()).unwrap();
    certificate.on_request(&ack(&sent, &[WEB]), now()).unwrap();

    certificate.on_view(Arc::new(after.clone()));
    assert_eq!(certificate.next(now()), None);
    let until = now() + Options::default().authority_ack_timeout;
    assert_eq!(certificate.subscriptions().wake_at(), Some(until));
    let changes = secrets.gate_changes();
    bundle.on_view(Arc::new(after));
    let sent = bundle.next(now()).unwrap();
    assert!(!changes.has_changed().unwrap());
    bundle
        .on_request(&ack(&sent, &[TRUST_DOMAIN]), now())
        .unwrap();
    assert!(changes.has_changed().unwrap());
    certificate.subscriptions_mut().on_gate();
    assert_eq!(all(&mut certificate).1, [WEB]);
}

#[test]
fn s_5_28_who_never_answers_holds_nobody_up_for_long() {
    let (old, new) = (Domain::new("example.org"), Domain::new("example.org"));
    let secrets = with(Options::default());
    let mut silent = session(&secrets, &old.view(&["/web"]));
    silent.on_request(&ask(&[TRUST_DOMAIN]), now()).unwrap();
    silent.next(now()).unwrap();
    let mut waits = session(&secrets, &new.view(&["/web"]));
    waits.on_request(&ask(&[WEB]), now()).unwrap();
    assert_eq!(waits.next(now()), None);
    let later = waits.subscriptions().wake_at().unwrap();
    waits.subscriptions_mut().on_time(later).unwrap();
    let sent = waits.next(later).unwrap();
    assert_eq!(secret(&sent.resources[0]).name, WEB);
}

fn validation(secret: &Secret) -> SpiffeCertValidatorConfig {
    let Some(Type::ValidationContext(context)) = &secret.r#type else {
        panic!("a validation context");
    };
    let validator = context.custom_validator_config.as_ref().unwrap();
    let config = validator.typed_config.as_ref().unwrap();
    SpiffeCertValidatorConfig::decode(&*config.value).unwrap()
}

#[test]
fn s_5_19_a_revoked_bundle_denies_everybody_where_that_is_wanted() {
    let (domain, partner) = (Domain::new("example.org"), Domain::new("partner.test"));
    let name = "spiffe://partner.test";
    let alone = domain.view(&["/web"]);
    let together = federating(alone.clone(), &partner);
    let secrets = with(Options {
        deny_when_revoked: true,
        ..Options::default()
    });
    let mut stream = session(&secrets, &together);
    stream.on_request(&ask(&[name]), now()).unwrap();
    let sent = stream.next(now()).unwrap();
    stream.on_request(&ack(&sent, &[name]), now()).unwrap();
    stream.on_view(Arc::new(alone.clone()));
    let denial = stream.next(now()).unwrap();
    let sent = secret(&denial.resources[0]);
    assert_eq!(sent.name, name);
    assert_eq!(validation(&sent).trust_domains, []);
    stream.on_request(&ack(&denial, &[name]), now()).unwrap();
    stream.on_view(Arc::new(alone.clone()));
    assert_eq!(stream.next(now()), None, "once");
    stream.on_view(Arc::new(together.clone()));
    assert_eq!(all(&mut stream).1, [name]);
    // Who never had it is not told to deny, and nobody is unless it is wanted.
    let mut stranger = session(&secrets, &alone);
    stranger.on_request(&ask(&[name]), now()).unwrap();
    assert_eq!(stranger.next(now()), None);
    let mut kept = sotw(&together);
    kept.on_request(&ask(&[name]), now()).unwrap();
    all(&mut kept);
    kept.on_view(Arc::new(alone));
    assert_eq!(kept.next(now()), None);
}

fn hinted(view: &mut WorkloadView, number: usize, hint: &str) {
    let mut entry = (*view.identities[number].entry).clone();
    entry.hint = hint.to_owned();
    view.identities[number].entry = Arc::new(entry);
}

fn leaf_of(response: &proto::discovery::DiscoveryResponse) -> String {
    let Some(Type::TlsCertificate(certificate)) = secret(&response.resources[0]).r#type else {
        panic!("a certificate");
    };
    let chain = certificate.certificate_chain.unwrap().specifier.unwrap();
    let proto::envoy::core::data_source::Specifier::InlineBytes(pem) = chain else {
        panic!("inline bytes");
    };
    String::from_utf8(pem).unwrap()
}

fn node(key: &str, kind: Kind) -> Node {
    let value = Value { kind: Some(kind) };
    Node {
        metadata: Some(Struct {
            fields: [(key.to_owned(), value)].into(),
        }),
        ..Node::default()
    }
}

#[test]
fn s_5_33_a_hint_selects_the_identity() {
    let domain = Domain::new("example.org");
    let mut view = domain.view(&["/web", "/api"]);
    hinted(&mut view, 0, "internal");
    hinted(&mut view, 1, "external");
    let leaf = |number: usize| view.identities[number].svid.chain_pem();
    let choose = |hint: Option<&str>| {
        with(Options {
            default_svid_hint: hint.map(str::to_owned),
            ..Options::default()
        })
    };
    let own = |hint: &str| {
        Some(node(
            "default_svid_hint",
            Kind::StringValue(hint.to_owned()),
        ))
    };
    for (configured, node, name, expected) in [
        (None, None, "default", 0),
        (Some("external"), None, "default", 1),
        (Some("nobody's"), None, "default", 0),
        // The Envoy's own word goes first.
        (Some("internal"), own("external"), "default", 1),
        (None, None, "hint:external", 1),
        (Some("internal"), None, "hint:external", 1),
    ] {
        let mut stream = session(&choose(configured), &view);
        let request = proto::discovery::DiscoveryRequest {
            node,
            ..ask(&[name])
        };
        stream.on_request(&request, now()).unwrap();
        let sent = stream.next(now()).unwrap();
        assert_eq!(leaf_of(&sent), leaf(expected), "{configured:?} {name}");
    }
    let mut stream = sotw(&view);
    stream.on_request(&ask(&["hint:other"]), now()).unwrap();
    assert_eq!(stream.next(now()), None);
    let notes = stream.take_notes();
    assert!(
        matches!(
            &notes[..],
            [Note::Withheld {
                why: Absent::NoHint(_),
                ..
            }]
        ),
        "{notes:?}"
    );
}

#[test]
fn s_5_01_a_stream_of_many_types_is_answered_for_secrets_alone() {
    let domain = Domain::new("example.org");
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let mut stream = sotw(&domain.view(&["/web"])).aggregated();
    for type_url in [cluster, "", cluster] {
        let mut request = ask(&[]);
        request.type_url = type_url.to_owned();
        assert_eq!(stream.on_request(&request, now()), Ok(()));
        assert_eq!(stream.next(now()), None);
    }
    let told = |type_url: &str| Note::ForeignType(type_url.to_owned());
    assert_eq!(stream.take_notes(), [told(cluster), told("")]);
    stream.on_request(&ask(&[WEB]), now()).unwrap();
    assert_eq!(all(&mut stream).1, [WEB]);
    // Envoy's way of asking for more before it has seen the first response (W12).
    stream
        .on_request(&ask(&[WEB, TRUST_DOMAIN]), now())
        .unwrap();
    assert_eq!(all(&mut stream).1, [TRUST_DOMAIN]);

    let mut stream = delta(&domain.view(&["/web"])).aggregated();
    let mut request = subscribe(&["*"]);
    request.type_url = cluster.to_owned();
    assert_eq!(stream.on_request(&request, now()), Ok(()));
    assert_eq!(stream.next(now()), None);
    assert_eq!(stream.take_notes(), [told(cluster)]);
    stream.on_request(&subscribe(&[WEB]), now()).unwrap();
    let (sent, names) = all_delta(&mut stream);
    assert_eq!(names, [WEB]);
    // A rejection of another type's resource is none of ours.
    let mut other = answer(&sent[0]);
    other.type_url = cluster.to_owned();
    other.error_detail = Some(refusal());
    stream.on_request(&other, now()).unwrap();
    assert_eq!(stream.take_notes(), []);
}

#[test]
fn s_5_24_an_allow_list_lets_in_its_peers_alone() {
    use proto::envoy::{
        matcher::string_matcher::MatchPattern, tls::subject_alt_name_matcher::SanType,
    };
    let (domain, partner) = (Domain::new("example.org"), Domain::new("partner.test"));
    let list = AllowList::parse(&[
        "spiffe://example.org/web",
        "spiffe://partner.test/ns/prod/*",
    ]);
    let list = Arc::new(list.unwrap());
    let secrets = with(Options {
        allow_lists: [("peers".to_owned(), list)].into(),
        ..Options::default()
    });
    let view = federating(domain.view(&["/web"]), &partner);
    let mut stream = session(&secrets, &view);
    stream
        .on_request(&ask(&["peers", "ROOTCA"]), now())
        .unwrap();
    let (responses, names) = all(&mut stream);
    assert_eq!(names, ["ROOTCA", "peers"]);
    let sent = secret(&responses[1].resources[0]);
    let trust_domains = validation(&sent).trust_domains;
    let names: Vec<_> = trust_domains.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["example.org", "partner.test"]);
    let matchers = |secret: &Secret| match &secret.r#type {
        Some(Type::ValidationContext(context)) => context.match_typed_subject_alt_names.clone(),
        _ => panic!("a validation context"),
    };
    let found: Vec<_> = matchers(&sent)
        .into_iter()
        .map(|one| {
            // DNS names would let everybody in (V6).
            assert_eq!(one.san_type(), SanType::Uri);
            one.matcher.unwrap().match_pattern.unwrap()
        })
        .collect();
    assert_eq!(
        found,
        [
            MatchPattern::Exact("spiffe://example.org/web".to_owned()),
            MatchPattern::Prefix("spiffe://partner.test/ns/prod/".to_owned()),
        ]
    );
    // Envoy adds lists up, so nobody gets matchers without asking for them (V5).
    assert_eq!(matchers(&secret(&responses[0].resources[0])), []);
}

#[test]
fn s_5_22_the_stream_s_own_metadata_choose_the_form() {
    let domain = Domain::new("example.org");
    let disable = |disable| {
        Some(node(
            "disable_spiffe_cert_validation",
            Kind::BoolValue(disable),
        ))
    };
    for (stream, node, plain) in [
        (None, None, false),
        (Some(true), None, true),
        (Some(true), disable(false), true),
        (Some(false), disable(true), false),
    ] {
        let mut session = sotw(&domain.view(&["/web"]));
        if let Some(disable) = stream {
            let state = session.subscriptions_mut();
            state.disable_spiffe_cert_validation(disable);
        }
        let request = proto::discovery::DiscoveryRequest {
            node,
            ..ask(&[TRUST_DOMAIN])
        };
        session.on_request(&request, now()).unwrap();
        let sent = session.next(now()).unwrap();
        let Some(Type::ValidationContext(context)) = secret(&sent.resources[0]).r#type else {
            panic!("a validation context");
        };
        assert_eq!(context.trusted_ca.is_some(), plain);
    }
}
