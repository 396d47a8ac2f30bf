//! Random writes against a plain model in memory: outcomes, lists, and a follower of the change log must agree with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use identity::{EntryId, RegistrationEntry, Selectors};
use proptest::prelude::*;
use store::{
    Change, CreateEntryError, EditEntry, EntryFilter, Match, Page, Store, UpdateEntryError,
};

use crate::support::{self, NOW, at, entry, selectors};

#[derive(Clone, Debug)]
enum Step {
    Create(Vec<(u8, u8, u8)>),
    Edit(u8, u8),
    Delete(Vec<u8>),
    Prune,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0_u8..6;
    prop_oneof![
        3 => prop::collection::vec((name.clone(), 0_u8..3, 1_u8..8), 1..5).prop_map(Step::Create),
        2 => (name.clone(), 1_u8..8).prop_map(|(name, set)| Step::Edit(name, set)),
        1 => prop::collection::vec(name, 1..4).prop_map(Step::Delete),
        1 => Just(Step::Prune),
    ]
}

/// The selectors whose bits are set.
fn set(bits: u8) -> Selectors {
    let texts = [(1, "s:1"), (2, "s:2"), (4, "s:3")];
    let chosen: Vec<&str> = texts
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, text)| *text)
        .collect();
    selectors(&chosen)
}

fn made(name: u8, path: u8, bits: u8) -> RegistrationEntry {
    let mut entry = entry(&format!("e{name}"), &format!("/{path}"), &[]);
    entry.selectors = set(bits);
    entry.expires_at = (bits == 7).then(|| at(NOW - 1));
    entry
}

fn similar(a: &RegistrationEntry, b: &RegistrationEntry) -> bool {
    (&a.spiffe_id, &a.parent_id, &a.selectors) == (&b.spiffe_id, &b.parent_id, &b.selectors)
}

/// What the store should hold: the entries in the order of creation.
#[derive(Default)]
struct Model(Vec<RegistrationEntry>);

impl Model {
    fn create(&mut self, entry: &RegistrationEntry) -> Result<(), CreateEntryError> {
        if let Some(known) = self.0.iter().find(|known| similar(known, entry)) {
            return Err(CreateEntryError::Similar(Arc::new(known.clone())));
        }
        if self.0.iter().any(|known| known.id == entry.id) {
            return Err(CreateEntryError::IdTaken(entry.id.clone()));
        }
        self.0.push(entry.clone());
        Ok(())
    }

    fn edit(&mut self, id: &EntryId, selectors: Selectors) -> Result<(), UpdateEntryError> {
        let place = self
            .0
            .iter()
            .position(|known| known.id == *id)
            .ok_or(UpdateEntryError::NotFound)?;
        let mut after = self.0[place].clone();
        after.selectors = selectors;
        if let Some(other) = self
            .0
            .iter()
            .find(|known| known.id != *id && similar(known, &after))
        {
            return Err(UpdateEntryError::Similar(Arc::new(other.clone())));
        }
        after.revision += 1;
        self.0[place] = after;
        Ok(())
    }

    fn delete(&mut self, id: &EntryId) -> bool {
        let before = self.0.len();
        self.0.retain(|known| known.id != *id);
        self.0.len() < before
    }

    fn listed(&self, how: Match, wanted: &Selectors) -> Vec<RegistrationEntry> {
        let matches = |own: &Selectors| match how {
            Match::Exact => own == wanted,
            Match::Subset => own.is_subset_of(wanted),
            Match::Superset => wanted.is_subset_of(own),
            Match::Any => own.iter().any(|selector| wanted.contains(selector)),
        };
        self.0
            .iter()
            .filter(|entry| matches(&entry.selectors))
            .cloned()
            .collect()
    }
}

async fn apply(store: &Store, model: &mut Model, step: Step) {
    let id = |name: u8| EntryId::new(&format!("e{name}")).unwrap();
    match step {
        Step::Create(items) => {
            let entries: Vec<_> = items
                .into_iter()
                .map(|(name, path, bits)| made(name, path, bits))
                .collect();
            let expected: Vec<_> = entries.iter().map(|entry| model.create(entry)).collect();
            let outcomes = store.create_entries(entries).await.unwrap();
            let outcomes: Vec<_> = outcomes
                .into_iter()
                .map(|outcome| outcome.map(drop))
                .collect();
            assert_eq!(outcomes, expected);
        }
        Step::Edit(name, bits) => {
            let expected = model.edit(&id(name), set(bits));
            let edit: EditEntry = Box::new(move |entry| {
                entry.selectors = set(bits);
                Ok(())
            });
            let mut outcomes = store.update_entries(vec![(id(name), edit)]).await.unwrap();
            assert_eq!(outcomes.remove(0).map(drop), expected);
        }
        Step::Delete(names) => {
            let ids: Vec<_> = names.into_iter().map(id).collect();
            let expected: Vec<_> = ids.iter().map(|id| model.delete(id)).collect();
            assert_eq!(store.delete_entries(ids).await.unwrap(), expected);
        }
        Step::Prune => {
            store.prune_entries(at(NOW)).await.unwrap();
            model
                .0
                .retain(|entry| entry.expires_at.is_none_or(|time| time >= at(NOW)));
        }
    }
}

async fn check(store: &Store, model: &Model) {
    let all = store
        .list_entries(&EntryFilter::default(), Page::default())
        .await
        .unwrap();
    assert_eq!(all.items, model.0);
    for how in [Match::Exact, Match::Subset, Match::Superset, Match::Any] {
        for bits in 1..8 {
            let filter = EntryFilter {
                selectors: Some((how, set(bits))),
                ..EntryFilter::default()
            };
            let listing = store.list_entries(&filter, Page::default()).await.unwrap();
            assert_eq!(
                listing.items,
                model.listed(how, &set(bits)),
                "{how:?} {bits}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_behaves_as_the_model(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = support::open(&folder.path().join("data")).await.unwrap();
            let (mut model, mut sequence) = (Model::default(), 0);
            let mut followed: BTreeMap<String, RegistrationEntry> = BTreeMap::new();
            for step in steps {
                apply(&store, &mut model, step).await;
                let told = store.changes_since(sequence).await.unwrap();
                sequence = told.sequence;
                for change in told.changes {
                    let Change::Entry(id, entry) = change else { panic!("an entry's change") };
                    match entry {
                        Some(entry) => followed.insert(id.to_string(), entry.as_ref().clone()),
                        None => followed.remove(id.as_str()),
                    };
                }
                let expected: BTreeMap<_, _> = model.0.iter().map(|entry| (entry.id.to_string(), entry.clone())).collect();
                assert_eq!(followed, expected);
            }
            check(&store, &model).await;
            store.close().await;
            // What is on the disk is the same.
            let store = support::open(&folder.path().join("data")).await.unwrap();
            check(&store, &model).await;
        });
    }
}
