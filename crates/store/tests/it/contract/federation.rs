use identity::{Bundle, EndpointProfile, EndpointUrl, FederationRelationship};
use store::{FederationError, Page, Store};

use crate::support::{domain, id};

fn with(name: &str, profile: EndpointProfile) -> FederationRelationship {
    FederationRelationship {
        trust_domain: domain(name),
        endpoint_url: url(&format!("https://{name}/bundle")),
        profile,
    }
}

fn web(name: &str) -> FederationRelationship {
    with(name, EndpointProfile::HttpsWeb)
}

fn url(text: &str) -> EndpointUrl {
    EndpointUrl::parse(text).unwrap()
}

fn bundle(name: &str, sequence: u64) -> Bundle {
    let mut bundle = Bundle::empty(domain(name));
    bundle.sequence = sequence;
    bundle
}

pub(crate) async fn every_field_comes_back(store: Store) {
    let spiffe = EndpointProfile::HttpsSpiffe {
        endpoint_id: id("/bundle-server"),
    };
    for relationship in [web("web.org"), with("spiffe.org", spiffe)] {
        let name = relationship.trust_domain.clone();
        assert_eq!(store.federation_relationship(&name).await, Ok(None));
        store
            .create_federation_relationship(relationship.clone(), None)
            .await
            .unwrap();
        assert_eq!(store.bundle(&name).await, Ok(None));
        assert_eq!(
            store.federation_relationship(&name).await,
            Ok(Some(relationship))
        );
    }
}

pub(crate) async fn a_second_one_with_the_same_domain_is_refused(store: Store) {
    let create = |sequence| {
        store.create_federation_relationship(web("a.org"), Some(bundle("a.org", sequence)))
    };
    create(1).await.unwrap();
    assert_eq!(create(2).await, Err(FederationError::Exists));
    let kept = store.bundle(&domain("a.org")).await.unwrap().unwrap();
    assert_eq!(kept.sequence, 1, "what is refused brings no bundle in");
}

pub(crate) async fn a_bundle_comes_with_it_and_stays(store: Store) {
    let name = domain("a.org");
    store.set_bundle(bundle("a.org", 1)).await.unwrap();
    store
        .create_federation_relationship(web("a.org"), Some(bundle("a.org", 2)))
        .await
        .unwrap();
    let sequence = async || store.bundle(&name).await.unwrap().map(|one| one.sequence);
    assert_eq!(sequence().await, Some(2));
    store
        .update_federation_relationship(&name, None, None, Some(bundle("a.org", 3)))
        .await
        .unwrap();
    assert_eq!(sequence().await, Some(3));
    store.delete_federation_relationship(&name).await.unwrap();
    assert_eq!(sequence().await, Some(3));
    assert_eq!(store.federation_relationship(&name).await, Ok(None));
}

pub(crate) async fn an_update_changes_what_it_names(store: Store) {
    let name = domain("a.org");
    store
        .create_federation_relationship(web("a.org"), None)
        .await
        .unwrap();
    let spiffe = EndpointProfile::HttpsSpiffe {
        endpoint_id: id("/server"),
    };
    let mut wanted = web("a.org");
    for (new_url, new_profile) in [
        (None, None),
        (Some(url("https://b.org/")), None),
        (None, Some(spiffe)),
        (None, Some(EndpointProfile::HttpsWeb)),
    ] {
        if let Some(url) = &new_url {
            wanted.endpoint_url = url.clone();
        }
        if let Some(profile) = &new_profile {
            wanted.profile = profile.clone();
        }
        let updated = store
            .update_federation_relationship(&name, new_url, new_profile, None)
            .await;
        assert_eq!(updated.as_ref(), Ok(&wanted));
        assert_eq!(
            store.federation_relationship(&name).await,
            Ok(Some(wanted.clone()))
        );
    }
}

pub(crate) async fn what_is_not_there_is_told(store: Store) {
    let name = domain("a.org");
    let updated = store
        .update_federation_relationship(&name, None, None, Some(bundle("a.org", 1)))
        .await;
    assert_eq!(updated, Err(FederationError::NotFound));
    assert_eq!(store.bundle(&name).await, Ok(None));
    assert_eq!(
        store.delete_federation_relationship(&name).await,
        Err(FederationError::NotFound)
    );
}

pub(crate) async fn lists_page_by_creation(store: Store) {
    for name in ["c.org", "a.org", "b.org"] {
        store
            .create_federation_relationship(web(name), None)
            .await
            .unwrap();
    }
    let page = async |after| {
        let page = Page {
            after,
            limit: Some(2),
        };
        let listing = store.list_federation_relationships(page).await.unwrap();
        let names = listing.items.iter();
        let names: Vec<_> = names.map(|one| one.trust_domain.to_string()).collect();
        (names, listing.next)
    };
    let (first, next) = page(0).await;
    assert_eq!(first, ["c.org", "a.org"]);
    store
        .delete_federation_relationship(&domain("c.org"))
        .await
        .unwrap();
    let (second, next) = page(next.unwrap()).await;
    assert_eq!(second, ["b.org"]);
    assert_eq!(page(next.unwrap()).await, (Vec::new(), None));
}
