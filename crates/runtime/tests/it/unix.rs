use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;

use runtime::listen::{Listen, UnixListener};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

fn refusal(path: &Path) -> String {
    UnixListener::bind(path, 0o777).unwrap_err().to_string()
}

#[tokio::test]
async fn s_8_the_mode_is_exact_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    for wanted in [0o777, 0o770, 0o700, 0o666] {
        let path = folder.path().join("a/b").join(format!("{wanted:o}"));
        let _listener = UnixListener::bind(&path, wanted).unwrap();
        assert_eq!(mode(&path), wanted);
    }
    assert_eq!(mode(&folder.path().join("a")), 0o755);
    let private = folder.path().join("private/socket");
    let _listener = UnixListener::bind(&private, 0o770).unwrap();
    assert_eq!(mode(private.parent().unwrap()), 0o750);
}

#[tokio::test]
async fn as_11_a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves the file");
    let mut listener = UnixListener::bind(&path, 0o777).unwrap();
    let refused = refusal(&path);
    assert!(refused.contains("in use"), "{refused}");
    assert!(refused.contains(&path.display().to_string()), "{refused}");

    // The one in use goes on, past the caller that tried it.
    let _caller = StdUnixStream::connect(&path).unwrap();
    for _ in 0..2 {
        let (uid, handshake) = listener.accept().await.unwrap();
        assert_eq!(uid, nix::unistd::geteuid().as_raw());
        let (_stream, peer) = handshake.await.unwrap();
        assert_eq!(peer.pid(), Some(std::process::id()));
    }
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn as_11_nothing_but_a_socket_is_ever_removed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        let refused = refusal(path);
        assert!(refused.contains("not a socket"), "{refused}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn as_11_a_folder_that_others_may_change_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = refusal(&open.join("socket"));
    assert!(refused.contains("chmod it to 755"), "{refused}");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(UnixListener::bind(&open.join("socket"), 0o777).is_ok());
}

#[tokio::test]
async fn e7_a_path_that_is_too_long_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x".repeat(120));
    let refused = refusal(&path);
    assert!(refused.contains("at most 107"), "{refused}");
    let room = 107 - folder.path().as_os_str().len() - 1;
    assert!(UnixListener::bind(&folder.path().join("x".repeat(room)), 0o777).is_ok());
}

#[tokio::test]
async fn a_socket_that_somebody_replaced_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let first = UnixListener::bind(&path, 0o777).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _second = UnixListener::bind(&path, 0o777).unwrap();
    drop(first);
    assert!(path.exists());
}
