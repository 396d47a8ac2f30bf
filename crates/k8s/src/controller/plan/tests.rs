use std::collections::{BTreeMap, BTreeSet};

use identity::{Selector, SpiffeId, TrustDomain};
use proptest::prelude::*;

use super::*;

mod preview;

fn rule() -> OwnershipRule {
    OwnershipRule {
        prefix: "east.".to_owned(),
        cleanup: Some("old.".to_owned()),
    }
}

fn ledger() -> Ledger {
    Ledger::new(
        rule(),
        MassDelete {
            percent: 50,
            at_least: 3,
        },
    )
}

fn source(uid: &str) -> Source {
    Source {
        tenant: false,
        created: "2026-01-01T00:00:00Z".to_owned(),
        deleting: false,
        uid: uid.to_owned(),
    }
}

fn wanted(path: &str, pod: &str, hint: &str) -> Arc<Wanted> {
    let id = |path: &str| SpiffeId::new(&TrustDomain::new("example.org").unwrap(), path).unwrap();
    let selector = match pod {
        "" => Selector::new("unix", "uid:1"),
        pod => Selector::new("k8s", &format!("pod-uid:{pod}")),
    };
    Arc::new(Wanted {
        key: Key {
            spiffe_id: id(path),
            parent_id: id("/agent"),
            selectors: [selector.unwrap()].into_iter().collect(),
        },
        x509_svid_ttl: None,
        jwt_svid_ttl: None,
        federates_with: BTreeSet::new(),
        admin: false,
        downstream: false,
        dns_names: Vec::new(),
        hint: hint.to_owned(),
        store_svid: false,
    })
}

/// A server as far as a ledger sees it, which fails every write whose number is in `failing`.
#[derive(Default)]
struct Server {
    entries: BTreeMap<String, RegistrationEntry>,
    writes: usize,
    failing: BTreeSet<usize>,
}

impl Server {
    fn put(&mut self, id: &str, wanted: &Wanted) {
        self.entries
            .insert(id.to_owned(), wanted.entry(EntryId::new(id).unwrap()));
    }

    fn fails(&mut self) -> bool {
        self.writes += 1;
        self.failing.contains(&self.writes)
    }

    fn create(&mut self, entry: &RegistrationEntry) -> Written {
        if self.fails() {
            return Written::Failed("down".to_owned());
        }
        let similar = self
            .entries
            .values()
            .find(|there| Wanted::of(there).key == Wanted::of(entry).key || there.id == entry.id);
        if let Some(there) = similar {
            return Written::Exists(Box::new(there.clone()));
        }
        self.entries.insert(entry.id.to_string(), entry.clone());
        Written::Done
    }

    fn update(&mut self, entry: &RegistrationEntry) -> Written {
        if self.fails() {
            return Written::Failed("down".to_owned());
        }
        match self.entries.get_mut(entry.id.as_str()) {
            Some(there) => *there = entry.clone(),
            None => return Written::Missing,
        }
        Written::Done
    }

    fn of_pod(&self, pod: &str) -> usize {
        self.entries
            .values()
            .filter(|entry| Wanted::of(entry).key.pods().any(|uid| uid == pod))
            .count()
    }
}

/// Lets the ledger work until it has nothing left to do; `watch` sees the server after every step.
fn settle(
    ledger: &mut Ledger,
    server: &mut Server,
    verdict: impl Fn(&Key) -> Verdict,
    mut watch: impl FnMut(&Server),
) {
    let now = Instant::now();
    for _ in 0..50 {
        let writes = ledger.writes(7);
        for entry in &writes.create {
            let outcome = server.create(entry);
            ledger.written(entry, outcome, now);
            watch(server);
        }
        for entry in &writes.update {
            let outcome = server.update(entry);
            ledger.written(entry, outcome, now);
            watch(server);
        }
        if ledger.is_busy() {
            continue;
        }
        for (id, _) in ledger.deletes(7, &verdict) {
            let gone = !server.fails();
            if gone {
                server.entries.remove(&id);
            }
            ledger.deleted(&id, gone);
            watch(server);
        }
        ledger.retry();
    }
}

