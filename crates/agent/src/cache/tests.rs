use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use identity::SpiffeId;
use proptest::prelude::*;

use super::*;
use crate::fixtures::{CA, Ca, entry, noon, selectors, svid, trust_domain};

fn cache() -> Cache {
    with_capacity(1000)
}

/// A cache that has the bundle and nothing else.
fn with_capacity(capacity: usize) -> Cache {
    let mut cache = Cache::new(&trust_domain(), capacity, Rotation::default());
    cache.apply(Update {
        bundle: Some(Arc::new(CA.bundle())),
        ..Update::default()
    });
    cache
}

fn upsert(entries: &[RegistrationEntry]) -> Update {
    Update {
        upserted: entries.iter().cloned().map(Arc::new).collect(),
        ..Update::default()
    }
}

fn id(text: &str) -> EntryId {
    EntryId::new(text).unwrap()
}

fn names(view: &WorkloadView) -> (Vec<&str>, Vec<&str>) {
    (
        view.identities
            .iter()
            .map(|one| one.entry.id.as_str())
            .collect(),
        view.pending.iter().map(|one| one.id.as_str()).collect(),
    )
}

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn an_entry_becomes_pending_then_an_identity_then_pending_again() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1", "unix:gid:1"]));
    assert!(!cache.view(&mine, noon()).synced);
    cache.watch(&mine);
    let update = Update {
        synced: true,
        ..upsert(&[entry("web", &["unix:uid:1"]), entry("db", &["unix:uid:2"])])
    };
    assert_eq!(cache.apply(update), Changed::from([mine.clone()]));
    let view = cache.view(&mine, noon());
    assert!(view.synced);
    assert_eq!(names(&view), (vec![], vec!["web"]));

    assert_eq!(cache.take_due(noon(), 1)[0].id, id("web"), "demand first");
    let changed = cache.issued(&id("web"), 0, svid("/web"), noon());
    assert_eq!(changed, Changed::from([mine.clone()]));
    assert_eq!(names(&cache.view(&mine, noon())), (vec!["web"], vec![]));

    let end = noon() + 60 * MINUTE;
    assert_eq!(names(&cache.view(&mine, end)), (vec![], vec!["web"]));
    assert!(cache.expire(end - MINUTE).is_empty());
    assert_eq!(cache.expire(end), Changed::from([mine.clone()]));
    assert_eq!(names(&cache.view(&mine, noon())), (vec![], vec!["web"]));
    assert_eq!(cache.take_due(end, 1)[0].id, id("web"));
}

#[test]
fn views_are_ordered_by_creation_time_then_id() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    let mut old = entry("z-old", &["unix:uid:1"]);
    old.created_at -= MINUTE;
    cache.watch(&mine);
    cache.apply(upsert(&[
        entry("b", &["unix:uid:1"]),
        entry("a", &["unix:uid:1"]),
        old,
    ]));
    assert_eq!(names(&cache.view(&mine, noon())).1, ["z-old", "a", "b"]);
}

#[test]
fn an_entry_without_selectors_matches_nobody() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    cache.watch(&mine);
    assert!(cache.apply(upsert(&[entry("a", &[])])).is_empty());
    assert_eq!(names(&cache.view(&mine, noon())), (vec![], vec![]));
    assert_eq!(
        names(&cache.view(&selectors(&[]), noon())),
        (vec![], vec![])
    );
}

#[test]
fn a_changed_entry_keeps_its_svid_until_the_new_one_is_there() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    cache.watch(&mine);
    cache.apply(upsert(&[entry("web", &["unix:uid:1"])]));
    cache.take_due(noon(), 1);
    cache.issued(&id("web"), 0, svid("/web"), noon());
    let mut newer = entry("web", &["unix:uid:1"]);
    newer.revision = 1;
    newer.hint = "new".to_owned();
    assert_eq!(cache.apply(upsert(std::slice::from_ref(&newer))).len(), 1);
    assert_eq!(names(&cache.view(&mine, noon())).0, ["web"]);
    assert_eq!(cache.take_due(noon(), 9)[0].revision, 1);
    // One that was asked for before the change is used, but replaced.
    cache.issued(&id("web"), 0, svid("/web"), noon());
    assert_eq!(cache.take_due(noon(), 9).len(), 1);
    cache.issued(&id("web"), 1, svid("/web"), noon());
    assert_eq!(cache.take_due(noon(), 9).len(), 0);
    assert!(cache.apply(upsert(&[newer])).is_empty(), "no news");
}

