//! The index: pure, no locks, no database.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use identity::{EntryId, RegistrationEntry, Selector, Selectors, SpiffeId, TrustDomain};
use store::{Agent, Change, Changes, Snapshot};

type Entry = Arc<RegistrationEntry>;

/// The kind of the selector that every agent has: its own ID.
const ID_SELECTOR: &str = "spiffe_id";

/// Entries and agents, by what they are looked up by.
///
/// An agent is authorised for the entries below its own ID and below the IDs of its node aliases: below means that an
/// entry's parent ID is that ID, or the SPIFFE ID of an entry below it. A node alias is an entry under the server's ID
/// whose selectors the node all has; one of them may be `spiffe_id:<the agent's own ID>`. An agent that is named by its pod
/// also stands for its Kubernetes node, under whose ID the pods' entries are.
pub(super) struct Index {
    server: SpiffeId,
    entries: HashMap<EntryId, Entry>,
    /// Sorted by entry ID.
    by_parent: HashMap<SpiffeId, BTreeMap<EntryId, Entry>>,
    by_spiffe_id: HashMap<SpiffeId, BTreeMap<EntryId, Entry>>,
    /// Node aliases, each by one of its selectors.
    aliases: HashMap<Selector, BTreeMap<EntryId, Entry>>,
    agents: HashMap<SpiffeId, Arc<Agent>>,
}

impl Index {
    pub(super) fn new(trust_domain: &TrustDomain) -> Self {
        let server = SpiffeId::new(trust_domain, "/spire/server");
        Self {
            server: server.expect("a constant path must be a SPIFFE ID's in any trust domain"),
            entries: HashMap::new(),
            by_parent: HashMap::new(),
            by_spiffe_id: HashMap::new(),
            aliases: HashMap::new(),
            agents: HashMap::new(),
        }
    }

    /// Holds what the snapshot holds, and nothing else.
    pub(super) fn load(&mut self, snapshot: Snapshot) {
        let server = self.server.clone();
        *self = Self::new(server.trust_domain());
        for entry in snapshot.entries {
            self.insert(Arc::new(entry));
        }
        let agents = snapshot.agents.into_iter();
        self.agents = agents
            .map(|agent| (agent.id.clone(), Arc::new(agent)))
            .collect();
    }

    pub(super) fn apply(&mut self, changes: Changes) {
        for change in changes.changes {
            match change {
                Change::Entry(id, entry) => {
                    self.remove(&id);
                    if let Some(entry) = entry {
                        self.insert(entry);
                    }
                }
                Change::Agent(id, Some(agent)) => {
                    self.agents.insert(id, agent);
                }
                Change::Agent(id, None) => {
                    self.agents.remove(&id);
                }
                Change::Bundle(_) => {}
            }
        }
    }

