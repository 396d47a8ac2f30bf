use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use store::AgentSvid;

use super::*;

fn id(path: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::new("example.org").unwrap(), path).unwrap()
}

fn entry(name: &str, parent: &str, path: &str, selectors: &[&str]) -> RegistrationEntry {
    RegistrationEntry {
        selectors: selectors
            .iter()
            .map(|text| Selector::parse(text).unwrap())
            .collect(),
        ..RegistrationEntry::new(
            EntryId::new(name).unwrap(),
            id(path),
            id(parent),
            UNIX_EPOCH,
        )
    }
}

fn agent(path: &str, selectors: &[&str]) -> Agent {
    Agent {
        id: id(path),
        attestation_type: "x509pop".to_owned(),
        selectors: selectors
            .iter()
            .map(|text| Selector::parse(text).unwrap())
            .collect(),
        svid: AgentSvid {
            serial: "1".to_owned(),
            expires_at: UNIX_EPOCH,
        },
        renewed: None,
        can_reattest: true,
        banned: false,
        version: String::new(),
    }
}

fn index(entries: Vec<RegistrationEntry>, agents: Vec<Agent>) -> Index {
    let mut index = Index::new(&TrustDomain::new("example.org").unwrap());
    index.load(Snapshot {
        sequence: 0,
        entries,
        agents,
    });
    index
}

/// The names of the agent's entries; checks that looking each up says the same.
fn authorized(index: &Index, agent: &str) -> Vec<String> {
    let agent = id(agent);
    let found = index.authorized(&agent);
    let all: Vec<EntryId> = index.entries.keys().cloned().collect();
    let mut looked_up: Vec<Entry> = index.lookup(&agent, &all).into_iter().flatten().collect();
    looked_up.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(looked_up, found.to_vec());
    found.iter().map(|entry| entry.id.to_string()).collect()
}

fn apply(index: &mut Index, change: Change) {
    index.apply(Changes {
        sequence: 0,
        changes: vec![change],
    });
}

#[test]
fn an_agent_has_what_lies_below_it_and_its_aliases() {
    let index = index(
        vec![
            entry("alias", "/spire/server", "/cluster", &["k8s:cluster:a"]),
            entry(
                "narrow",
                "/spire/server",
                "/narrow",
                &["k8s:cluster:a", "k8s:node:9"],
            ),
            entry("own", "/agent/1", "/own", &["u:1"]),
            entry("below", "/own", "/below", &["u:2"]),
            entry("shared", "/cluster", "/shared", &["u:3"]),
            entry("deep", "/below", "/deep", &["u:4"]),
            entry("foreign", "/agent/2", "/foreign", &["u:5"]),
            entry("narrowed", "/narrow", "/narrowed", &["u:6"]),
        ],
        vec![
            agent("/agent/1", &["k8s:cluster:a", "k8s:node:1"]),
            agent("/agent/2", &["k8s:cluster:b"]),
            agent("/agent/3", &["k8s:cluster:a", "k8s:node:9"]),
        ],
    );
    assert_eq!(
        authorized(&index, "/agent/1"),
        ["below", "deep", "own", "shared"]
    );
    assert_eq!(authorized(&index, "/agent/2"), ["foreign"]);
    assert_eq!(authorized(&index, "/agent/3"), ["narrowed", "shared"]);
}

#[test]
fn ctl_23_an_agents_own_id_is_a_selector_for_aliases() {
    let own = "spiffe_id:spiffe://example.org/agent/1";
    let index = index(
        vec![
            entry("alias", "/spire/server", "/node", &[own]),
            entry("both", "/spire/server", "/both", &["u:1", own]),
            entry("web", "/node", "/web", &["k8s:ns:shop"]),
            entry("db", "/both", "/db", &["k8s:ns:shop"]),
        ],
        vec![agent("/agent/1", &[]), agent("/agent/2", &["u:1"])],
    );
    assert_eq!(authorized(&index, "/agent/1"), ["web"]);
    assert_eq!(authorized(&index, "/agent/2"), Vec::<String>::new());
}

#[test]
fn ctl_23_only_what_k8s_psat_attested_stands_for_its_node() {
    let path = "/spire/agent/k8s_psat/prod/pod/p";
    let mut by_pod = agent(path, &["k8s_psat:agent_node_uid:n"]);
    by_pod.attestation_type = "k8s_psat".to_owned();
    let web = || entry("web", "/spire/agent/k8s_psat/prod/n", "/web", &["u:1"]);
    let index_of = |agent: Agent| index(vec![web()], vec![agent]);
    assert_eq!(authorized(&index_of(by_pod.clone()), path), ["web"]);
    by_pod.attestation_type = "x509pop".to_owned();
    assert_eq!(authorized(&index_of(by_pod), path), Vec::<String>::new());
}

#[test]
fn i_1_an_agent_that_is_unknown_or_banned_has_nothing() {
    let mut banned = agent("/agent/1", &[]);
    banned.banned = true;
    let index = index(
        vec![entry("own", "/agent/1", "/own", &["u:1"])],
        vec![banned],
    );
    assert_eq!(authorized(&index, "/agent/1"), Vec::<String>::new());
    assert_eq!(authorized(&index, "/agent/9"), Vec::<String>::new());
}

