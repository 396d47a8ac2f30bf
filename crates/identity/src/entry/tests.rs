use std::time::UNIX_EPOCH;

use super::*;
use crate::selector::Selector;

fn td() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::new(&td(), path).unwrap()
}

fn entry() -> RegistrationEntry {
    RegistrationEntry {
        selectors: [Selector::parse("unix:uid:0").unwrap()]
            .into_iter()
            .collect(),
        ..RegistrationEntry::new(
            EntryId::new("e1").unwrap(),
            id("/web"),
            id("/spire/agent/join_token/t"),
            UNIX_EPOCH,
        )
    }
}

#[track_caller]
fn refused(change: impl FnOnce(&mut RegistrationEntry)) -> EntryError {
    let mut entry = entry();
    change(&mut entry);
    entry.validate(&td()).unwrap_err()
}

#[test]
fn a_plain_entry_is_valid() {
    assert_eq!(entry().validate(&td()), Ok(()));
}

#[test]
fn each_rule_is_kept() {
    let foreign = SpiffeId::parse("spiffe://other.org/web").unwrap();
    assert!(matches!(
        refused(|e| e.spiffe_id = foreign.clone()),
        EntryError::ForeignSpiffeId { .. }
    ));
    assert!(matches!(
        refused(|e| e.parent_id = foreign.clone()),
        EntryError::ForeignParent { .. }
    ));
    assert!(matches!(
        refused(|e| e.spiffe_id = td().id()),
        EntryError::NoPath(_)
    ));
    assert!(matches!(
        refused(|e| e.parent_id = td().id()),
        EntryError::ParentNoPath(_)
    ));
    assert!(matches!(
        refused(|e| e.spiffe_id = id("/spire/server")),
        EntryError::Reserved(_)
    ));
    assert!(matches!(
        refused(|e| e.spiffe_id = id("/spire/agent/x")),
        EntryError::Reserved(_)
    ));
    assert_eq!(
        refused(|e| e.selectors = Selectors::default()),
        EntryError::NoSelectors
    );
    assert_eq!(
        refused(|e| e.hint = "h".repeat(1025)),
        EntryError::HintTooLong
    );
    assert!(matches!(
        refused(|e| e.federates_with = [td()].into()),
        EntryError::FederatesWithItself(_)
    ));
    assert!(matches!(
        refused(|e| e.dns_names = vec!["a".into(), "a".into()]),
        EntryError::DuplicateDnsName(_)
    ));
    let mixed = |e: &mut RegistrationEntry| {
        e.store_svid = true;
        e.selectors = ["a:1", "b:1"]
            .map(|s| Selector::parse(s).unwrap())
            .into_iter()
            .collect();
    };
    assert_eq!(refused(mixed), EntryError::StoredSelectorTypes);
}

#[test]
fn dns_names() {
    for good in [
        "a",
        "a.b",
        "*.example.org",
        "xn--bcher-kva.example",
        "a-b.c",
        "1.2",
        "A.b",
    ] {
        assert_eq!(check_dns_name(good), Ok(()), "{good}");
    }
    let long = format!(
        "{}.{}.{}.{}",
        "a".repeat(63),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(63)
    );
    for bad in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "*",
        "a.*",
        "*a.b",
        "a_b",
        "a b",
        "-a",
        "a-",
        "ab--c",
        "\u{e9}",
        "a\0",
        &"a".repeat(64),
        &long,
    ] {
        assert!(check_dns_name(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn entry_ids() {
    assert!(EntryId::new("0d6f1d2e-7e6c-4b5e-9b5e-2f9a6d3a1b2c").is_ok());
    for bad in ["", "a b", "a/b", "a\n", &"a".repeat(256)] {
        assert!(EntryId::new(bad).is_err(), "{bad:?}");
    }
}