#[test]
fn an_entry_that_names_another_id_loses_its_svid_at_once() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    cache.watch(&mine);
    cache.apply(upsert(&[entry("web", &["unix:uid:1"])]));
    cache.take_due(noon(), 1);
    cache.issued(&id("web"), 0, svid("/web"), noon());
    let mut renamed = entry("web", &["unix:uid:1"]);
    renamed.spiffe_id = SpiffeId::parse("spiffe://example.org/other").unwrap();
    renamed.revision = 1;
    cache.apply(upsert(&[renamed]));
    assert_eq!(names(&cache.view(&mine, noon())), (vec![], vec!["web"]));
    // What was on its way for the former ID is thrown away.
    cache.take_due(noon(), 1);
    assert!(cache.issued(&id("web"), 0, svid("/web"), noon()).is_empty());
    assert_eq!(names(&cache.view(&mine, noon())), (vec![], vec!["web"]));
    assert_eq!(cache.take_due(noon(), 1).len(), 1);
}

#[test]
fn an_svid_for_a_removed_entry_is_thrown_away() {
    let mut cache = cache();
    cache.apply(upsert(&[entry("web", &["unix:uid:1"])]));
    cache.take_due(noon(), 1);
    cache.apply(Update {
        removed: vec![id("web")],
        ..Update::default()
    });
    assert!(cache.issued(&id("web"), 0, svid("/web"), noon()).is_empty());
    assert_eq!(cache.counts(), Counts::default());
    assert_eq!(cache.next_due(noon()), None);
}

#[test]
fn without_prefetch_an_svid_is_made_only_on_demand() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    let mut lazy = entry("lazy", &["unix:uid:1"]);
    lazy.disable_x509_svid_prefetch = true;
    cache.apply(upsert(&[lazy]));
    assert!(cache.take_due(noon(), 9).is_empty());
    cache.watch(&mine);
    assert_eq!(cache.take_due(noon(), 9).len(), 1);
    cache.give_back([&id("lazy")]);
    cache.unwatch(&mine);
    assert!(cache.take_due(noon(), 9).is_empty());
}

#[test]
fn stored_svids_are_no_workloads() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    cache.watch(&mine);
    let mut stored = entry("web", &["unix:uid:1"]);
    cache.apply(upsert(std::slice::from_ref(&stored)));
    stored.store_svid = true;
    assert_eq!(cache.apply(upsert(&[stored])).len(), 1);
    assert_eq!(names(&cache.view(&mine, noon())), (vec![], vec![]));
}

#[test]
fn idle_svids_above_the_capacity_go_the_longest_idle_first() {
    let mut cache = with_capacity(2);
    let entries: Vec<_> = ["a", "b", "c"]
        .map(|name| entry(name, &[&format!("n:{name}")]))
        .into();
    cache.apply(upsert(&entries));
    let sets: Vec<_> = ["a", "b", "c"]
        .map(|name| selectors(&[&format!("n:{name}")]))
        .into();
    for (name, set) in ["a", "b", "c"].iter().zip(&sets) {
        cache.watch(set);
        cache.take_due(noon(), 9);
        cache.issued(&id(name), 0, svid(&format!("/{name}")), noon());
    }
    assert_eq!(cache.counts().svids, 3, "never what is in use");
    cache.unwatch(&sets[1]);
    assert_eq!(cache.counts().svids, 2);
    assert_eq!(names(&cache.view(&sets[1], noon())), (vec![], vec!["b"]));
    assert!(cache.take_due(noon(), 9).is_empty(), "there is no room");
    cache.unwatch(&sets[0]);
    assert_eq!(cache.counts().svids, 2);
}

