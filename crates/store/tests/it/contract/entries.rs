use std::sync::Arc;
use std::time::Duration;

use identity::{Bundle, EntryId, RegistrationEntry};
use store::{CreateEntryError, EditEntry, EntryFilter, Match, Page, Store, UpdateEntryError};

use crate::support::{NOW, at, create, domain, entry, id, selectors};

pub(crate) async fn every_field_comes_back(store: Store) {
    store
        .create_bundle(Bundle::empty(domain("other.org")))
        .await
        .unwrap();
    store
        .create_bundle(Bundle::empty(domain("third.org")))
        .await
        .unwrap();
    let full = RegistrationEntry {
        x509_svid_ttl: Some(Duration::from_secs(60)),
        jwt_svid_ttl: Some(Duration::from_secs(61)),
        federates_with: [domain("third.org"), domain("other.org")].into(),
        admin: true,
        downstream: true,
        expires_at: Some(at(NOW + 5)),
        dns_names: vec!["b.test".to_owned(), "a.test".to_owned()],
        revision: 0,
        store_svid: true,
        hint: "a hint, in UTF-8: ä".to_owned(),
        disable_x509_svid_prefetch: true,
        jwt_svid_include_jti: true,
        ..entry("full", "/full", &["unix:uid:1", "unix:path:/a b:c"])
    };
    let plain = entry("plain", "/plain", &["unix:uid:1"]);
    create(&store, full.clone()).await;
    create(&store, plain.clone()).await;
    assert_eq!(store.entry(&full.id).await.unwrap(), Some(full.clone()));
    assert_eq!(store.entry(&plain.id).await.unwrap(), Some(plain.clone()));
    assert_eq!(store.snapshot().await.unwrap().entries, [full, plain]);
}

pub(crate) async fn a_similar_entry_is_told_with_the_existing_one(store: Store) {
    let first = entry("first", "/a", &["unix:uid:1", "unix:gid:1"]);
    create(&store, first.clone()).await;
    let similar = entry("second", "/a", &["unix:gid:1", "unix:uid:1"]);
    let other_selectors = entry("third", "/a", &["unix:uid:1"]);
    let mut other_parent = entry("fourth", "/a", &["unix:uid:1", "unix:gid:1"]);
    other_parent.parent_id = id("/agent2");
    let outcomes = store
        .create_entries(vec![similar, other_selectors, other_parent])
        .await
        .unwrap();
    assert_eq!(outcomes[0], Err(CreateEntryError::Similar(Arc::new(first))));
    assert!(outcomes[1].is_ok() && outcomes[2].is_ok());
    assert_eq!(
        store.count_entries(&EntryFilter::default()).await.unwrap(),
        3
    );
}

pub(crate) async fn a_similar_entry_of_the_same_batch_is_told_too(store: Store) {
    let first = entry("first", "/a", &["unix:uid:1"]);
    let again = entry("again", "/a", &["unix:uid:1"]);
    let outcomes = store
        .create_entries(vec![first.clone(), again])
        .await
        .unwrap();
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1], Err(CreateEntryError::Similar(Arc::new(first))));
}

pub(crate) async fn a_taken_id_is_told(store: Store) {
    create(&store, entry("one", "/a", &["unix:uid:1"])).await;
    let outcomes = store
        .create_entries(vec![entry("one", "/b", &["unix:uid:1"])])
        .await
        .unwrap();
    assert_eq!(
        outcomes,
        [Err(CreateEntryError::IdTaken(EntryId::new("one").unwrap()))]
    );
}

pub(crate) async fn one_bad_item_takes_no_other_along(store: Store) {
    create(&store, entry("old", "/old", &["unix:uid:1"])).await;
    let batch: Vec<_> = (0..100)
        .map(|number| match number {
            7 | 40 | 99 => entry(&format!("e{number}"), "/old", &["unix:uid:1"]),
            _ => entry(
                &format!("e{number}"),
                &format!("/w/{number}"),
                &["unix:uid:1"],
            ),
        })
        .collect();
    let outcomes = store.create_entries(batch).await.unwrap();
    let refused: Vec<_> = (0..100)
        .filter(|number| outcomes[*number].is_err())
        .collect();
    assert_eq!(refused, [7, 40, 99]);
    let by_selector = EntryFilter {
        selectors: Some((Match::Exact, selectors(&["unix:uid:1"]))),
        ..EntryFilter::default()
    };
    assert_eq!(store.count_entries(&by_selector).await.unwrap(), 98);
}

