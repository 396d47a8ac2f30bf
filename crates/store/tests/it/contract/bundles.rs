use std::time::Duration;

use identity::{Bundle, JwtAuthority};
use store::{BundleWriteError, DeleteBundleMode, EntryFilter, Page, Store};

use crate::support::{NOW, at, create, domain, entry};

const CA_PEM: &str = include_str!("../ca.pem");

fn full(name: &str) -> Bundle {
    let mut bundle = Bundle::from_pem(&domain(name), CA_PEM).unwrap();
    bundle.x509_authorities[0].tainted = true;
    bundle.jwt_authorities = ["one", "two"].map(key).into();
    bundle.jwt_authorities[1].expires_at = None;
    bundle.refresh_hint = Some(Duration::from_secs(300));
    bundle.sequence = u64::MAX;
    bundle
}

fn key(key_id: &str) -> JwtAuthority {
    JwtAuthority {
        key_id: key_id.to_owned(),
        public_key: vec![1, 2, 3],
        expires_at: Some(at(NOW)),
        tainted: key_id == "two",
    }
}

pub(crate) async fn every_field_comes_back(store: Store) {
    let (empty, full) = (Bundle::empty(domain("empty.org")), full("full.org"));
    store.create_bundle(full.clone()).await.unwrap();
    store.create_bundle(empty.clone()).await.unwrap();
    assert_eq!(
        store.bundle(&domain("full.org")).await.unwrap(),
        Some(full.clone())
    );
    assert_eq!(
        store.bundle(&domain("empty.org")).await.unwrap(),
        Some(empty.clone())
    );
    assert_eq!(store.bundle(&domain("none.org")).await.unwrap(), None);
    assert_eq!(
        store.create_bundle(full).await,
        Err(BundleWriteError::Exists)
    );
    assert_eq!(store.count_bundles().await, Ok(2));
}

pub(crate) async fn i_6_the_sequence_grows_with_each_change_only(store: Store) {
    let name = domain("example.org");
    let add = |key_id: &'static str| {
        let (store, name) = (store.clone(), name.clone());
        async move {
            let edit = move |bundle: &mut Bundle| {
                bundle.sequence = 0;
                if bundle.jwt_authority(key_id).is_none() {
                    bundle.jwt_authorities.push(key(key_id));
                }
                Ok(())
            };
            store.edit_bundle(&name, edit).await.unwrap().sequence
        }
    };
    assert_eq!(
        [
            add("a").await,
            add("a").await,
            add("b").await,
            add("b").await
        ],
        [1, 1, 2, 2]
    );
    let kept = store.bundle(&name).await.unwrap().unwrap();
    assert_eq!((kept.sequence, kept.jwt_authorities.len()), (2, 2));
}

pub(crate) async fn a_refused_edit_changes_nothing(store: Store) {
    let outcome = store
        .edit_bundle(&domain("a.org"), |_| Err("no".to_owned()))
        .await;
    assert_eq!(outcome, Err(BundleWriteError::Refused("no".to_owned())));
    assert_eq!(store.count_bundles().await, Ok(0));
}

pub(crate) async fn a_set_bundle_keeps_its_sequence(store: Store) {
    let mut bundle = full("other.org");
    store.set_bundle(bundle.clone()).await.unwrap();
    bundle.sequence = 7;
    bundle.jwt_authorities.pop();
    store.set_bundle(bundle.clone()).await.unwrap();
    assert_eq!(
        store.bundle(&domain("other.org")).await.unwrap(),
        Some(bundle)
    );
}

pub(crate) async fn an_update_changes_what_is_there(store: Store) {
    let name = domain("other.org");
    let update = || {
        store.update_bundle(&name, |bundle| {
            bundle.jwt_authorities.clear();
            bundle.sequence = 9;
        })
    };
    assert_eq!(update().await, Err(BundleWriteError::NotFound));
    assert_eq!(store.count_bundles().await, Ok(0));
    let mut wanted = full("other.org");
    store.set_bundle(wanted.clone()).await.unwrap();
    wanted.jwt_authorities.clear();
    wanted.sequence = 9;
    assert_eq!(update().await.as_ref(), Ok(&wanted));
    assert_eq!(store.bundle(&name).await, Ok(Some(wanted)));
    let before = *store.watch().borrow();
    update().await.unwrap();
    assert_eq!(*store.watch().borrow(), before, "nothing new is no change");
}

pub(crate) async fn lists_page_by_creation(store: Store) {
    for name in ["c.org", "a.org", "b.org"] {
        store.create_bundle(full(name)).await.unwrap();
    }
    let page = async |after| {
        let listing = store
            .list_bundles(Page {
                after,
                limit: Some(2),
            })
            .await
            .unwrap();
        let names: Vec<_> = listing
            .items
            .iter()
            .map(|bundle| bundle.trust_domain.to_string())
            .collect();
        (names, listing.next)
    };
    let (first, next) = page(0).await;
    assert_eq!(first, ["c.org", "a.org"]);
    assert_eq!(page(next.unwrap()).await.0, ["b.org"]);
}

pub(crate) async fn deletion_honours_its_mode(store: Store) {
    let name = domain("other.org");
    let federating = async |entry_id| {
        let mut entry = entry(entry_id, &format!("/{entry_id}"), &["s:1"]);
        entry.federates_with = [domain("other.org")].into();
        create(&store, entry.clone()).await;
        entry
    };
    assert_eq!(
        store.delete_bundle(&name, DeleteBundleMode::Restrict).await,
        Err(BundleWriteError::NotFound)
    );
    store.create_bundle(full("other.org")).await.unwrap();
    let one = federating("one").await;
    assert_eq!(
        store.delete_bundle(&name, DeleteBundleMode::Restrict).await,
        Err(BundleWriteError::InUse(1))
    );
    store
        .delete_bundle(&name, DeleteBundleMode::Dissociate)
        .await
        .unwrap();
    let dissociated = store.entry(&one.id).await.unwrap().unwrap();
    assert!(dissociated.federates_with.is_empty());
    assert_eq!(dissociated.revision, 1);
    store.create_bundle(full("other.org")).await.unwrap();
    federating("two").await;
    store
        .delete_bundle(&name, DeleteBundleMode::Delete)
        .await
        .unwrap();
    let left = store
        .list_entries(&EntryFilter::default(), Page::default())
        .await
        .unwrap()
        .items;
    assert_eq!(left, [dissociated]);
    store.create_bundle(full("other.org")).await.unwrap();
    store
        .delete_bundle(&name, DeleteBundleMode::Restrict)
        .await
        .unwrap();
    assert_eq!(store.count_bundles().await, Ok(0));
}