fn list(ledger: &mut Ledger, server: &Server) {
    ledger.begin_listing();
    let all: Vec<RegistrationEntry> = server.entries.values().cloned().collect();
    for page in all.chunks(2) {
        ledger.list_page(page);
    }
    ledger.end_listing();
}

fn undeclared(_: &Key) -> Verdict {
    Verdict::Undeclared
}

#[test]
fn creates_updates_and_deletes_what_is_its_own() {
    let (mut ledger, mut server) = (ledger(), Server::default());
    let (a, foreign) = (wanted("/a", "p1", ""), wanted("/manual", "p1", ""));
    server.put("manual-1", &foreign);
    list(&mut ledger, &server);
    ledger.want(source("r"), a.clone(), Instant::now());
    settle(&mut ledger, &mut server, undeclared, |_| ());
    let id = server
        .entries
        .keys()
        .find(|id| id.starts_with("east."))
        .unwrap()
        .clone();
    assert_eq!(server.entries.len(), 2);
    ledger.want(source("r"), wanted("/a", "p1", "hint"), Instant::now());
    settle(&mut ledger, &mut server, undeclared, |_| ());
    assert_eq!(server.entries[&id].hint, "hint");
    ledger.unwant(&source("r"), &a.key, true);
    settle(&mut ledger, &mut server, undeclared, |_| ());
    assert_eq!(server.entries.keys().collect::<Vec<_>>(), ["manual-1"]);
}

#[test]
fn ctl_08_a_new_id_is_there_before_the_old_one_goes() {
    let (mut ledger, mut server) = (ledger(), Server::default());
    let (old, new) = (wanted("/old", "p1", ""), wanted("/new", "p1", ""));
    ledger.want(source("r"), old.clone(), Instant::now());
    settle(&mut ledger, &mut server, undeclared, |_| ());
    // The creation fails twice: until it works, the old entry stays.
    server.failing = [server.writes + 1, server.writes + 2].into();
    ledger.unwant(&source("r"), &old.key, false);
    ledger.want(source("r"), new, Instant::now());
    settle(&mut ledger, &mut server, undeclared, |server| {
        assert!(server.of_pod("p1") >= 1)
    });
    assert_eq!(
        server
            .entries
            .values()
            .map(|entry| entry.spiffe_id.path())
            .collect::<Vec<_>>(),
        ["/new"]
    );
}

#[test]
fn ctl_09_what_is_in_doubt_stays() {
    let (mut ledger, mut server) = (ledger(), Server::default());
    server.put("east.left-over", &wanted("/a", "p1", ""));
    list(&mut ledger, &server);
    settle(&mut ledger, &mut server, |_| Verdict::Frozen, |_| ());
    assert_eq!(server.entries.len(), 1);
    settle(&mut ledger, &mut server, |_| Verdict::Gone, |_| ());
    assert_eq!(server.entries.len(), 0);
}

#[test]
fn ctl_18_an_entry_that_is_already_there_is_adopted() {
    let (mut ledger, mut server) = (ledger(), Server::default());
    let a = wanted("/a", "p1", "");
    server.put("somebody-elses", &a);
    ledger.want(source("r"), a.clone(), Instant::now());
    settle(&mut ledger, &mut server, undeclared, |_| ());
    assert!(ledger.is_set(&a.key) && server.entries.len() == 1);
    // It is not ours: neither changed nor deleted.
    ledger.want(source("r"), wanted("/a", "p1", "hint"), Instant::now());
    settle(&mut ledger, &mut server, undeclared, |_| ());
    assert!(ledger.failure(&a.key).unwrap().contains("somebody-elses"));
    ledger.unwant(&source("r"), &a.key, true);
    settle(&mut ledger, &mut server, |_| Verdict::Gone, |_| ());
    assert_eq!(server.entries["somebody-elses"].hint, "");
}