pub(crate) async fn an_entry_federates_only_with_known_bundles(store: Store) {
    store
        .create_bundle(Bundle::empty(domain("known.org")))
        .await
        .unwrap();
    let mut good = entry("good", "/a", &["unix:uid:1"]);
    good.federates_with = [domain("known.org")].into();
    let mut bad = entry("bad", "/b", &["unix:uid:1"]);
    bad.federates_with = [domain("known.org"), domain("unknown.org")].into();
    let outcomes = store.create_entries(vec![bad, good]).await.unwrap();
    assert_eq!(
        outcomes[0],
        Err(CreateEntryError::NoBundle(domain("unknown.org")))
    );
    assert!(outcomes[1].is_ok());

    let edit: EditEntry = Box::new(|entry| {
        entry.federates_with = [domain("unknown.org")].into();
        Ok(())
    });
    let outcomes = store
        .update_entries(vec![(EntryId::new("good").unwrap(), edit)])
        .await
        .unwrap();
    assert_eq!(
        outcomes,
        [Err(UpdateEntryError::NoBundle(domain("unknown.org")))]
    );
}

pub(crate) async fn large_batches_keep_their_order(store: Store) {
    let batch: Vec<_> = (0..777)
        .map(|number| {
            entry(
                &format!("e{number}"),
                &format!("/w/{number}"),
                &["unix:uid:1", "unix:gid:2", "k8s:ns:x"],
            )
        })
        .collect();
    let outcomes = store.create_entries(batch.clone()).await.unwrap();
    let created: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap().as_ref().clone())
        .collect();
    assert_eq!(created, batch);
    let all = store
        .list_entries(&EntryFilter::default(), Page::default())
        .await
        .unwrap();
    assert_eq!((all.items, all.next), (batch.clone(), None));
    let ids = batch.iter().map(|entry| entry.id.clone()).collect();
    assert_eq!(store.delete_entries(ids).await.unwrap(), [true; 777]);
    assert_eq!(
        store.count_entries(&EntryFilter::default()).await.unwrap(),
        0
    );
}

pub(crate) async fn an_edit_counts_the_revision_and_keeps_what_is_the_stores(store: Store) {
    create(&store, entry("one", "/a", &["unix:uid:1"])).await;
    let edit = || -> EditEntry {
        Box::new(|entry| {
            entry.id = EntryId::new("other").unwrap();
            entry.revision = 77;
            entry.created_at = at(1);
            entry.admin = !entry.admin;
            Ok(())
        })
    };
    let key = EntryId::new("one").unwrap();
    // The same entry twice in a batch: the second edit sees the first.
    let outcomes = store
        .update_entries(vec![(key.clone(), edit()), (key.clone(), edit())])
        .await
        .unwrap();
    let [first, second] = &outcomes[..] else {
        panic!("two outcomes")
    };
    let mut expected = entry("one", "/a", &["unix:uid:1"]);
    (expected.revision, expected.admin) = (1, true);
    assert_eq!(first.as_ref().unwrap().as_ref(), &expected);
    (expected.revision, expected.admin) = (2, false);
    assert_eq!(second.as_ref().unwrap().as_ref(), &expected);
    assert_eq!(store.entry(&key).await.unwrap(), Some(expected));
}

pub(crate) async fn an_edit_that_is_refused_changes_nothing(store: Store) {
    let before = entry("one", "/a", &["unix:uid:1"]);
    create(&store, before.clone()).await;
    let edit: EditEntry = Box::new(|entry| {
        entry.admin = true;
        Err("no".to_owned())
    });
    let outcomes = store
        .update_entries(vec![(before.id.clone(), edit)])
        .await
        .unwrap();
    assert_eq!(outcomes, [Err(UpdateEntryError::Refused("no".to_owned()))]);
    assert_eq!(store.entry(&before.id).await.unwrap(), Some(before));
}

pub(crate) async fn an_edit_into_a_similar_entry_is_refused(store: Store) {
    let one = entry("one", "/a", &["unix:uid:1"]);
    create(&store, one.clone()).await;
    create(&store, entry("two", "/a", &["unix:uid:2"])).await;
    let edit: EditEntry = Box::new(|entry| {
        entry.selectors = selectors(&["unix:uid:1"]);
        Ok(())
    });
    let outcomes = store
        .update_entries(vec![(EntryId::new("two").unwrap(), edit)])
        .await
        .unwrap();
    assert_eq!(outcomes, [Err(UpdateEntryError::Similar(Arc::new(one)))]);
}

