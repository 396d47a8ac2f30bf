use tokio::net::TcpListener;

use super::*;
use crate::{
    cache::Update,
    config::ServerAddress,
    fixtures::{CA, entry, noon, trust_domain},
    svid::Rotation,
};

/// An agent that knows one entry, and its server, which takes connections and says nothing.
async fn waiting() -> (Living, Arc<RegistrationEntry>, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ServerAddress {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
    };
    let entry = Arc::new(entry("web", &["unix:uid:1"]));
    let mut cache = Cache::new(&trust_domain(), 10, Rotation::default());
    cache.apply(Update {
        upserted: vec![entry.clone()],
        bundle: Some(Arc::new(CA.bundle())),
        ..Update::default()
    });
    let bundles = watch::Sender::new(Arc::new(BundleSet::new()));
    let svid = watch::Sender::new(None);
    let clock = Clock::at(noon());
    let client = ServerClient::new(
        address,
        trust_domain(),
        bundles.subscribe(),
        svid.subscribe(),
        clock.clone(),
    );
    let metrics = Metrics::new("spire_agent");
    let living = Living::new(cache, 10, client, Orders::to_nobody(), clock, &metrics);
    (living, entry, listener)
}

/// Nobody is left who would take the token: the work ends, and with it all that is remembered of it.
#[tokio::test]
async fn callers_that_leave_a_jwt_fetch_take_the_work_along() {
    let (living, entry, server) = waiting().await;
    let audience = ["db".to_owned()];
    let connection = {
        let first = living.jwt_svid(&entry, &audience);
        let second = living.jwt_svid(&entry, &audience);
        tokio::select! {
            token = first => panic!("{token:?}"),
            token = second => panic!("{token:?}"),
            accepted = server.accept() => accepted.unwrap(),
        }
    };
    assert!(lock(&living.jwt.flights).is_empty());
    // Who comes next is not held up by a turn that nobody gives back.
    drop((connection, server));
    let error = living.jwt_svid(&entry, &audience).await.unwrap_err();
    assert!(matches!(error, JwtFetchError::Unavailable(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_asked_for_under_a_former_name_is_nobodys() {
    let (living, entry, _server) = waiting().await;
    let mut renamed = (*entry).clone();
    renamed.spiffe_id = identity::SpiffeId::parse("spiffe://example.org/api").unwrap();
    let update = Update {
        upserted: vec![Arc::new(renamed)],
        ..Update::default()
    };
    living.update(|cache, _| cache.apply(update));
    let error = living.jwt_svid(&entry, &["db".to_owned()]).await;
    assert_eq!(error.unwrap_err(), JwtFetchError::NotEntitled);
}