#[test]
fn a_tainted_authority_has_its_svids_replaced() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    let (old, new) = (&*CA, Ca::new("next"));
    cache.watch(&mine);
    cache.apply(upsert(&[entry("web", &["unix:uid:1"])]));
    cache.take_due(noon(), 1);
    cache.issued(&id("web"), 0, svid("/web"), noon());
    let mut bundle = old.bundle();
    bundle.x509_authorities[0].tainted = true;
    bundle
        .x509_authorities
        .push(identity::X509Authority::new(new.certificate.clone()));
    let update = Update {
        bundle: Some(Arc::new(bundle)),
        ..Update::default()
    };
    assert_eq!(cache.apply(update).len(), 1);
    assert_eq!(names(&cache.view(&mine, noon())).0, ["web"]);
    assert_eq!(cache.take_due(noon(), 9).len(), 1);
    cache.issued(&id("web"), 0, svid("/web"), noon());
    assert_eq!(cache.take_due(noon(), 9).len(), 1, "still the tainted one");
    let fresh = new.svid("/web", noon(), 60 * MINUTE);
    cache.issued(&id("web"), 0, fresh, noon());
    assert_eq!(cache.take_due(noon(), 9).len(), 0);
}

#[test]
fn federated_bundles_go_to_entries_that_ask_for_them() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    let other = TrustDomain::new("other.org").unwrap();
    cache.watch(&mine);
    let mut federated = entry("web", &["unix:uid:1"]);
    federated.federates_with.insert(other.clone());
    cache.apply(upsert(&[federated, entry("db", &["unix:uid:2"])]));
    let update = Update {
        federated: vec![Arc::new(Bundle::empty(other.clone()))],
        ..Update::default()
    };
    assert!(cache.apply(update).contains(&mine));
    assert!(cache.view(&mine, noon()).federated.contains_key(&other));
    let db = selectors(&["unix:uid:2"]);
    assert!(cache.view(&db, noon()).federated.is_empty());
    let gone = Update {
        unfederated: vec![other],
        ..Update::default()
    };
    assert!(cache.apply(gone).contains(&mine));
    assert!(cache.view(&mine, noon()).federated.is_empty());
}

/// A cache with the SVID of one entry, and another entry whose SVID was refused.
fn at_noon() -> (Cache, Selectors) {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    cache.watch(&mine);
    cache.apply(upsert(&[
        entry("web", &["unix:uid:1"]),
        entry("refused", &["unix:uid:2"]),
    ]));
    assert_eq!(cache.take_due(noon(), 9).len(), 2);
    cache.issued(&id("web"), 0, svid("/web"), noon());
    cache.refused(&id("refused"), noon());
    assert!(cache.take_due(noon(), 9).is_empty());
    (cache, mine)
}

#[test]
fn a_clock_set_back_makes_everything_due() {
    let (mut cache, _) = at_noon();
    cache.clock_set(ClockSet::Back(60 * MINUTE), noon() - 60 * MINUTE);
    assert_eq!(cache.take_due(noon() - 60 * MINUTE, 9).len(), 2);
}

#[test]
fn i_5_a_clock_set_back_makes_no_svid_live_longer() {
    let (mut cache, mine) = at_noon();
    let shown = |minutes| noon() + minutes * MINUTE;
    // Forty minutes of the hour have gone, and the clock shows two hours less.
    let back = ClockSet::Back(120 * MINUTE);
    assert!(cache.clock_set(back, shown(40) - 120 * MINUTE).is_empty());
    let end = shown(60) - 120 * MINUTE;
    assert_eq!(cache.next_expiry(), Some(end));
    assert_eq!(names(&cache.view(&mine, end - MINUTE)).0, ["web"]);
    assert!(names(&cache.view(&mine, end)).0.is_empty());
    // Set right again it ends when it ends.
    let forward = ClockSet::Forward(120 * MINUTE);
    assert!(cache.clock_set(forward, shown(50)).is_empty());
    assert_eq!(cache.next_expiry(), Some(shown(60)));
    // Nor does it live longer when the clock is set forward.
    assert!(
        cache
            .clock_set(ClockSet::Forward(5 * MINUTE), shown(55))
            .is_empty()
    );
    assert_eq!(cache.next_expiry(), Some(shown(60)));
    // What has ended meanwhile is gone at once.
    let back = ClockSet::Back(120 * MINUTE);
    assert!(
        cache
            .clock_set(back, shown(66) - 120 * MINUTE)
            .contains(&mine)
    );
    assert_eq!(cache.counts().svids, 0);
}