#[test]
fn ctl_10_a_former_prefix_is_taken_over_and_cleaned_up() {
    let (mut ledger, mut server) = (ledger(), Server::default());
    let a = wanted("/a", "p1", "");
    server.put("old.1", &a);
    server.put("old.2", &wanted("/b", "p1", ""));
    list(&mut ledger, &server);
    ledger.want(source("r"), wanted("/a", "p1", "hint"), Instant::now());
    settle(&mut ledger, &mut server, undeclared, |server| {
        assert!(server.of_pod("p1") >= 1)
    });
    assert_eq!(server.entries.keys().collect::<Vec<_>>(), ["old.1"]);
    assert_eq!(server.entries["old.1"].hint, "hint");
    let without_dot = OwnershipRule {
        prefix: "east.".to_owned(),
        cleanup: Some(String::new()),
    };
    assert_eq!(ids::ownership(&without_dot, "8e2c"), Ownership::Former);
    assert_eq!(
        ids::ownership(&without_dot, "west.8e2c"),
        Ownership::Foreign
    );
}

#[test]
fn ctl_10_entries_of_join_tokens_are_never_cleaned_up() {
    let (mut ledger, mut server) = (ledger(), Server::default());
    let id = |path: &str| SpiffeId::new(&TrustDomain::new("example.org").unwrap(), path).unwrap();
    let mut alias = (*wanted("/alias", "", "")).clone();
    alias.key.parent_id = id("/spire/agent/join_token/t");
    alias.key.selectors =
        [Selector::new("spiffe_id", "spiffe://example.org/spire/agent/join_token/t").unwrap()]
            .into_iter()
            .collect();
    server.put("old.1", &alias);
    list(&mut ledger, &server);
    settle(&mut ledger, &mut server, |_| Verdict::Gone, |_| ());
    assert_eq!(server.entries.len(), 1);
}

#[test]
fn ctl_09_a_mass_delete_by_mistake_is_held_back() {
    let fill = || {
        let (mut ledger, mut server) = (ledger(), Server::default());
        let all: Vec<_> = (0..8).map(|n| wanted("/a", &format!("p{n}"), "")).collect();
        for one in &all {
            ledger.want(source("r"), one.clone(), Instant::now());
        }
        settle(&mut ledger, &mut server, undeclared, |_| ());
        assert_eq!(server.entries.len(), 8);
        (ledger, server, all)
    };
    let (mut ledger, mut server, all) = fill();
    for one in &all {
        ledger.unwant(&source("r"), &one.key, false);
    }
    settle(&mut ledger, &mut server, undeclared, |_| ());
    assert_eq!((server.entries.len(), ledger.backlog().2), (8, 8));
    // The pods are gone, or somebody deleted the resource: no mistake.
    settle(&mut ledger, &mut server, |_| Verdict::Gone, |_| ());
    assert_eq!((server.entries.len(), ledger.backlog()), (0, (0, 0, 0)));
    let (mut ledger, mut server, all) = fill();
    for one in &all {
        ledger.unwant(&source("r"), &one.key, true);
    }
    settle(&mut ledger, &mut server, undeclared, |_| ());
    assert!(server.entries.is_empty());
    // Another ID for each pod is no mass delete either.
    let (mut ledger, mut server, all) = fill();
    for (n, one) in all.iter().enumerate() {
        ledger.unwant(&source("r"), &one.key, false);
        ledger.want(
            source("r"),
            wanted("/b", &format!("p{n}"), ""),
            Instant::now(),
        );
    }
    settle(&mut ledger, &mut server, undeclared, |_| ());
    assert!(
        server.entries.len() == 8
            && server
                .entries
                .values()
                .all(|entry| entry.spiffe_id.path() == "/b")
    );
}

#[test]
fn what_is_written_during_a_listing_is_not_undone_by_it() {
    let (mut ledger, mut server) = (ledger(), Server::default());
    let a = wanted("/a", "p1", "");
    ledger.begin_listing();
    ledger.list_page(&[]);
    ledger.want(source("r"), a.clone(), Instant::now());
    settle(&mut ledger, &mut server, undeclared, |_| ());
    ledger.end_listing();
    assert!(ledger.is_set(&a.key));
    // What somebody deletes behind its back is found by the next one, and made again.
    server.entries.clear();
    list(&mut ledger, &server);
    settle(&mut ledger, &mut server, undeclared, |_| ());
    assert_eq!(server.entries.len(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Want(u8, u8, u8, bool),
    Unwant(u8, u8, u8),
    List,
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, 0..3_u8, 0..4_u8, any::<bool>()).prop_map(|(rule, path, pod, hint)| Step::Want(rule, path, pod, hint)),
        3 => (0..3_u8, 0..3_u8, 0..4_u8).prop_map(|(rule, path, pod)| Step::Unwant(rule, path, pod)),
        1 => Just(Step::List),
        2 => Just(Step::Settle),
    ]
}

