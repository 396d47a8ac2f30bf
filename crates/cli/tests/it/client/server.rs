//! Commands to the server.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use identity::{Bundle, BundleSet, Certificate, JwtSvid, PrivateKey, X509Svid, verify_x509_svid};
use runtime::Clock;
use serde_json::{Value, json};
use testkit::{TestServer, attest_with};

use super::{Ran, command, run, signet};

const CREATE: &str = "server entry create -entryID e-1 -parentID spiffe://example.org/node \
                      -spiffeID spiffe://example.org/web -selector unix:uid:1000";

const ENTRY: &str = "\
Entry ID                : e-1
SPIFFE ID               : spiffe://example.org/web
Parent ID               : spiffe://example.org/node
Revision                : 0
X509-SVID TTL           : default
JWT-SVID TTL            : default
Selector                : unix:uid:1000

";

fn ask(server: &TestServer, line: &str) -> Ran {
    signet(&server.addresses().socket, line)
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The entry after its update, without the time of its creation.
fn updated() -> Value {
    json!({
        "id": "e-1",
        "spiffe_id": {"trust_domain": "example.org", "path": "/web"},
        "parent_id": {"trust_domain": "example.org", "path": "/node"},
        "selectors": [{"type": "unix", "value": "uid:1000"}],
        "x509_svid_ttl": 60,
        "federates_with": [],
        "admin": false,
        "downstream": false,
        "expires_at": "0",
        "dns_names": [],
        "revision_number": "1",
        "store_svid": false,
        "jwt_svid_ttl": 0,
        "hint": "internal",
        "created_at": null,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_lives_and_dies() {
    let server = TestServer::start().await;
    assert_eq!(ask(&server, CREATE).ok(), ENTRY);
    assert_eq!(
        ask(&server, CREATE).failed(),
        format!(
            "Failed to create the following entry (code: AlreadyExists, msg: \"similar entry \
             already exists\"):\n{ENTRY}Error: failed to create one or more entries\n"
        )
    );
    assert_eq!(
        ask(&server, "server entry count").ok(),
        "1 registration entry\n"
    );

    let update = CREATE.replace("create", "update") + " -x509SVIDTTL 60 -hint internal";
    assert!(
        ask(&server, &update)
            .ok()
            .contains("Revision                : 1\n")
    );

    let mut shown = read(&ask(&server, "server entry show -output json").ok());
    let created_at = shown["entries"][0]["created_at"].take();
    assert!(created_at.is_string(), "{created_at}");
    assert_eq!(
        shown,
        json!({"entries": [updated()], "next_page_token": ""})
    );
    for (filter, count) in [
        ("-selector unix:uid:1000", 1),
        ("-selector unix:uid:1000 -selector unix:gid:1", 0),
        (
            "-selector unix:uid:1000 -selector unix:gid:1 -matchSelectorsOn any",
            1,
        ),
        ("-spiffeID spiffe://example.org/web -hint internal", 1),
        ("-parentID spiffe://example.org/other", 0),
        ("-downstream", 0),
    ] {
        let counted = ask(
            &server,
            &format!("server entry count -output json {filter}"),
        )
        .ok();
        assert_eq!(read(&counted)["count"], count, "{filter}");
        let shown = ask(&server, &format!("server entry show {filter}")).ok();
        assert!(shown.starts_with(&format!("Found {count} ")), "{shown}");
    }

    let delete = "server entry delete -entryID e-1";
    assert_eq!(ask(&server, delete).ok(), "Deleted entry with ID: e-1\n");
    assert_eq!(
        ask(&server, delete).failed(),
        "Failed to delete entry with ID e-1 (code: NotFound, msg: \"entry not found\")\n\
         Error: failed to delete one or more entries\n"
    );
    assert_eq!(
        ask(&server, "server entry show -entryID e-1").failed(),
        "Error: error fetching entry ID e-1: entry not found (NotFound)\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_come_from_a_file_and_go_back() {
    let server = TestServer::start().await;
    let socket = &server.addresses().socket;
    let with_data = |verb: &str, data: &str| {
        let mut command = command(&format!("server entry {verb} -output json"));
        run(command.arg("-socketPath").arg(socket), data)
    };
    let entries: Vec<String> = (0..700)
        .map(|number| {
            format!(
                r#"{{"entry_id": "e-{number}", "parent_id": "spiffe://example.org/node",
                     "spiffe_id": "spiffe://example.org/{number}",
                     "selectors": [{{"type": "unix", "value": "uid:{number}"}}]}}"#
            )
        })
        .collect();
    let data = format!(r#"{{"entries": [{}]}}"#, entries.join(","));
    let created = read(&with_data("create -data -", &data).ok());
    assert_eq!(created["results"].as_array().unwrap().len(), 700);
    assert_eq!(
        ask(&server, "server entry count").ok(),
        "700 registration entries\n"
    );

    // In JSON too a failure is one, and what was refused is there to see.
    let again = with_data("create -data -", &data);
    assert_eq!(
        (again.code, again.err.as_str()),
        (1, "Error: failed to create one or more entries\n")
    );
    assert_eq!(read(&again.out)["results"][699]["status"]["code"], 6);

    let shown = ask(&server, "server entry show -output json").ok();
    let updated = read(&with_data("update -data -", &shown).ok());
    assert_eq!(updated["results"][699]["entry"]["revision_number"], "1");

    let ids: Vec<String> = (0..700).map(|number| format!("e-{number}")).collect();
    let deleted = read(&with_data("delete -file -", &serde_json::to_string(&ids).unwrap()).ok());
    assert_eq!(deleted["results"].as_array().unwrap().len(), 700);
    assert_eq!(ask(&server, "server entry show").ok(), "Found 0 entries\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_comes_and_goes() {
    let server = TestServer::start().await;
    assert_eq!(
        ask(&server, "server agent list").ok(),
        "No attested agents found\n"
    );
    let generated = ask(&server, "server token generate").ok();
    let token = generated
        .lines()
        .next()
        .unwrap()
        .strip_prefix("Token: ")
        .unwrap();
    assert!(
        generated.ends_with("\nWarning: Missing SPIFFE ID.\n"),
        "{generated}"
    );
    let svid = attest_with(server.remote(None).await, token).await.unwrap();
    let id = svid.id();

    let list = ask(&server, "server agent list").ok();
    assert!(list.starts_with("Found 1 attested agent:\n\n"), "{list}");
    assert!(
        list.contains(&format!("SPIFFE ID         : {id}\n")),
        "{list}"
    );
    let serial = svid.leaf().serial_decimal();
    assert!(
        list.contains(&format!("Serial number     : {serial}\n")),
        "{list}"
    );
    let shown = ask(
        &server,
        &format!("server agent show -spiffeID {id} -output json"),
    )
    .ok();
    assert_eq!(read(&shown)["attestation_type"], "join_token");

    let banned = ask(&server, &format!("server agent ban -spiffeID {id}")).ok();
    assert_eq!(banned, "Agent banned successfully\n");
    for (filter, count) in [
        ("-banned true", 1),
        ("-banned=false", 0),
        ("-attestationType x509pop", 0),
    ] {
        let counted = ask(
            &server,
            &format!("server agent count -output json {filter}"),
        )
        .ok();
        assert_eq!(read(&counted)["count"], count, "{filter}");
    }
    let evict = format!("server agent evict -spiffeID {id}");
    assert_eq!(ask(&server, &evict).ok(), "Agent evicted successfully\n");
    assert_eq!(
        ask(&server, &evict).failed(),
        "Error: agent not found (NotFound)\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_name_its_agent() {
    let server = TestServer::start().await;
    let line = "server token generate -spiffeID spiffe://example.org/node -ttl 60 -output json";
    let token = read(&ask(&server, line).ok());
    let token = token["value"].as_str().unwrap();
    let shown = read(&ask(&server, "server entry show -output json").ok());
    let entry = &shown["entries"][0];
    assert_eq!(entry["spiffe_id"]["path"], "/node");
    assert_eq!(
        entry["parent_id"]["path"],
        format!("/spire/agent/join_token/{token}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundle_is_shown_whole() {
    let server = TestServer::start().await;
    let told = server.bundle().await;
    assert_eq!(ask(&server, "server bundle show").ok(), told.to_pem());
    let spiffe = ask(&server, "server bundle show -format spiffe").ok();
    let parsed = Bundle::from_spiffe_json(&told.trust_domain, spiffe.as_bytes()).unwrap();
    assert_eq!(parsed.x509_authorities, told.x509_authorities);
    assert_eq!(parsed.jwt_authorities.len(), told.jwt_authorities.len());
    let shown = read(&ask(&server, "server bundle show -output json").ok());
    assert_eq!(shown["trust_domain"], "example.org");
    assert_eq!(ask(&server, "server bundle count").ok(), "1 bundle\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_guides_give_one_lifetime() {
    let server = TestServer::start().await;
    let created = ask(&server, &format!("{CREATE} -ttl 3600")).ok();
    for line in [
        "X509-SVID TTL           : 3600",
        "JWT-SVID TTL            : 3600",
    ] {
        assert!(created.contains(line), "{created}");
    }
    let both = ask(&server, &format!("{CREATE} -ttl 3600 -jwtSVIDTTL 60")).failed();
    assert!(both.contains("cannot be used with"), "{both}");
}

/// As guides exchange bundles: shown by one server, set on another.
#[tokio::test(flavor = "multi_thread")]
async fn the_bundle_of_another_trust_domain_is_set() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster-b-bundle.json");
    for format in ["spiffe", "pem"] {
        let shown = ask(&server, &format!("server bundle show -format {format}")).ok();
        std::fs::write(&file, &shown).unwrap();
        let set = format!(
            "server bundle set -id spiffe://cluster-b.example.com -path {}",
            file.display()
        );
        assert_eq!(ask(&server, &set).ok(), "bundle set.\n", "{format}");
        let set = format!("{set} -format {format}");
        assert_eq!(ask(&server, &set).ok(), "bundle set.\n", "{format}");
    }
    assert_eq!(ask(&server, "server bundle count").ok(), "2 bundles\n");
    let create = "server entry create -parentID spiffe://example.org/node -selector unix:uid:1000 \
                  -spiffeID spiffe://example.org/web -federatesWith spiffe://cluster-b.example.com";
    ask(&server, create).ok();
    let listed = ask(&server, "server entry list").ok();
    assert!(listed.contains("cluster-b.example.com"), "{listed}");

    let own = format!(
        "server bundle set -id spiffe://example.org -path {}",
        file.display()
    );
    let refused = ask(&server, &own).failed();
    assert!(refused.contains("the bundle was not set"), "{refused}");
    let none = ask(
        &server,
        "server bundle set -id spiffe://b.example -path /nowhere",
    )
    .failed();
    assert!(none.contains("cannot read /nowhere"), "{none}");
    std::fs::write(&file, "{").unwrap();
    let broken = format!("server bundle set -id b.example -path {}", file.display());
    let broken = ask(&server, &broken).failed();
    assert!(broken.contains("the bundle in"), "{broken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn minted_svids_are_good() {
    let server = TestServer::start().await;
    let bundles = BundleSet::from_iter([Arc::new(server.bundle().await)]);
    let now = Clock::system().now();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let mint = "server x509 mint -spiffeID spiffe://example.org/web -dns web.example.org -ttl 10m";
    let written = ask(&server, &format!("{mint} -write {path}")).ok();
    assert_eq!(
        written,
        format!(
            "X509-SVID written to {path}/svid.pem\nPrivate key written to {path}/key.pem\n\
             Root CAs written to {path}/bundle.pem\n"
        )
    );
    let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let leaf = Bundle::from_pem(&server.bundle().await.trust_domain, &file("svid.pem")).unwrap();
    let chain: Vec<Certificate> = leaf
        .x509_authorities
        .into_iter()
        .map(|one| one.certificate)
        .collect();
    assert_eq!(chain[0].dns_names(), ["web.example.org"]);
    assert_eq!(
        verify_x509_svid(&chain, &bundles, now).unwrap().path(),
        "/web"
    );
    X509Svid::new(chain, PrivateKey::from_pem(&file("key.pem")).unwrap()).unwrap();
    let mode = std::fs::metadata(folder.path().join("key.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let printed = ask(
        &server,
        "server x509 mint -spiffeID spiffe://example.org/web",
    )
    .ok();
    assert!(printed.starts_with("X509-SVID:\n-----BEGIN CERTIFICATE-----\n"));
    assert!(printed.contains("\nPrivate key:\n-----BEGIN PRIVATE KEY-----\n"));
    assert!(printed.contains("\nRoot CAs:\n-----BEGIN CERTIFICATE-----\n"));
    let capped = ask(
        &server,
        "server x509 mint -spiffeID spiffe://example.org/web -ttl 9000h",
    );
    assert_eq!(capped.code, 0);
    assert!(
        capped
            .err
            .starts_with("X509-SVID lifetime was capped shorter"),
        "{}",
        capped.err
    );

    let mint = "server jwt mint -spiffeID spiffe://example.org/web -audience a -audience b";
    let token = ask(&server, mint).ok();
    let token = token.trim_end();
    let now = Clock::system().now();
    let svid = JwtSvid::verify(token, "b", &bundles, now).unwrap();
    assert_eq!(svid.audience, ["a", "b"]);
    let foreign = ask(
        &server,
        "server jwt mint -spiffeID spiffe://other.test/web -audience a",
    );
    assert!(foreign.failed().starts_with("Error: unable to mint SVID: "));
}
