use std::path::Path;
use std::time::Duration;

use k8s::signet::{Signet, SignetError};
use proto::spire::api::types;
use runtime::Supervisor;
use testkit::TestServer;
use tokio::time::timeout;
use tonic::Code;

#[tokio::test]
async fn entries_one_outcome_each() {
    let server = TestServer::start().await;
    let signet = Signet::new(&server.addresses().socket);
    let entry = |path: &str| types::Entry {
        parent_id: Some((&server.id("/node")).into()),
        spiffe_id: Some((&server.id(path)).into()),
        selectors: vec![types::Selector {
            r#type: "k8s".into(),
            value: "pod-uid:1".into(),
        }],
        ..types::Entry::default()
    };
    let wrong = types::Entry::default();
    let made = signet
        .create_entries(vec![entry("/a"), wrong, entry("/a")])
        .await
        .unwrap();
    let codes: Vec<_> = made.iter().map(|one| one.code).collect();
    assert_eq!(
        codes,
        [Code::Ok, Code::InvalidArgument, Code::AlreadyExists]
    );
    assert!(!made[1].message.is_empty());
    let first = made[0].object.clone().unwrap();
    assert_eq!(made[2].object.as_ref().unwrap().id, first.id);

    let mut changed = first.clone();
    changed.hint = "new".into();
    let updated = signet.update_entries(vec![changed]).await.unwrap();
    assert!(updated[0].is_ok(), "{updated:?}");
    let (entries, next) = signet.list_entries(String::new()).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].hint, "new");
    if !next.is_empty() {
        let (rest, end) = signet.list_entries(next).await.unwrap();
        assert_eq!((rest.len(), end.as_str()), (0, ""));
    }

    let gone = signet
        .delete_entries(vec![first.id, "nothing".into()])
        .await
        .unwrap();
    let codes: Vec<_> = gone.iter().map(|one| one.code).collect();
    assert_eq!(codes, [Code::Ok, Code::NotFound]);
    assert_eq!(signet.create_entries(Vec::new()).await.unwrap(), []);
}

#[tokio::test]
async fn a_certificate_for_a_service_is_minted() {
    let server = TestServer::start().await;
    let signet = Signet::new(&server.addresses().socket);
    let names = ["injector.spire.svc".to_owned()];
    let hour = Duration::from_secs(3600);
    let svid = signet
        .mint_x509_svid(&server.id("/injector"), &names, hour)
        .await
        .unwrap();
    assert_eq!(svid.leaf().dns_names(), names);
    let authorities = signet.bundle().await.unwrap().x509_authorities;
    let issuer = svid.leaf().authority_key_id();
    assert!(
        authorities
            .iter()
            .any(|one| one.certificate.subject_key_id() == issuer)
    );

    let foreign = identity::SpiffeId::parse("spiffe://other.example/x").unwrap();
    let refused = signet
        .mint_x509_svid(&foreign, &[], hour)
        .await
        .unwrap_err();
    assert!(matches!(refused, SignetError::Refused { .. }), "{refused}");
}

#[tokio::test]
async fn the_bundle_is_followed() {
    let server = TestServer::start().await;
    let signet = Signet::new(&server.addresses().socket);
    let (_, tasks) = Supervisor::new();
    let mut bundles = signet.watch_bundle(&tasks);
    let told = bundles.wait_for(Option::is_some);
    let told = timeout(Duration::from_secs(30), told)
        .await
        .expect("in time");
    let told = told.unwrap().clone().unwrap();
    assert_eq!(*told, signet.bundle().await.unwrap());
    tasks.stop();
    let ended = timeout(Duration::from_secs(30), bundles.changed()).await;
    assert!(ended.expect("in time").is_err(), "it ends at shutdown");
}

#[tokio::test]
async fn a_server_that_is_away_is_named() {
    let signet = Signet::new(Path::new("/nonexistent/api.sock"));
    let error = signet.bundle().await.unwrap_err();
    assert!(error.is_unreachable());
    assert!(
        error.to_string().contains("/nonexistent/api.sock"),
        "{error}"
    );
}
