//! The two indexes: from a selector to entries, and from a selector to watched sets.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::SystemTime,
};

use identity::{EntryId, RegistrationEntry, Selector, Selectors};

use super::order;

/// Finds the entries that a selector set matches.
#[derive(Debug, Default)]
pub(super) struct EntryIndex {
    /// Each entry stands under one of its selectors, the one that fewest others had.
    homes: HashMap<Selector, HashMap<EntryId, Selectors>>,
    home_of: HashMap<EntryId, Selector>,
    /// How many entries have a selector.
    uses: HashMap<Selector, usize>,
}

impl EntryIndex {
    /// An entry without selectors matches nobody, so it is not put in.
    pub(super) fn insert(&mut self, entry: &RegistrationEntry) {
        let uses = |selector: &Selector| self.uses.get(selector).copied().unwrap_or_default();
        let Some(home) = entry.selectors.iter().min_by_key(|one| uses(one)).cloned() else {
            return;
        };
        for selector in &entry.selectors {
            *self.uses.entry(selector.clone()).or_default() += 1;
        }
        self.homes
            .entry(home.clone())
            .or_default()
            .insert(entry.id.clone(), entry.selectors.clone());
        self.home_of.insert(entry.id.clone(), home);
    }

    pub(super) fn remove(&mut self, entry: &RegistrationEntry) {
        let Some(home) = self.home_of.remove(&entry.id) else {
            return;
        };
        if let Some(housed) = self.homes.get_mut(&home) {
            housed.remove(&entry.id);
            if housed.is_empty() {
                self.homes.remove(&home);
            }
        }
        for selector in &entry.selectors {
            if let Some(uses) = self.uses.get_mut(selector) {
                *uses -= 1;
                if *uses == 0 {
                    self.uses.remove(selector);
                }
            }
        }
    }

    /// The entries whose selectors are all among these, in no order.
    pub(super) fn matching<'a>(
        &'a self,
        selectors: &'a Selectors,
    ) -> impl Iterator<Item = &'a EntryId> {
        selectors
            .iter()
            .filter_map(|selector| self.homes.get(selector))
            .flatten()
            .filter(|(_, wanted)| wanted.is_subset_of(selectors))
            .map(|(id, _)| id)
    }
}

/// What a watched selector set matches, in the order of its view.
pub(super) type Matching = BTreeSet<(SystemTime, EntryId)>;

/// Finds the watched selector sets that an entry concerns.
#[derive(Debug, Default)]
pub(super) struct WatchIndex {
    sets: HashMap<Selectors, Matching>,
    by_selector: HashMap<Selector, HashSet<Selectors>>,
}

impl WatchIndex {
    /// Tells whether the set is new.
    pub(super) fn insert(&mut self, selectors: Selectors, matching: Matching) -> bool {
        if self.sets.contains_key(&selectors) {
            return false;
        }
        for selector in &selectors {
            self.by_selector
                .entry(selector.clone())
                .or_default()
                .insert(selectors.clone());
        }
        self.sets.insert(selectors, matching);
        true
    }

    pub(super) fn remove(&mut self, selectors: &Selectors) -> Matching {
        for selector in selectors {
            if let Some(sets) = self.by_selector.get_mut(selector) {
                sets.remove(selectors);
                if sets.is_empty() {
                    self.by_selector.remove(selector);
                }
            }
        }
        self.sets.remove(selectors).unwrap_or_default()
    }

    pub(super) fn entries(&self, selectors: &Selectors) -> Option<&Matching> {
        self.sets.get(selectors)
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = &Selectors> {
        self.sets.keys()
    }

    /// The watched sets that an entry with these selectors matches.
    pub(super) fn matching<'a>(
        &'a self,
        selectors: &'a Selectors,
    ) -> impl Iterator<Item = &'a Selectors> {
        let rarest = selectors
            .iter()
            .map(|selector| self.by_selector.get(selector))
            .min_by_key(|sets| sets.map_or(0, HashSet::len));
        rarest
            .flatten()
            .into_iter()
            .flatten()
            .filter(|set| selectors.is_subset_of(set))
    }

    /// Adds the entry to the sets it matches, and tells which.
    pub(super) fn note_entry(&mut self, entry: &RegistrationEntry) -> Vec<Selectors> {
        self.edit(entry, |matching| matching.insert(order(entry)))
    }

    /// Takes the entry out of the sets it matched, and tells which.
    pub(super) fn forget_entry(&mut self, entry: &RegistrationEntry) -> Vec<Selectors> {
        self.edit(entry, |matching| matching.remove(&order(entry)))
    }

    fn edit(
        &mut self,
        entry: &RegistrationEntry,
        edit: impl Fn(&mut Matching) -> bool,
    ) -> Vec<Selectors> {
        let mut concerned: Vec<Selectors> = self.matching(&entry.selectors).cloned().collect();
        concerned.retain(|set| self.sets.get_mut(set).is_some_and(&edit));
        concerned
    }
}
