use std::collections::BTreeSet;
use std::sync::Arc;

use identity::{Bundle, EntryId};
use store::{Change, ChangesError, EditEntry, EntryFilter, Store};
use tokio::task::JoinSet;

use crate::support::{agent, create, domain, entry};

pub(crate) async fn every_write_is_told_before_its_answer(store: Store) {
    let watch = store.watch();
    let mut seen = store.snapshot().await.unwrap().sequence;
    let mut expect = async |expected: Vec<Change>| {
        assert!(*watch.borrow() > seen, "the watch shows the write");
        let told = store.changes_since(seen).await.unwrap();
        assert_eq!(told.changes, expected);
        assert_eq!(told.sequence, *watch.borrow());
        seen = told.sequence;
    };
    let one = entry("one", "/one", &["s:1"]);
    create(&store, one.clone()).await;
    expect(vec![Change::Entry(
        one.id.clone(),
        Some(Arc::new(one.clone())),
    )])
    .await;
    let agent = agent("/spire/agent/a", &[]);
    store.attest_agent(agent.clone()).await.unwrap();
    expect(vec![Change::Agent(
        agent.id.clone(),
        Some(Arc::new(agent.clone())),
    )])
    .await;
    store.delete_agent(&agent.id).await.unwrap();
    expect(vec![Change::Agent(agent.id, None)]).await;
    store
        .create_bundle(Bundle::empty(domain("other.org")))
        .await
        .unwrap();
    expect(vec![Change::Bundle(domain("other.org"))]).await;
    store.delete_entries(vec![one.id.clone()]).await.unwrap();
    expect(vec![Change::Entry(one.id, None)]).await;
}

pub(crate) async fn a_refused_write_is_no_change(store: Store) {
    let one = entry("one", "/one", &["s:1"]);
    create(&store, one.clone()).await;
    let before = *store.watch().borrow();
    store
        .create_entries(vec![entry("two", "/one", &["s:1"])])
        .await
        .unwrap();
    store
        .delete_entries(vec![EntryId::new("three").unwrap()])
        .await
        .unwrap();
    assert_eq!(*store.watch().borrow(), before);
    assert_eq!(store.changes_since(before).await.unwrap().changes, []);
    // A number that the refused ones took is not missed.
    create(&store, entry("four", "/four", &["s:1"])).await;
    assert_eq!(store.changes_since(before).await.unwrap().changes.len(), 1);
}

pub(crate) async fn a_follower_that_is_far_behind_reads_the_log(store: Store) {
    create(&store, entry("first", "/first", &["s:1"])).await;
    let edit = |count: usize| -> Vec<(EntryId, EditEntry)> {
        let edit = || -> EditEntry {
            Box::new(|entry| {
                entry.admin = !entry.admin;
                Ok(())
            })
        };
        (0..count)
            .map(|_| (EntryId::new("first").unwrap(), edit()))
            .collect()
    };
    let start = *store.watch().borrow();
    store.update_entries(edit(20_001)).await.unwrap();
    let told = store.changes_since(start).await.unwrap();
    // Told once, as it is now, though it changed 20 001 times.
    let now = store
        .entry(&EntryId::new("first").unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(now.revision, 20_001);
    assert_eq!(
        told.changes,
        [Change::Entry(now.id.clone(), Some(Arc::new(now)))]
    );
    assert_eq!(told.sequence, *store.watch().borrow());
}

pub(crate) async fn a_pruned_log_asks_for_a_snapshot(store: Store) {
    create(&store, entry("one", "/one", &["s:1"])).await;
    let start = *store.watch().borrow();
    let many = (0..20_000)
        .map(|number| entry(&format!("e{number}"), &format!("/{number}"), &["s:1"]))
        .collect();
    store.create_entries(many).await.unwrap();
    assert_eq!(store.prune_changes(0).await.unwrap(), 20_000);
    assert_eq!(
        store.changes_since(start).await,
        Err(ChangesError::Pruned(start))
    );
    let last = *store.watch().borrow();
    assert_eq!(store.changes_since(last).await.unwrap().changes, []);
    assert_eq!(store.snapshot().await.unwrap().sequence, last);
}

pub(crate) async fn a_follower_from_the_future_loads_a_snapshot(store: Store) {
    assert_eq!(store.changes_since(1).await, Err(ChangesError::Pruned(1)));
    assert_eq!(store.changes_since(0).await.unwrap().changes, []);
}

pub(crate) async fn parallel_writers_lose_nothing(store: Store) {
    let start = *store.watch().borrow();
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let store = store.clone();
        writers.spawn(async move {
            for number in 0..20 {
                let name = format!("w{writer}-{number}");
                create(&store, entry(&name, &format!("/{name}"), &["s:1"])).await;
                assert!(
                    store
                        .entry(&EntryId::new(&name).unwrap())
                        .await
                        .unwrap()
                        .is_some()
                );
            }
        });
    }
    writers.join_all().await;
    assert_eq!(store.count_entries(&EntryFilter::default()).await, Ok(320));
    let told = store.changes_since(start).await.unwrap();
    let ids: BTreeSet<_> = told
        .changes
        .iter()
        .map(|change| match change {
            Change::Entry(id, Some(_)) => id.to_string(),
            other => panic!("unexpected: {other:?}"),
        })
        .collect();
    assert_eq!((told.changes.len(), ids.len()), (320, 320));
}
