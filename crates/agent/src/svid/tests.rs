use super::*;
use crate::fixtures::{CA, noon};

fn id(text: &str) -> EntryId {
    EntryId::new(text).unwrap()
}

fn taken(plan: &mut Plan, now: SystemTime, limit: usize) -> Vec<String> {
    let taken = plan.take(now, limit);
    taken.iter().map(ToString::to_string).collect()
}

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn renewal_falls_within_a_tenth_of_the_half_life() {
    let rotation = Rotation::default();
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let svid = CA.svid(
            "/web",
            noon() - BACKDATED,
            Duration::from_hours(1) + BACKDATED,
        );
        let due = rotation.due(svid.leaf());
        assert!((noon() + 27 * MINUTE..=noon() + 33 * MINUTE).contains(&due));
        assert_eq!(due, rotation.due(svid.leaf()), "the same for the same SVID");
        seen.insert(due);
    }
    assert!(seen.len() > 40, "not all at once");
}

#[test]
fn a_life_of_seconds_is_half_over_seconds_after_the_signing() {
    let ttl = Duration::from_secs(10);
    let svid = CA.svid("/web", noon() - BACKDATED, ttl + BACKDATED);
    let due = Rotation::default().due(svid.leaf());
    assert!(due >= noon() + ttl.mul_f64(0.45), "{due:?}");
    assert!(due <= noon() + ttl.mul_f64(0.55), "{due:?}");
}

#[test]
fn an_availability_target_renews_earlier_where_the_life_is_long() {
    let rotation = Rotation {
        availability_target: Some(Duration::from_hours(24)),
    };
    let day = Duration::from_hours(24);
    let long = CA.svid("/web", noon(), 3 * day);
    let left = (noon() + 3 * day)
        .duration_since(rotation.due(long.leaf()))
        .unwrap();
    assert!((day..=day + 10 * MINUTE).contains(&left), "{left:?}");
    let short = CA.svid("/web", noon(), Duration::from_hours(30));
    assert_eq!(
        rotation.due(short.leaf()),
        Rotation::default().due(short.leaf())
    );
}

#[test]
fn what_is_waited_for_comes_first() {
    let mut plan = Plan::new(10);
    plan.want(&id("early"), false);
    plan.hold(&id("old"), noon());
    plan.want(&id("waited"), true);
    plan.want(&id("waited-too"), true);
    assert_eq!(plan.next_due(noon()), Some(noon()));
    assert_eq!(
        taken(&mut plan, noon(), 10),
        ["waited", "waited-too", "old", "early"]
    );
    assert_eq!(plan.next_due(noon()), None, "all are in flight");
}

#[test]
fn demand_overtakes_and_yields_again() {
    let mut plan = Plan::new(10);
    for name in ["a", "b", "c"] {
        plan.want(&id(name), false);
    }
    plan.want(&id("c"), true);
    assert_eq!(taken(&mut plan, noon(), 1), ["c"]);
    plan.want(&id("b"), true);
    plan.want(&id("b"), false);
    assert_eq!(taken(&mut plan, noon(), 2), ["a", "b"]);
}

#[test]
fn a_held_svid_is_due_at_its_instant_and_not_before() {
    let mut plan = Plan::new(10);
    let due = noon() + MINUTE;
    plan.want(&id("a"), true);
    plan.take(noon(), 1);
    plan.hold(&id("a"), due);
    assert_eq!(plan.next_due(noon()), Some(due));
    assert_eq!(taken(&mut plan, due - Duration::from_millis(1), 9), [""; 0]);
    assert_eq!(plan.stale(), 0);
    assert_eq!(taken(&mut plan, due, 9), ["a"]);
    assert_eq!(plan.stale(), 1);
}

#[test]
fn refusals_are_retried_later_and_later_even_when_waited_for() {
    let mut plan = Plan::new(10);
    let mut now = noon();
    plan.want(&id("a"), false);
    let mut pauses = Vec::new();
    for _ in 0..20 {
        assert_eq!(plan.take(now, 1).len(), 1);
        plan.failed(&id("a"), now);
        plan.want(&id("a"), true);
        let next = plan.next_due(now).unwrap();
        pauses.push(next.duration_since(now).unwrap());
        now = next;
    }
    assert_eq!(pauses[..3], [500, 750, 1125].map(Duration::from_millis));
    assert_eq!(pauses[19], Duration::from_mins(4));
}

#[test]
fn what_was_given_back_keeps_its_rank() {
    let mut plan = Plan::new(10);
    plan.want(&id("a"), true);
    plan.take(noon(), 1);
    plan.want(&id("b"), false);
    plan.give_back(&id("a"));
    assert_eq!(taken(&mut plan, noon(), 9), ["a", "b"]);
}

#[test]
fn nothing_is_made_ahead_above_the_capacity() {
    let mut plan = Plan::new(2);
    for name in ["a", "b", "c"] {
        plan.want(&id(name), false);
    }
    assert_eq!(taken(&mut plan, noon(), 9), ["a", "b"]);
    assert_eq!(plan.next_due(noon()), None);
    plan.want(&id("d"), true);
    assert_eq!(
        taken(&mut plan, noon(), 9),
        ["d"],
        "demand knows no capacity"
    );
    for name in ["a", "b", "d"] {
        plan.forget(&id(name));
    }
    assert_eq!(taken(&mut plan, noon(), 9), ["c"]);
}

#[test]
fn a_request_gets_the_chain_of_its_key_only() {
    let entry = crate::fixtures::entry("web", &["unix:uid:1"]);
    let request = SvidRequest::new(&entry, identity::KeyType::EcP256).unwrap();
    let other = crate::fixtures::svid("/web");
    let chain: Vec<&[u8]> = other.chain().iter().map(Certificate::der).collect();
    assert_eq!(
        request.finish(&chain),
        Err(RequestError::Chain(identity::X509Error::KeyMismatch))
    );
}
