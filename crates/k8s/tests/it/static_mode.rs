//! The controller on a folder of manifests, against a server in process and without any Kubernetes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s::controller::{config, manifests};
use k8s::signet::Signet;
use proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use proto::spire::api::types::{FederationRelationship, HttpsWebProfile};
use runtime::{Metrics, Supervisor, Tasks};
use testkit::TestServer;
use tokio::time::Instant;

const ENTRY: &str = "apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterStaticEntry
metadata: {name: db}
spec:
  className: scm
  spiffeID: spiffe://example.org/db
  parentID: spiffe://example.org/node
  selectors: [\"unix:uid:$DB_UID\"]
";

const PARTNER: &str = "apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterFederatedTrustDomain
metadata: {name: partner}
spec:
  trustDomain: partner.org
  bundleEndpointURL: https://partner.org/bundle
  bundleEndpointProfile: {type: https_web}
";

/// As resources, but made by nobody here.
fn partner(url: &str) -> FederationRelationship {
    FederationRelationship {
        trust_domain: "partner.org".to_owned(),
        bundle_endpoint_url: url.to_owned(),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsWeb(HttpsWebProfile {})),
        trust_domain_bundle: None,
    }
}

async fn start(server: &TestServer, folder: &Path, more: &str) -> (Tasks, String) {
    let text = format!(
        "clusterName: c\ntrustDomain: example.org\ngcInterval: 100ms\nclassName: scm\nwatchClassless: true\nexpandEnvStaticManifests: true\nspireServerSocketPath: {}\nstaticManifestPath: {}\n{more}",
        server.addresses().socket.display(),
        folder.display()
    );
    let config = config::read(&text, None).expect("a config");
    let manifests = config.manifests.clone().expect("a folder");
    let environment = BTreeMap::from([("DB_UID".to_owned(), "7".to_owned())]);
    let (_, tasks) = Supervisor::new();
    let metrics = Metrics::with_labels("test", &[]);
    let started = manifests::start(config, &manifests, environment, metrics, &tasks).await;
    let report = match started.expect("a controller") {
        Some(dry_run) => dry_run.report(Duration::from_secs(30)).await,
        None => Ok(String::new()),
    };
    (tasks, report.expect("a report"))
}

/// What the server has: selectors' values, and trust domains.
async fn known(server: &TestServer) -> (Vec<String>, Vec<String>) {
    let signet = Signet::new(&server.addresses().socket);
    let (entries, _) = signet.list_entries(String::new()).await.expect("entries");
    let selectors = entries.into_iter().flat_map(|entry| entry.selectors);
    let selectors = selectors.map(|selector| selector.value).collect();
    let (relations, _) = signet.list_federation(String::new()).await.expect("some");
    let names = relations.into_iter().map(|one| one.trust_domain).collect();
    (selectors, names)
}

async fn until(server: &TestServer, selectors: &[&str], names: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let known = known(server).await;
        if known.0 == selectors && known.1 == names {
            return;
        }
        assert!(Instant::now() < deadline, "{known:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_04_what_the_folder_says_is_what_the_server_has() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("db.yaml"), ENTRY).expect("a file");
    let (dry, report) = start(&server, folder.path(), "signet: {dryRun: true}\n").await;
    assert!(
        report.contains("create  spiffe://example.org/db"),
        "{report}"
    );
    assert_eq!(known(&server).await, (vec![], vec![]), "a dry run");
    dry.stop();

    let (tasks, _) = start(&server, folder.path(), "").await;
    until(&server, &["uid:7"], &[]).await;
    std::fs::write(path("partner.yaml"), PARTNER).expect("a file");
    until(&server, &["uid:7"], &["partner.org"]).await;
    // A file that cannot be read may declare anything: others' changes are made, and nothing goes.
    std::fs::write(path("broken.yaml"), "kind: [").expect("a file");
    std::fs::remove_file(path("partner.yaml")).expect("no file");
    std::fs::write(path("db.yaml"), ENTRY.replace("$DB_UID", "8")).expect("a file");
    until(&server, &["uid:8"], &["partner.org"]).await;
    std::fs::remove_file(path("broken.yaml")).expect("no file");
    until(&server, &["uid:8"], &[]).await;
    std::fs::remove_file(path("db.yaml")).expect("no file");
    until(&server, &[], &[]).await;
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_10_what_a_process_made_is_its_successors() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("partner.yaml");
    std::fs::write(&file, PARTNER).expect("a file");
    let (tasks, _) = start(&server, folder.path(), "").await;
    until(&server, &[], &["partner.org"]).await;
    tasks.stop();
    let record = std::fs::read_to_string(folder.path().join(".signet-federation-c-scm"));
    assert_eq!(record.expect("a record"), "partner.org\n");

    std::fs::remove_file(&file).expect("no file");
    let (tasks, _) = start(&server, folder.path(), "").await;
    until(&server, &[], &[]).await;
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_10_what_others_made_is_adopted_when_asked_and_left_alone_otherwise() {
    let server = TestServer::start().await;
    let signet = Signet::new(&server.addresses().socket);
    let theirs = partner("https://elsewhere.example/bundle");
    let created = signet.create_federation(vec![theirs]).await;
    assert!(created.expect("an answer")[0].is_ok());
    let url = || async {
        let (relations, _) = signet.list_federation(String::new()).await.expect("some");
        let url = relations.into_iter().map(|one| one.bundle_endpoint_url);
        url.collect::<Vec<_>>()
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("partner.yaml"), PARTNER).expect("a file");
    std::fs::write(folder.path().join("db.yaml"), ENTRY).expect("a file");
    let (tasks, _) = start(&server, folder.path(), "").await;
    until(&server, &["uid:7"], &["partner.org"]).await;
    // Removed and gone: by then the resource beside it was looked at, too.
    std::fs::remove_file(folder.path().join("db.yaml")).expect("no file");
    until(&server, &[], &["partner.org"]).await;
    tasks.stop();
    assert_eq!(url().await, ["https://elsewhere.example/bundle"]);

    let (tasks, _) = start(&server, folder.path(), "signet: {adoptFederation: true}\n").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while url().await != ["https://partner.org/bundle"] {
        assert!(Instant::now() < deadline, "{:?}", url().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It is the controller's now, so that it goes with its resource.
    std::fs::remove_file(folder.path().join("partner.yaml")).expect("no file");
    until(&server, &[], &[]).await;
    tasks.stop();
}