proptest! {
    /// Whatever is declared and undeclared, with whatever writes failing: in the end the server has just that; nobody else's
    /// entry is touched; and a pod for which something stays declared is never without an entry once it had one.
    #[test]
    fn the_server_has_what_is_wanted(
        steps in proptest::collection::vec(step(), 1..40),
        failing in proptest::collection::btree_set(1..60_usize, 0..20),
        foreign in proptest::collection::vec((0..3_u8, 0..4_u8), 0..3),
        left_over in proptest::collection::vec((0..3_u8, 0..4_u8), 0..3),
    ) {
        let mut ledger = Ledger::new(rule(), MassDelete { percent: 100, at_least: 0 });
        let mut server = Server { failing, ..Server::default() };
        let path = |n: u8| format!("/path{n}");
        let pod = |n: u8| if n == 0 { String::new() } else { format!("p{n}") };
        for (n, (p, q)) in left_over.iter().enumerate() {
            server.put(&format!("east.left-{n}"), &wanted(&path(*p), &pod(*q), "left"));
        }
        for (n, (p, q)) in foreign.iter().enumerate() {
            let theirs = wanted(&path(*p), &pod(*q), "");
            let similar = server.entries.values().any(|there| Wanted::of(there).key == theirs.key);
            if !similar {
                server.put(&format!("manual-{n}"), &theirs);
            }
        }
        let theirs: BTreeMap<_, _> = server.entries.iter().filter(|(id, _)| id.starts_with("manual")).map(|(id, entry)| (id.clone(), entry.clone())).collect();
        list(&mut ledger, &server);
        let mut declared: BTreeMap<(Key, Source), Arc<Wanted>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Want(rule, p, q, hint) => {
                    let one = wanted(&path(p), &pod(q), if hint { "hint" } else { "" });
                    declared.insert((one.key.clone(), source(&rule.to_string())), one.clone());
                    ledger.want(source(&rule.to_string()), one, Instant::now());
                }
                Step::Unwant(rule, p, q) => {
                    let key = wanted(&path(p), &pod(q), "").key.clone();
                    declared.remove(&(key.clone(), source(&rule.to_string())));
                    ledger.unwant(&source(&rule.to_string()), &key, false);
                }
                Step::List => list(&mut ledger, &server),
                Step::Settle => {
                    let kept: Vec<String> = declared.keys().flat_map(|(key, _)| key.pods().map(str::to_owned).collect::<Vec<_>>()).filter(|pod| server.of_pod(pod) > 0).collect();
                    settle(&mut ledger, &mut server, undeclared, |server| {
                        for pod in &kept {
                            assert!(server.of_pod(pod) > 0, "{pod} lost its last entry");
                        }
                    });
                }
            }
        }
        settle(&mut ledger, &mut server, undeclared, |_| ());
        settle(&mut ledger, &mut server, undeclared, |_| ());
        for (id, entry) in &theirs {
            prop_assert_eq!(server.entries.get(id), Some(entry), "somebody else's");
        }
        let own: BTreeMap<Key, Arc<Wanted>> = server.entries.iter().filter(|(id, _)| !theirs.contains_key(*id)).map(|(_, entry)| (Wanted::of(entry).key, Arc::new(Wanted::of(entry)))).collect();
        let own_count = server.entries.len() - theirs.len();
        prop_assert_eq!(own.len(), own_count, "no duplicates");
        let their_keys: BTreeSet<Key> = theirs.values().map(|entry| Wanted::of(entry).key).collect();
        let mut expected: BTreeMap<Key, Arc<Wanted>> = BTreeMap::new();
        for ((key, _), wanted) in declared.iter().rev() {
            if !their_keys.contains(key) {
                expected.insert(key.clone(), wanted.clone());
            }
        }
        prop_assert_eq!(own, expected);
    }
}
