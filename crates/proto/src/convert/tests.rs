use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{
    Bundle, EntryId, IdError, JwtAuthority, KeyType, PrivateKey, RegistrationEntry, Selector,
    SelectorError, SpiffeId, TrustDomain,
};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};

use super::*;
use crate::spire::api::types;

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn at(unix_seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix_seconds)
}

fn full_entry() -> RegistrationEntry {
    RegistrationEntry {
        id: EntryId::new("e-1").unwrap(),
        spiffe_id: id("spiffe://example.org/web"),
        parent_id: id("spiffe://example.org/agent/1"),
        selectors: [
            Selector::parse("unix:uid:1000").unwrap(),
            Selector::parse("unix:path:/bin/web").unwrap(),
        ]
        .into_iter()
        .collect(),
        x509_svid_ttl: Some(Duration::from_secs(60)),
        jwt_svid_ttl: Some(Duration::from_secs(30)),
        federates_with: [TrustDomain::new("other.test").unwrap()].into(),
        admin: true,
        downstream: true,
        expires_at: Some(at(2_000_000_000)),
        dns_names: vec!["web.example.org".into()],
        revision: 4,
        store_svid: true,
        hint: "internal".into(),
        created_at: at(1_700_000_000),
        disable_x509_svid_prefetch: true,
        jwt_svid_include_jti: true,
    }
}

#[test]
fn an_entry_survives_the_wire() {
    let sent = full_entry();
    let bytes = types::Entry::from(&sent).encode_to_vec();
    let received = types::Entry::decode(&*bytes).unwrap();
    assert_eq!(entry(&received), Ok(sent));
}

#[test]
fn what_a_caller_may_not_choose_is_not_taken_from_a_new_entry() {
    let wire = types::Entry {
        id: String::new(),
        ..(&full_entry()).into()
    };
    let made = new_entry(&wire, || EntryId::new("made").unwrap(), at(5)).unwrap();
    assert_eq!(made.id.as_str(), "made");
    assert_eq!((made.revision, made.created_at), (0, at(5)));
    let chosen = new_entry(&(&full_entry()).into(), || unreachable!(), at(5)).unwrap();
    assert_eq!(chosen.id.as_str(), "e-1");
}

#[test]
fn the_wrong_field_is_named() {
    let check = |spoil: &dyn Fn(&mut types::Entry), field: &str, message: &str| {
        let mut wire = types::Entry::from(&full_entry());
        spoil(&mut wire);
        let error = entry(&wire).unwrap_err();
        assert_eq!(error.field, field);
        assert_eq!(error.to_string(), message);
    };
    check(&|e| e.id.clear(), "id", "id: is missing");
    check(
        &|e| e.spiffe_id = None,
        "spiffe_id",
        "spiffe_id: is missing",
    );
    check(
        &|e| e.parent_id.as_mut().unwrap().path = "/a//b".into(),
        "parent_id",
        "parent_id: the path has an empty segment",
    );
    check(
        &|e| e.selectors[1].value.clear(),
        "selectors[1]",
        "selectors[1]: the selector's value is empty; write `type:value`, for example `unix:uid:1000`",
    );
    check(
        &|e| e.x509_svid_ttl = -1,
        "x509_svid_ttl",
        "x509_svid_ttl: is -1; write 0 for the default, or a positive number of seconds",
    );
    check(
        &|e| e.expires_at = i64::MAX,
        "expires_at",
        "expires_at: is 9223372036854775807; write unix seconds, or 0 for none",
    );
    check(
        &|e| e.federates_with.push("Other".into()),
        "federates_with[1]",
        "federates_with[1]: the trust domain may hold only `a-z`, `0-9`, `.`, `-` and `_`",
    );
    let inner = FieldError::new("selectors[1]", SelectorError::EmptyKind);
    assert_eq!(inner.within("entries[3]").field, "entries[3].selectors[1]");
}

#[test]
fn an_update_takes_what_its_mask_names() {
    let mut wanted = types::Entry::from(&full_entry());
    wanted.hint = "external".into();
    wanted.x509_svid_ttl = 0;
    wanted.admin = false;
    wanted.parent_id = None;
    wanted.revision_number = 99;
    let mask = types::EntryMask {
        hint: true,
        x509_svid_ttl: true,
        revision_number: true,
        created_at: true,
        ..Default::default()
    };
    let updated = updated_entry(&full_entry(), &wanted, Some(&mask)).unwrap();
    assert_eq!(
        updated,
        RegistrationEntry {
            hint: "external".into(),
            x509_svid_ttl: None,
            ..full_entry()
        }
    );
    let error = updated_entry(&full_entry(), &wanted, None).unwrap_err();
    assert_eq!(error.field, "parent_id");
}

