//! SQLite: the contract, and what concerns its file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use store::{OpenError, Store};
use tempfile::TempDir;

use crate::support::{self, create, entry};

async fn open() -> (Store, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = support::open(&folder.path().join("data.sqlite3"))
        .await
        .unwrap();
    (store, folder)
}

crate::contract::on_every!(super::open);

async fn refused(path: &Path) -> OpenError {
    support::open(path).await.map(drop).unwrap_err()
}

#[tokio::test]
async fn what_is_written_is_there_after_a_restart() {
    let (store, folder) = open().await;
    let one = entry("one", "/one", &["s:1"]);
    create(&store, one.clone()).await;
    let sequence = *store.watch().borrow();
    store.close().await;
    assert!(store.entry(&one.id).await.is_err(), "closed");
    let store = support::open(&folder.path().join("data.sqlite3"))
        .await
        .unwrap();
    assert_eq!(store.entry(&one.id).await.unwrap(), Some(one));
    assert_eq!(*store.watch().borrow(), sequence);
    create(&store, entry("two", "/two", &["s:1"])).await;
    assert!(*store.watch().borrow() > sequence, "numbers go on");
}

#[tokio::test(start_paused = true)]
async fn a_second_server_is_kept_out() {
    let (_store, folder) = open().await;
    let path = folder.path().join("data.sqlite3");
    assert!(matches!(refused(&path).await, OpenError::InUse { .. }));
}

#[tokio::test]
async fn a_server_that_is_ending_is_waited_for() {
    let (store, folder) = open().await;
    // Its last handle goes; the writer ends a little later.
    drop(store);
    support::open(&folder.path().join("data.sqlite3"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.sqlite3");
    fs::write(
        &path,
        "this is a text, long enough to have a header of its own\n".repeat(20),
    )
    .unwrap();
    let error = refused(&path).await;
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error}");
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .starts_with("this is a text"),
        "left alone"
    );
}

#[tokio::test]
async fn a_folder_that_is_missing_or_a_folder_for_a_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&folder.path().join("none/data.sqlite3")).await;
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
    let error = refused(folder.path()).await;
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
}

#[tokio::test]
async fn a_schema_from_the_future_is_told() {
    let (store, folder) = open().await;
    store.close().await;
    let path = folder.path().join("data.sqlite3");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'later', TRUE, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let error = refused(&path).await;
    assert!(
        matches!(
            error,
            OpenError::Newer {
                version: 99,
                known: 3,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn s_8_no_file_is_open_to_others() {
    let (store, folder) = open().await;
    create(&store, entry("one", "/one", &["s:1"])).await;
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.path().display());
    }
}

#[tokio::test]
async fn calls_are_heard_with_their_end() {
    let (store, _folder) = open().await;
    let heard: Arc<Mutex<Vec<(&str, bool)>>> = Arc::default();
    let hears = Arc::clone(&heard);
    let observer = store::Observer::new(move |name| {
        let hears = Arc::clone(&hears);
        Box::new(move |failure| hears.lock().unwrap().push((name, failure.is_none())))
    });
    let store = store.observed(observer);
    create(&store, entry("one", "/one", &["s:1"])).await;
    store.count_bundles().await.unwrap();
    store.close().await;
    store.count_bundles().await.unwrap_err();
    assert_eq!(
        *heard.lock().unwrap(),
        [
            ("registration_entry_create", true),
            ("bundle_count", true),
            ("bundle_count", false)
        ]
    );
}

#[tokio::test]
async fn health_is_the_last_writes() {
    let (store, folder) = open().await;
    store.check().await.unwrap();
    assert_eq!(store.health(), Ok(()));
    // Somebody else takes the table away, as damage would.
    let path = folder.path().join("data.sqlite3");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let mut run = async |statement: &'static str| {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    };
    run("ALTER TABLE probe RENAME TO gone").await;
    let failure = store.check().await.unwrap_err();
    assert_eq!(store.health(), Err(failure));
    run("ALTER TABLE gone RENAME TO probe").await;
    store.check().await.unwrap();
    assert_eq!(store.health(), Ok(()));
    store.close().await;
    assert_eq!(store.health(), Err(store::StoreError::Closed));
}
