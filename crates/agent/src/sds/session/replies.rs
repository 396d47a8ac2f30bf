//! The requirements on what is sent and on what is read, one by one.

use prost::Message as _;
use proto::{
    discovery::{DeltaDiscoveryRequest, DiscoveryRequest, Node},
    envoy,
};

use super::{tests::*, *};
use crate::sds::{
    Options, Secrets,
    fixtures::{Domain, now, secret},
};

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
