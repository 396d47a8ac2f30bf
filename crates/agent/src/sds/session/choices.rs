//! The requirements that hang on the operator's choices.

use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};
use proto::{
    discovery::Node,
    envoy::tls::{Secret, SpiffeCertValidatorConfig, secret::Type},
};

use super::{
    later::{session, with},
    tests::{TRUST_DOMAIN, WEB, ack, all, all_delta, answer, ask, delta, refusal, sotw, subscribe},
    *,
};
use crate::{
    sds::{
        AllowList, Options,
        fixtures::{Domain, federating, now, secret},
    },
    workloads::WorkloadView,
};

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

/// A rotation is encoded once for however many streams take it, and so goes out without a pause between them.
#[test]
fn s_5_41_a_rotation_is_encoded_once_for_a_thousand_streams() {
    let (domain, secrets) = (Domain::new("example.org"), with(Options::default()));
    let before = Arc::new(domain.view(&["/web"]));
    let mut streams: Vec<_> = (0..1000)
        .map(|number| StreamSecrets::new(Arc::clone(&secrets), Arc::clone(&before), number))
        .collect();
    for stream in &mut streams {
        stream.on_request(&ask(&[WEB]), now()).unwrap();
        assert!(stream.next(now()).is_some());
    }
    let after = Arc::new(domain.view(&["/web"]));
    let mut bytes: Option<bytes::Bytes> = None;
    for stream in &mut streams {
        stream.on_view(Arc::clone(&after));
        let sent = stream.next(now()).unwrap().resources.remove(0);
        let first = bytes.get_or_insert_with(|| sent.clone());
        assert_eq!(first.as_ptr(), sent.as_ptr(), "the same bytes in memory");
        assert_eq!(stream.next(now()), None);
    }
}