pub(crate) async fn an_edit_moves_the_members_searched_by(store: Store) {
    create(&store, entry("one", "/a", &["unix:uid:1", "unix:gid:1"])).await;
    let edit: EditEntry = Box::new(|entry| {
        entry.selectors = selectors(&["unix:uid:2", "unix:gid:1"]);
        Ok(())
    });
    store
        .update_entries(vec![(EntryId::new("one").unwrap(), edit)])
        .await
        .unwrap();
    let count = async |text| {
        let filter = EntryFilter {
            selectors: Some((Match::Superset, selectors(&[text]))),
            ..EntryFilter::default()
        };
        store.count_entries(&filter).await.unwrap()
    };
    assert_eq!(
        [
            count("unix:uid:1").await,
            count("unix:uid:2").await,
            count("unix:gid:1").await
        ],
        [0, 1, 1]
    );
}

pub(crate) async fn batches_are_deleted_in_order_and_each_but_once(store: Store) {
    let many: Vec<_> = (0..150)
        .map(|number| {
            entry(
                &format!("e{number}"),
                &format!("/{number}"),
                &["s:1", "s:2"],
            )
        })
        .collect();
    let kept = many[149].clone();
    store.create_entries(many).await.unwrap();
    let mut ids: Vec<EntryId> = (0..149)
        .map(|number| EntryId::new(&format!("e{number}")).unwrap())
        .collect();
    ids.insert(10, EntryId::new("none").unwrap());
    ids.push(EntryId::new("e0").unwrap());
    let deleted = store.delete_entries(ids).await.unwrap();
    let missed: Vec<usize> = (0..deleted.len()).filter(|at| !deleted[*at]).collect();
    assert_eq!(missed, [10, 150]);
    let filter = EntryFilter {
        selectors: Some((Match::Any, selectors(&["s:1"]))),
        ..EntryFilter::default()
    };
    let left = store.list_entries(&filter, Page::default()).await.unwrap();
    assert_eq!(left.items, [kept]);
}

pub(crate) async fn what_is_not_there_is_not_updated_or_deleted(store: Store) {
    create(&store, entry("one", "/a", &["unix:uid:1"])).await;
    let (one, none) = (EntryId::new("one").unwrap(), EntryId::new("none").unwrap());
    let edit: EditEntry = Box::new(|_| Ok(()));
    let outcomes = store
        .update_entries(vec![(none.clone(), edit)])
        .await
        .unwrap();
    assert_eq!(outcomes, [Err(UpdateEntryError::NotFound)]);
    let deleted = store
        .delete_entries(vec![none.clone(), one.clone(), one])
        .await
        .unwrap();
    assert_eq!(deleted, [false, true, false]);
    assert_eq!(store.entry(&none).await.unwrap(), None);
}

async fn listed(store: &Store, filter: EntryFilter) -> Vec<String> {
    let listing = store.list_entries(&filter, Page::default()).await.unwrap();
    assert_eq!(
        store.count_entries(&filter).await.unwrap(),
        listing.items.len() as u64
    );
    listing
        .items
        .iter()
        .map(|entry| entry.id.to_string())
        .collect()
}

#[expect(clippy::too_many_lines, reason = "a table, a row per field")]
pub(crate) async fn lists_filter_by_each_field(store: Store) {
    let a = entry("a", "/same", &["unix:uid:1"]);
    let mut b = entry("b", "/same", &["unix:uid:2"]);
    b.parent_id = id("/agent2");
    b.hint = "it's \"quoted\" %".to_owned();
    let mut c = entry("c", "/other", &["unix:uid:3"]);
    c.downstream = true;
    for entry in [a, b.clone(), c] {
        create(&store, entry).await;
    }
    let all = EntryFilter::default;
    assert_eq!(listed(&store, all()).await, ["a", "b", "c"]);
    assert_eq!(
        listed(
            &store,
            EntryFilter {
                spiffe_id: Some(id("/same")),
                ..all()
            }
        )
        .await,
        ["a", "b"]
    );
    assert_eq!(
        listed(
            &store,
            EntryFilter {
                parent_id: Some(id("/agent2")),
                ..all()
            }
        )
        .await,
        ["b"]
    );
    assert_eq!(
        listed(
            &store,
            EntryFilter {
                hint: Some(b.hint),
                ..all()
            }
        )
        .await,
        ["b"]
    );
    assert_eq!(
        listed(
            &store,
            EntryFilter {
                hint: Some("%".to_owned()),
                ..all()
            }
        )
        .await,
        Vec::<String>::new()
    );
    assert_eq!(
        listed(
            &store,
            EntryFilter {
                downstream: Some(true),
                ..all()
            }
        )
        .await,
        ["c"]
    );
    assert_eq!(
        listed(
            &store,
            EntryFilter {
                downstream: Some(false),
                ..all()
            }
        )
        .await,
        ["a", "b"]
    );
    let both = EntryFilter {
        spiffe_id: Some(id("/same")),
        parent_id: Some(id("/agent")),
        ..all()
    };
    assert_eq!(listed(&store, both).await, ["a"]);
}