#[test]
fn masks_keep_what_they_name_and_the_id() {
    let mut entry = types::Entry::from(&full_entry());
    mask_entry(&mut entry, None);
    assert_eq!(entry, (&full_entry()).into());
    let mask = types::EntryMask {
        selectors: true,
        additional_attributes: true,
        ..Default::default()
    };
    mask_entry(&mut entry, Some(&mask));
    let expected = types::Entry {
        id: "e-1".into(),
        selectors: wire_selectors(&full_entry().selectors),
        additional_attributes: Some(types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: true,
        }),
        ..Default::default()
    };
    assert_eq!(entry, expected);

    let full = types::Agent {
        id: Some((&id("spiffe://example.org/a")).into()),
        banned: true,
        agent_version: "1".into(),
        ..Default::default()
    };
    let mut agent = full.clone();
    let mask = types::AgentMask {
        banned: true,
        ..Default::default()
    };
    mask_agent(&mut agent, Some(&mask));
    assert_eq!(
        agent,
        types::Agent {
            agent_version: String::new(),
            ..full
        }
    );
}

#[test]
fn a_bundle_survives_the_wire() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let sent = Bundle {
        jwt_authorities: vec![JwtAuthority {
            key_id: "k1".into(),
            public_key: key.public_key_spki().to_vec(),
            expires_at: Some(at(1_900_000_000)),
            tainted: true,
        }],
        refresh_hint: Some(Duration::from_secs(300)),
        sequence: 7,
        ..Bundle::empty(TrustDomain::new("example.org").unwrap())
    };
    let wire = types::Bundle::from(&sent);
    assert_eq!(bundle(&wire), Ok(sent));

    let mut spoilt = wire.clone();
    spoilt.jwt_authorities[0].key_id.clear();
    assert_eq!(
        bundle(&spoilt).unwrap_err().field,
        "jwt_authorities[0].key_id"
    );
    let mut spoilt = wire;
    spoilt.x509_authorities.push(Default::default());
    assert_eq!(
        bundle(&spoilt).unwrap_err().to_string(),
        "x509_authorities[0].asn1: is missing"
    );
    spoilt.x509_authorities[0].asn1 = b"x"[..].into();
    assert!(matches!(bundle(&spoilt).unwrap_err().fault, Fault::X509(_)));
}

#[test]
fn a_trust_domain_may_come_as_an_id() {
    let wire = |trust_domain: &str| types::Spiffeid {
        trust_domain: trust_domain.into(),
        path: "/web".into(),
    };
    for accepted in ["example.org", "spiffe://example.org"] {
        let read = spiffe_id("id", Some(&wire(accepted)));
        assert_eq!(read, Ok(id("spiffe://example.org/web")));
    }
    for refused in ["spiffe://example.org/x", "Example.org", ""] {
        let error = spiffe_id("id", Some(&wire(refused))).unwrap_err();
        assert!(matches!(error.fault, Fault::Id(_)), "{refused}");
    }
    assert_eq!(
        spiffe_id("id", None),
        Err(FieldError::new("id", Fault::Missing))
    );
    assert_eq!(
        trust_domain("trust_domain", "").unwrap_err().fault,
        Fault::Id(IdError::EmptyTrustDomain)
    );
}

#[test]
fn the_reason_of_a_refusal_survives_the_wire() {
    for reason in [
        Reason::AgentExpired,
        Reason::AgentNotAttested,
        Reason::AgentNotActive,
        Reason::AgentBanned,
        Reason::AgentMustReattest,
    ] {
        let refusal = denied("no", reason);
        assert_eq!(
            (refusal.code(), refusal.message()),
            (Code::PermissionDenied, "no")
        );
        assert_eq!(denied_reason(&refusal), Some(reason));
    }
    assert_eq!(denied_reason(&Status::permission_denied("no")), None);
    let garbage = Status::with_details(Code::PermissionDenied, "no", b"\xff\xff"[..].into());
    assert_eq!(denied_reason(&garbage), None);
}

#[test]
fn claims_survive_the_wire() {
    let sent = json!({
        "sub": "spiffe://example.org/web", "aud": ["a", "b"], "exp": 1_900_000_000,
        "ratio": 0.5, "nested": {"yes": true, "nothing": null},
    });
    let sent = sent.as_object().unwrap();
    assert_eq!(&claims(&wire_claims(sent)), sent);
}

#[test]
fn a_short_ttl_does_not_become_the_default() {
    assert_eq!(wire_ttl(Some(Duration::from_millis(1))), 1);
    assert_eq!(wire_ttl(Some(Duration::from_secs(u64::MAX))), i32::MAX);
    assert_eq!(wire_ttl(None), 0);
    assert_eq!(seconds("ttl", 0), Ok(None));
}

proptest! {
    #[test]
    fn times_survive_the_wire(unix_seconds in 1i64..=253_402_300_799) {
        let read = time("t", unix_seconds).unwrap().unwrap();
        prop_assert_eq!(wire_time(read), unix_seconds);
    }

    #[test]
    fn any_bytes_are_refused_or_survive(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(wire) = types::Entry::decode(&*bytes)
            && let Ok(read) = entry(&wire)
        {
            prop_assert_eq!(entry(&(&read).into()), Ok(read));
        }
    }
}