    /// How many entries and agents there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.entries.len(), self.agents.len())
    }

    pub(super) fn agent(&self, id: &SpiffeId) -> Option<Arc<Agent>> {
        self.agents.get(id).cloned()
    }

    pub(super) fn of_spiffe_id(&self, id: &SpiffeId) -> Vec<Entry> {
        let found = self.by_spiffe_id.get(id);
        found
            .into_iter()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect()
    }

    pub(super) fn authorized(&self, agent: &SpiffeId) -> Arc<[Entry]> {
        let Some(agent) = self.active(agent) else {
            return Arc::default();
        };
        let mut seen = HashSet::new();
        let aliases = self.aliases_of(agent);
        let node = node_of(agent);
        let mut parents = vec![&agent.id];
        parents.extend(&node);
        parents.extend(aliases.iter().map(|alias| &alias.spiffe_id));
        let mut found = Vec::new();
        while let Some(parent) = parents.pop() {
            if !seen.insert(parent) {
                continue;
            }
            for entry in self
                .by_parent
                .get(parent)
                .into_iter()
                .flat_map(BTreeMap::values)
            {
                found.push(Arc::clone(entry));
                if self.by_parent.contains_key(&entry.spiffe_id) {
                    parents.push(&entry.spiffe_id);
                }
            }
        }
        found.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        found.into()
    }

    pub(super) fn lookup(&self, agent: &SpiffeId, ids: &[EntryId]) -> Vec<Option<Entry>> {
        let Some(agent) = self.active(agent) else {
            return vec![None; ids.len()];
        };
        let aliases = self.aliases_of(agent);
        let node = node_of(agent);
        let mut above = Above {
            index: self,
            roots: aliases.iter().map(|alias| &alias.spiffe_id).collect(),
            known: HashMap::new(),
        };
        above.roots.insert(&agent.id);
        above.roots.extend(&node);
        ids.iter()
            .map(|id| {
                let entry = self.entries.get(id)?;
                above
                    .reaches_root(&entry.parent_id)
                    .then(|| Arc::clone(entry))
            })
            .collect()
    }

    /// The agent, unless it is banned.
    fn active(&self, id: &SpiffeId) -> Option<&Agent> {
        let agent = self.agents.get(id)?;
        (!agent.banned).then_some(agent)
    }

    fn aliases_of(&self, agent: &Agent) -> Vec<Entry> {
        if self.aliases.is_empty() {
            return Vec::new();
        }
        let own = Selector::new(ID_SELECTOR, agent.id.as_str()).ok();
        let selectors: Selectors = agent.selectors.iter().cloned().chain(own).collect();
        let candidates = selectors.iter();
        candidates
            .filter_map(|selector| self.aliases.get(selector))
            .flat_map(BTreeMap::values)
            .filter(|alias| alias.selectors.is_subset_of(&selectors))
            .cloned()
            .collect()
    }

    fn insert(&mut self, entry: Entry) {
        if let Some(selector) = self.alias_selector(&entry) {
            insert_into(&mut self.aliases, selector, &entry);
        }
        insert_into(&mut self.by_parent, entry.parent_id.clone(), &entry);
        insert_into(&mut self.by_spiffe_id, entry.spiffe_id.clone(), &entry);
        self.entries.insert(entry.id.clone(), entry);
    }

    fn remove(&mut self, id: &EntryId) {
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        if let Some(selector) = self.alias_selector(&entry) {
            remove_from(&mut self.aliases, &selector, id);
        }
        remove_from(&mut self.by_parent, &entry.parent_id, id);
        remove_from(&mut self.by_spiffe_id, &entry.spiffe_id, id);
    }

    /// The selector under which a node alias is kept: the last, which tells nodes apart better than the first where they
    /// begin alike.
    fn alias_selector(&self, entry: &RegistrationEntry) -> Option<Selector> {
        let last = entry.selectors.iter().next_back();
        last.filter(|_| entry.parent_id == self.server).cloned()
    }
}

/// The ID that stands for the Kubernetes node of an agent which is named by its pod. The attestor vouches for both.
fn node_of(agent: &Agent) -> Option<SpiffeId> {
    let path = agent.id.path().strip_prefix("/spire/agent/k8s_psat/")?;
    let (cluster, _) = path.split_once("/pod/")?;
    if agent.attestation_type != "k8s_psat" {
        return None;
    }
    let selectors = agent.selectors.iter();
    let node = selectors
        .filter(|selector| selector.kind() == "k8s_psat")
        .find_map(|selector| selector.value().strip_prefix("agent_node_uid:"))?;
    let path = format!("/spire/agent/k8s_psat/{cluster}/{node}");
    SpiffeId::new(agent.id.trust_domain(), &path).ok()
}

/// What lies above an entry, as far as it has been found out.
struct Above<'a> {
    index: &'a Index,
    /// The agent's own ID and those of its aliases.
    roots: HashSet<&'a SpiffeId>,
    known: HashMap<&'a SpiffeId, bool>,
}

impl<'a> Above<'a> {
    /// Whether `parent` is a root or lies below one. Walks up, by way of the entries whose SPIFFE ID is the parent.
    fn reaches_root(&mut self, parent: &'a SpiffeId) -> bool {
        if let Some(known) = self.known.get(parent) {
            return *known;
        }
        let mut seen = HashSet::new();
        let mut open = vec![parent];
        let mut reached = false;
        while let Some(id) = open.pop() {
            if self.roots.contains(id) || self.known.get(id) == Some(&true) {
                reached = true;
                break;
            }
            if seen.insert(id) {
                let entries = self.index.by_spiffe_id.get(id);
                let entries = entries.into_iter().flat_map(BTreeMap::values);
                open.extend(entries.map(|entry| &entry.parent_id));
            }
        }
        self.known.insert(parent, reached);
        reached
    }
}

fn insert_into<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, BTreeMap<EntryId, Entry>>,
    key: K,
    entry: &Entry,
) {
    let entries = map.entry(key).or_default();
    entries.insert(entry.id.clone(), Arc::clone(entry));
}

fn remove_from<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, BTreeMap<EntryId, Entry>>,
    key: &K,
    id: &EntryId,
) {
    if let Some(entries) = map.get_mut(key) {
        entries.remove(id);
        if entries.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