pub(crate) async fn lists_match_selectors_four_ways(store: Store) {
    create(&store, entry("x", "/x", &["s:1"])).await;
    create(&store, entry("xy", "/xy", &["s:1", "s:2"])).await;
    create(&store, entry("xyz", "/xyz", &["s:1", "s:2", "s:3"])).await;
    create(&store, entry("z", "/z", &["s:3"])).await;
    let by = async |how, texts: &[&str]| {
        listed(
            &store,
            EntryFilter {
                selectors: Some((how, selectors(texts))),
                ..EntryFilter::default()
            },
        )
        .await
    };
    assert_eq!(by(Match::Exact, &["s:2", "s:1"]).await, ["xy"]);
    assert_eq!(by(Match::Exact, &["s:2"]).await, Vec::<String>::new());
    assert_eq!(by(Match::Subset, &["s:1", "s:2"]).await, ["x", "xy"]);
    assert_eq!(by(Match::Superset, &["s:1", "s:2"]).await, ["xy", "xyz"]);
    assert_eq!(by(Match::Any, &["s:2", "s:3"]).await, ["xy", "xyz", "z"]);
    assert_eq!(by(Match::Any, &[]).await, Vec::<String>::new());
}

pub(crate) async fn lists_match_trust_domains_four_ways(store: Store) {
    for name in ["a.org", "b.org"] {
        store
            .create_bundle(Bundle::empty(domain(name)))
            .await
            .unwrap();
    }
    for (name, domains) in [
        ("none", vec![]),
        ("a", vec!["a.org"]),
        ("ab", vec!["a.org", "b.org"]),
    ] {
        let mut entry = entry(name, &format!("/{name}"), &["s:1"]);
        entry.federates_with = domains.into_iter().map(domain).collect();
        create(&store, entry).await;
    }
    let by = async |how, names: &[&str]| {
        let domains = names.iter().map(|name| domain(name)).collect();
        listed(
            &store,
            EntryFilter {
                federates_with: Some((how, domains)),
                ..EntryFilter::default()
            },
        )
        .await
    };
    assert_eq!(by(Match::Exact, &["a.org"]).await, ["a"]);
    assert_eq!(by(Match::Subset, &["a.org", "b.org"]).await, ["a", "ab"]);
    assert_eq!(by(Match::Superset, &["b.org"]).await, ["ab"]);
    assert_eq!(by(Match::Any, &["b.org", "c.org"]).await, ["ab"]);
}

pub(crate) async fn pages_follow_each_other_through_deletions(store: Store) {
    for number in 0..5 {
        create(
            &store,
            entry(&format!("e{number}"), &format!("/{number}"), &["s:1"]),
        )
        .await;
    }
    let page = async |after| {
        let page = Page {
            after,
            limit: Some(2),
        };
        let listing = store
            .list_entries(&EntryFilter::default(), page)
            .await
            .unwrap();
        let ids: Vec<_> = listing
            .items
            .iter()
            .map(|entry| entry.id.to_string())
            .collect();
        (ids, listing.next)
    };
    let (first, next) = page(0).await;
    assert_eq!(first, ["e0", "e1"]);
    // What was listed last goes away: the next page still begins after it.
    store
        .delete_entries(vec![EntryId::new("e1").unwrap()])
        .await
        .unwrap();
    let (second, next) = page(next.unwrap()).await;
    assert_eq!(second, ["e2", "e3"]);
    let (third, next) = page(next.unwrap()).await;
    assert_eq!(third, ["e4"]);
    assert_eq!(page(next.unwrap()).await, (vec![], None));
}

pub(crate) async fn expired_entries_are_pruned(store: Store) {
    for (name, expires_at) in [("past", Some(NOW - 1)), ("now", Some(NOW)), ("never", None)] {
        let mut entry = entry(name, &format!("/{name}"), &["s:1"]);
        entry.expires_at = expires_at.map(at);
        create(&store, entry).await;
    }
    assert_eq!(
        store.prune_entries(at(NOW)).await.unwrap(),
        [EntryId::new("past").unwrap()]
    );
    assert_eq!(
        listed(&store, EntryFilter::default()).await,
        ["now", "never"]
    );
}
