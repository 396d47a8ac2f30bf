use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn record(slot: Slot, issued: u64, ttl: u64) -> Record {
    Record {
        slot,
        status: Status::Prepared,
        authority_id: format!("{slot:?}{issued}"),
        issued_at: at(issued),
        not_after: at(issued + ttl),
        public: vec![1, 2, 3],
    }
}

/// Carries out whatever is due, and tells it as text.
fn run(rotation: &mut Rotation, now: u64, ttl: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some(step) = rotation.due(at(now)) {
        match step {
            Step::Prepare(kind, slot) => rotation.prepared(kind, record(slot, now, ttl)),
            Step::Activate(kind, _) => rotation.activated(kind),
        }
        steps.push(step);
        assert!(steps.len() < 10, "it must come to an end");
    }
    steps
}

use Kind::{Jwt, X509};
use Slot::{A, B};
use Step::{Activate, Prepare};

#[test]
fn the_first_authorities_are_prepared_and_activated_at_once() {
    let mut rotation = Rotation::new();
    assert_eq!(rotation.next_due(), None);
    assert_eq!(
        run(&mut rotation, 0, 24 * 3600),
        [
            Prepare(X509, A),
            Activate(X509, A),
            Prepare(Jwt, A),
            Activate(Jwt, A)
        ]
    );
    let active = rotation.active(X509).unwrap();
    assert_eq!((active.slot, active.status), (A, Status::Active));
    assert_eq!(rotation.next(X509), None);
}

#[test]
fn each_step_is_due_at_its_exact_second() {
    let mut rotation = Rotation::new();
    let ttl = 24 * 3600;
    run(&mut rotation, 0, ttl);
    let (prepare, activate) = (ttl / 2, ttl - ttl / 6);
    assert_eq!(rotation.next_due(), Some(at(prepare)));
    assert_eq!(rotation.due(at(prepare - 1)), None);
    assert_eq!(
        run(&mut rotation, prepare, ttl),
        [Prepare(X509, B), Prepare(Jwt, B)]
    );
    assert_eq!(
        rotation.next(X509).map(|next| next.status),
        Some(Status::Prepared)
    );
    assert_eq!(rotation.next_due(), Some(at(activate)));
    assert_eq!(rotation.due(at(activate - 1)), None);
    assert_eq!(
        run(&mut rotation, activate, ttl),
        [Activate(X509, B), Activate(Jwt, B)]
    );
    assert_eq!(rotation.active(X509).map(|active| active.slot), Some(B));
    let old = rotation.next(X509).unwrap();
    assert_eq!((old.slot, old.status), (A, Status::Old));
    assert_eq!(rotation.next_due(), Some(at(prepare + ttl / 2)));
}

#[test]
fn long_lives_are_prepared_thirty_and_activated_seven_days_ahead() {
    let year = 365 * 24 * 3600;
    let long = record(A, 0, year);
    assert_eq!(long.prepare_at(), at(year - 30 * 24 * 3600));
    assert_eq!(long.activate_at(), at(year - 7 * 24 * 3600));
}

#[test]
fn a_long_outage_ends_with_a_fresh_authority() {
    let mut rotation = Rotation::new();
    run(&mut rotation, 0, 600);
    run(&mut rotation, 300, 600);
    // Both the active and the prepared one expired long ago.
    let steps = run(&mut rotation, 6_000, 600);
    assert_eq!(
        steps,
        [
            Prepare(X509, B),
            Activate(X509, B),
            Prepare(Jwt, B),
            Activate(Jwt, B)
        ]
    );
    assert_eq!(
        rotation.active(X509).map(|active| active.issued_at),
        Some(at(6_000))
    );
}

/// E7: the clock was ahead when the authorities were made, and has been set right.
#[test]
fn e7_an_authority_of_the_future_is_replaced_at_once() {
    let mut rotation = Rotation::new();
    run(&mut rotation, 10_000, 1000);
    assert_eq!(
        rotation.due(at(9_991)),
        None,
        "leaves are backdated as much"
    );
    assert_eq!(rotation.due(at(9_990)), None);
    let steps = run(&mut rotation, 9_989, 1000);
    assert_eq!(
        steps,
        [
            Step::Prepare(Kind::X509, Slot::B),
            Step::Activate(Kind::X509, Slot::B)
        ]
    );
    // So is one that was prepared there and never signed.
    let mut rotation = Rotation::new();
    run(&mut rotation, 1000, 1000);
    rotation.prepared(Kind::X509, record(Slot::B, 5000, 1000));
    assert_eq!(
        rotation.due(at(1900)),
        Some(Step::Prepare(Kind::X509, Slot::B))
    );
}