/// What happens to a cache, over six entries and selectors of a small alphabet.
#[derive(Debug, Clone)]
enum Step {
    Upsert(usize, u8, i64),
    Remove(usize),
    Watch(u8),
    Unwatch(u8),
    Issue(usize),
    Expire,
}

/// Selectors as the bits of a number: bit n is `n:<n>`.
fn bits(mask: u8) -> Selectors {
    (0..8)
        .filter(|bit| mask & (1 << bit) != 0)
        .map(|bit| identity::Selector::new("n", &bit.to_string()).unwrap())
        .collect()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..6, 1u8..32, 0i64..3).prop_map(|(n, mask, rev)| Step::Upsert(n, mask, rev)),
        1 => (0usize..6).prop_map(Step::Remove),
        2 => (0u8..32).prop_map(Step::Watch),
        1 => (0u8..32).prop_map(Step::Unwatch),
        4 => (1usize..4).prop_map(Step::Issue),
        1 => Just(Step::Expire),
    ]
}

/// SVIDs of an hour and of five hours for each of the six entries.
static POOL: LazyLock<Vec<[Arc<X509Svid>; 2]>> = LazyLock::new(|| {
    (0..6)
        .map(|n| [60, 300].map(|life| CA.svid(&format!("/e{n}"), noon(), life * MINUTE)))
        .collect()
});

/// The cache as one would write it without thinking of speed.
#[derive(Default)]
struct Model {
    entries: BTreeMap<EntryId, Arc<RegistrationEntry>>,
    svids: BTreeMap<EntryId, Arc<X509Svid>>,
    watched: BTreeSet<Selectors>,
}

impl Model {
    fn view(&self, set: &Selectors, now: SystemTime) -> WorkloadView {
        let mut view = WorkloadView {
            synced: false,
            identities: Vec::new(),
            pending: Vec::new(),
            bundle: Arc::new(CA.bundle()),
            federated: BTreeMap::new(),
        };
        let mut matching: Vec<_> = self
            .entries
            .values()
            .filter(|entry| entry.selectors.is_subset_of(set))
            .collect();
        matching.sort_by_key(|entry| (entry.created_at, entry.id.clone()));
        for entry in matching.into_iter().cloned() {
            match self.svids.get(&entry.id) {
                Some(svid) if svid.expires_at() > now => view.identities.push(Identity {
                    entry,
                    svid: svid.clone(),
                }),
                _ => view.pending.push(entry),
            }
        }
        view
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Views equal the naive model's after every step; a watched view that changed was announced;
    /// whatever lacks an SVID is given out to be issued, what is waited for before the rest.
    #[test]
    fn the_cache_agrees_with_a_naive_model(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut cache, mut model, mut now) = (cache(), Model::default(), noon());
        for step in steps {
            let before: BTreeMap<_, _> = model
                .watched
                .iter()
                .map(|set| (set.clone(), model.view(set, now)))
                .collect();
            let mut changed = Changed::new();
            match step {
                Step::Upsert(n, mask, revision) => {
                    let mut new = entry(&format!("e{n}"), &[]);
                    new.selectors = bits(mask);
                    new.revision = revision;
                    new.created_at = noon() - Duration::from_secs(n as u64 % 3);
                    changed = cache.apply(upsert(std::slice::from_ref(&new)));
                    model.entries.insert(new.id.clone(), Arc::new(new));
                }
                Step::Remove(n) => {
                    let gone = id(&format!("e{n}"));
                    changed = cache.apply(Update { removed: vec![gone.clone()], ..Update::default() });
                    model.entries.remove(&gone);
                    model.svids.remove(&gone);
                }
                Step::Watch(mask) => {
                    cache.watch(&bits(mask));
                    model.watched.insert(bits(mask));
                }
                Step::Unwatch(mask) => {
                    cache.unwatch(&bits(mask));
                    model.watched.remove(&bits(mask));
                }
                Step::Issue(limit) => {
                    let taken = cache.take_due(now, limit);
                    let waited = |entry: &RegistrationEntry| {
                        !model.svids.contains_key(&entry.id)
                            && model.watched.iter().any(|set| entry.selectors.is_subset_of(set))
                    };
                    let waiting = model.entries.values().filter(|entry| waited(entry)).count();
                    let first = taken.iter().take_while(|entry| waited(entry)).count();
                    prop_assert!(first >= waiting.min(limit), "{first} of {waiting} first");
                    for entry in taken {
                        let n: usize = entry.id.as_str()[1..].parse().unwrap();
                        let life = usize::from(now > noon());
                        let svid = POOL[n][life].clone();
                        changed.extend(cache.issued(&entry.id, entry.revision, svid.clone(), now));
                        model.svids.insert(entry.id.clone(), svid);
                    }
                }
                Step::Expire => {
                    now = noon() + 61 * MINUTE;
                    changed = cache.expire(now);
                    model.svids.retain(|_, svid| svid.expires_at() > now);
                }
            }
            for mask in 0..32 {
                prop_assert_eq!(cache.view(&bits(mask), now), model.view(&bits(mask), now));
            }
            for (set, before) in before {
                if model.watched.contains(&set) && model.view(&set, now) != before {
                    // Time alone may have changed it: that is what `expire` announces.
                    prop_assert!(changed.contains(&set), "{set:?} was not announced");
                }
            }
            let counts = cache.counts();
            prop_assert_eq!(counts.entries, model.entries.len());
            prop_assert_eq!(counts.svids, model.svids.len());
            prop_assert_eq!(counts.missing, model.entries.len() - model.svids.len());
        }
    }
}

