//! E7: what keeps a server from starting, each with its message; and what a second start finds.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use runtime::Clock;
use runtime::log::{Level, Log};
use server::config::{DataStore, KeyManager};
use server::{Config, Server};
use tempfile::TempDir;
use testkit::TestServer;

/// Why a server with this configuration does not start, the test's folder written as `<dir>`.
async fn refusal(dir: &TempDir, change: impl FnOnce(&mut Config)) -> String {
    let mut config = TestServer::config(dir);
    change(&mut config);
    let log = Log::detached(Level::Info);
    let built = Server::build(config, Clock::system(), log).await;
    let error = built.map(|_| ()).expect_err("the server must not start");
    error
        .to_string()
        .replace(dir.path().to_str().unwrap(), "<dir>")
}

#[tokio::test]
async fn e7_a_port_in_use() {
    let dir = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = refusal(&dir, |config| config.bind_address = address).await;
    insta::assert_snapshot!(error.replace(&address.to_string(), "<address>"));
    let error = refusal(&dir, |config| config.telemetry.prometheus = Some(address)).await;
    insta::assert_snapshot!(error.replace(&address.to_string(), "<address>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_socket_in_use() {
    let server = TestServer::start().await;
    let dir = TempDir::new().unwrap();
    let socket = server.addresses().socket.clone();
    let error = refusal(&dir, |config| config.socket_path.clone_from(&socket)).await;
    insta::assert_snapshot!(error.replace(socket.to_str().unwrap(), "<socket>"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_datastore_in_use() {
    let server = TestServer::start().await;
    let dir = server.dir().path().to_owned();
    let mine = TempDir::new().unwrap();
    let path = dir.join("data/datastore.sqlite3");
    let error = refusal(&mine, |config| {
        config.data_store = DataStore::Sqlite { path }
    })
    .await;
    insta::assert_snapshot!(error.replace(dir.to_str().unwrap(), "<dir>"));
    server.stop().await;
}

#[tokio::test]
async fn e7_files_that_cannot_be_used() {
    let dir = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        path
    };
    let plain = file(
        "plain",
        "no database, this is text of some length, more than a header has",
    );
    let mut said = Vec::new();
    said.push(refusal(&dir, |config| config.data_dir = plain.join("data")).await);
    said.push(refusal(&dir, |config| config.data_dir = "/proc/signet".into()).await);
    let path = plain.clone();
    said.push(
        refusal(&dir, |config| {
            config.data_store = DataStore::Sqlite { path }
        })
        .await,
    );
    let keys_path = file("keys.json", "{ not json");
    said.push(
        refusal(&dir, |config| {
            config.key_manager = KeyManager::Disk { keys_path }
        })
        .await,
    );
    let keys_path = Path::new("/proc/signet/keys.json").to_owned();
    said.push(
        refusal(&dir, |config| {
            config.key_manager = KeyManager::Disk { keys_path }
        })
        .await,
    );
    let socket_path = plain.join("api.sock");
    said.push(refusal(&dir, |config| config.socket_path = socket_path).await);
    insta::assert_snapshot!(said.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_keeps_its_authorities() {
    let server = TestServer::start().await;
    let first = server.bundle().await;
    let dir = server.stop().await;
    let server = TestServer::start_in(dir, |_| {}).await;
    let second = server.bundle().await;
    assert_eq!(first.x509_authorities, second.x509_authorities);
    assert_eq!(first.jwt_authorities, second.jwt_authorities);
    server.stop().await;
}

/// S-8: whatever the umask, secrets are their owner's alone.
#[tokio::test(flavor = "multi_thread")]
async fn s_8_files_are_private() {
    let server = TestServer::start().await;
    let dir = server.dir().path();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.join("data")), 0o700);
    assert_eq!(mode(&dir.join("data/keys.json")), 0o600);
    assert_eq!(mode(&dir.join("private/api.sock")), 0o770);
    assert_eq!(mode(&dir.join("private")) & 0o007, 0);
    let data = std::fs::read_dir(dir.join("data")).unwrap();
    for file in data {
        let path = file.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    server.stop().await;
}