#[test]
fn circles_end() {
    let index = index(
        vec![
            entry("a", "/agent/1", "/a", &["u:1"]),
            entry("b", "/a", "/b", &["u:1"]),
            entry("back", "/b", "/a", &["u:1"]),
            entry("self", "/s", "/s", &["u:1"]),
            entry("x", "/y", "/x", &["u:1"]),
            entry("y", "/x", "/y", &["u:1"]),
        ],
        vec![agent("/agent/1", &[])],
    );
    assert_eq!(authorized(&index, "/agent/1"), ["a", "b", "back"]);
}

#[test]
fn s_23_what_an_alias_gave_goes_with_it() {
    let alias = entry("alias", "/spire/server", "/cluster", &["k8s:cluster:a"]);
    let mut index = index(
        vec![
            alias.clone(),
            entry("shared", "/cluster", "/shared", &["u:3"]),
        ],
        vec![agent("/agent/1", &["k8s:cluster:a"])],
    );
    assert_eq!(authorized(&index, "/agent/1"), ["shared"]);
    // The node loses the selector.
    apply(
        &mut index,
        Change::Agent(id("/agent/1"), Some(Arc::new(agent("/agent/1", &[])))),
    );
    assert_eq!(authorized(&index, "/agent/1"), Vec::<String>::new());
    apply(
        &mut index,
        Change::Agent(
            id("/agent/1"),
            Some(Arc::new(agent("/agent/1", &["k8s:cluster:a"]))),
        ),
    );
    assert_eq!(authorized(&index, "/agent/1"), ["shared"]);
    // The alias goes.
    apply(&mut index, Change::Entry(alias.id, None));
    assert_eq!(authorized(&index, "/agent/1"), Vec::<String>::new());
    assert!(index.aliases.is_empty());
}

#[test]
fn nothing_is_left_of_what_is_gone() {
    let mut index = index(Vec::new(), Vec::new());
    let one = entry("one", "/spire/server", "/one", &["u:1", "u:2"]);
    apply(
        &mut index,
        Change::Entry(one.id.clone(), Some(Arc::new(one.clone()))),
    );
    let mut moved = one.clone();
    (moved.parent_id, moved.spiffe_id) = (id("/agent/1"), id("/moved"));
    apply(
        &mut index,
        Change::Entry(one.id.clone(), Some(Arc::new(moved))),
    );
    assert!(index.aliases.is_empty());
    assert_eq!(index.of_spiffe_id(&id("/one")), []);
    apply(&mut index, Change::Entry(one.id, None));
    let sizes = [
        index.entries.len(),
        index.by_parent.len(),
        index.by_spiffe_id.len(),
        index.aliases.len(),
    ];
    assert_eq!(sizes, [0; 4]);
}

/// Brute force: an entry is the agent's if any way up from it, in any number of steps, ends at a root.
fn reference(entries: &[RegistrationEntry], agent: &Agent) -> Vec<String> {
    let aliases = entries.iter().filter(|entry| {
        entry.parent_id == id("/spire/server") && entry.selectors.is_subset_of(&agent.selectors)
    });
    let mut roots: HashSet<SpiffeId> = aliases.map(|alias| alias.spiffe_id.clone()).collect();
    roots.insert(agent.id.clone());
    let mut names = HashSet::new();
    for _ in 0..=entries.len() {
        for entry in entries
            .iter()
            .filter(|entry| roots.contains(&entry.parent_id))
            .cloned()
            .collect::<Vec<_>>()
        {
            roots.insert(entry.spiffe_id);
            names.insert(entry.id.to_string());
        }
    }
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort_unstable();
    names
}

proptest! {
    /// Random forests, built by changes in any order, against brute force.
    #[test]
    fn the_index_agrees_with_brute_force(
        steps in prop::collection::vec((0_u8..12, 0_usize..6, 0_usize..6, 0_u8..4, any::<bool>()), 1..40),
        node in 0_u8..4,
    ) {
        const PATHS: [&str; 6] = ["/spire/server", "/agent/1", "/a", "/b", "/c", "/d"];
        const SETS: [&[&str]; 4] = [&["n:1"], &["n:2"], &["n:1", "n:2"], &["n:3"]];
        let agent = agent("/agent/1", SETS[usize::from(node)]);
        let mut index = index(Vec::new(), vec![agent.clone()]);
        let mut model: BTreeMap<String, RegistrationEntry> = BTreeMap::new();
        for (name, parent, path, set, delete) in steps {
            let name = format!("e{name}");
            let entry = entry(&name, PATHS[parent], PATHS[path], SETS[usize::from(set)]);
            if delete {
                model.remove(&name);
                apply(&mut index, Change::Entry(entry.id, None));
            } else {
                model.insert(name, entry.clone());
                apply(&mut index, Change::Entry(entry.id.clone(), Some(Arc::new(entry))));
            }
            let entries: Vec<_> = model.values().cloned().collect();
            prop_assert_eq!(authorized(&index, "/agent/1"), reference(&entries, &agent));
        }
    }
}