/// An SVID under an authority that the bundle does not have is refused by everybody: the one before it stays.
#[test]
fn i_1_an_svid_waits_for_its_authority() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    let new = Ca::new("next");
    cache.watch(&mine);
    cache.apply(upsert(&[entry("web", &["unix:uid:1"])]));
    cache.take_due(noon(), 1);
    let first = svid("/web");
    cache.issued(&id("web"), 0, first.clone(), noon());
    assert!(!cache.lacks_authorities());

    let renewed = new.svid("/web", noon(), 120 * MINUTE);
    assert!(
        cache
            .issued(&id("web"), 0, renewed.clone(), noon())
            .is_empty()
    );
    assert!(cache.lacks_authorities());
    assert_eq!(cache.view(&mine, noon()).identities[0].svid, first);
    // It is there, and not asked for again.
    assert!(cache.take_due(noon(), 9).is_empty());
    let mut both = CA.bundle();
    both.x509_authorities
        .push(identity::X509Authority::new(new.certificate));
    let update = Update {
        bundle: Some(Arc::new(both)),
        ..Update::default()
    };
    assert_eq!(cache.apply(update), Changed::from([mine.clone()]));
    assert_eq!(cache.view(&mine, noon()).identities[0].svid, renewed);
    assert!(!cache.lacks_authorities());
    assert_eq!(cache.next_expiry(), Some(renewed.expires_at()));
    assert_eq!(cache.counts().svids, 1);
}

/// The authority may never come. Then the old one ends, and nothing takes its place.
#[test]
fn i_1_what_nobody_can_verify_is_never_shown() {
    let (mut cache, mine) = (cache(), selectors(&["unix:uid:1"]));
    let new = Ca::new("next");
    cache.watch(&mine);
    cache.apply(upsert(&[entry("web", &["unix:uid:1"])]));
    cache.take_due(noon(), 1);
    cache.issued(&id("web"), 0, svid("/web"), noon());
    cache.issued(&id("web"), 0, new.svid("/web", noon(), 30 * MINUTE), noon());
    cache.expire(noon() + 60 * MINUTE);
    let view = cache.view(&mine, noon());
    assert_eq!(names(&view), (vec![], vec!["web"]));
    assert!(!cache.lacks_authorities());
}