#[test]
fn without_jwt_no_jwt_step_is_due() {
    let mut rotation = Rotation::new().without_jwt();
    assert_eq!(
        run(&mut rotation, 0, 600),
        [Prepare(X509, A), Activate(X509, A)]
    );
    assert_eq!(rotation.next_due(), Some(at(300)));
    let records: Vec<_> = rotation.records().map(|(kind, _)| kind).collect();
    assert_eq!(records, [X509]);
}

#[test]
fn activating_without_a_prepared_one_changes_nothing() {
    let mut rotation = Rotation::new();
    rotation.activated(X509);
    assert_eq!(rotation, Rotation::new());
    run(&mut rotation, 0, 600);
    let before = rotation.clone();
    rotation.activated(X509);
    assert_eq!(rotation, before);
}

#[test]
fn the_journal_goes_there_and_back() {
    let mut rotation = Rotation::new();
    for now in [0, 300, 500, 800] {
        run(&mut rotation, now, 600);
    }
    let journal = rotation.to_journal();
    assert_eq!(
        Rotation::from_journal(&journal, |_, _| true).unwrap(),
        rotation
    );
}

#[test]
fn records_without_their_key_are_left_out() {
    let mut rotation = Rotation::new();
    run(&mut rotation, 0, 600);
    run(&mut rotation, 300, 600);
    let journal = rotation.to_journal();
    let none = Rotation::from_journal(&journal, |_, _| false).unwrap();
    assert_eq!(none, Rotation::new());
    let no_active = Rotation::from_journal(&journal, |_, record| record.slot == B).unwrap();
    assert_eq!(no_active.due(at(301)), Some(Activate(X509, B)));
    let no_next = Rotation::from_journal(&journal, |_, record| record.slot == A).unwrap();
    assert_eq!(no_next.due(at(301)), Some(Prepare(X509, B)));
}

#[test]
fn broken_journals_are_refused() {
    let line = |slot: &str, time: &str, public: &str| {
        format!(
            r#"{{"x509": [], "jwt": [{{"slot": "{slot}", "status": "active", "authority_id": "x",
            "issued_at": {time}, "not_after": 1, "public": "{public}"}}]}}"#
        )
    };
    assert!(Rotation::from_journal(line("A", "1", "AQ==").as_bytes(), |_, _| true).is_ok());
    for journal in [
        String::new(),
        "{}".to_owned(),
        line("C", "1", "AQ=="),
        line("A", "18446744073709551615", "AQ=="),
        line("A", "1", "?"),
    ] {
        assert!(
            Rotation::from_journal(journal.as_bytes(), |_, _| true).is_err(),
            "{journal}"
        );
    }
}

proptest! {
    /// Whenever one looks, however long one was away: afterwards there is an active authority with at least a sixth of
    /// its life left, and the authority that signs was published before by a step of its own.
    #[test]
    fn there_is_always_an_authority_with_life_left(
        ttl in 60_u64..10_000_000,
        waits in proptest::collection::vec(0_u64..20_000_000, 1..20),
    ) {
        let mut rotation = Rotation::new();
        let mut now = 0;
        for wait in waits {
            now += wait;
            run(&mut rotation, now, ttl);
            for kind in Kind::ALL {
                let active = rotation.active(kind).unwrap();
                prop_assert_eq!(active.status, Status::Active);
                prop_assert!(at(now) < active.activate_at());
                prop_assert!(rotation.next(kind).is_none_or(|next| next.slot != active.slot));
            }
            prop_assert!(rotation.next_due().unwrap() > at(now));
            let journal = rotation.to_journal();
            prop_assert_eq!(Rotation::from_journal(&journal, |_, _| true).unwrap(), rotation.clone());
        }
    }
}
