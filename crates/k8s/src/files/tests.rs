use identity::{Bundle, SpiffeId, X509Authority};
use tempfile::TempDir;

use super::*;
use crate::workload::WorkloadSvid;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn context(path: &str) -> X509Context {
    let id = SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap();
    let svid = testkit::forge(&id, now());
    let mut bundle = Bundle::empty(id.trust_domain().clone());
    let authority = X509Authority::new(svid.leaf().clone());
    bundle.x509_authorities.push(authority);
    X509Context {
        svids: vec![WorkloadSvid {
            svid,
            hint: String::new(),
        }],
        bundles: [Arc::new(bundle)].into_iter().collect(),
    }
}

fn config(folder: &TempDir) -> Config {
    Config {
        dir: folder.path().to_owned(),
        socket: "/nowhere".into(),
        names: Names::default(),
        key_mode: 0o600,
        health: None,
    }
}

/// All names in the folder, sorted, without the numbers of sets.
fn names(folder: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| {
            name.trim_end_matches(|one: char| one.is_ascii_digit())
                .to_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_set_is_written_and_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    let [one, two] = [context("/one"), context("/two")];
    write(&config, &one, now()).unwrap();
    check(&config, now()).unwrap();
    // Who has opened the set goes on reading it.
    let held = std::fs::read_link(folder.path().join(DATA)).unwrap();
    let later = now() + Duration::from_secs(60);
    write(&config, &two, later).unwrap();
    assert_ne!(std::fs::read_link(folder.path().join(DATA)).unwrap(), held);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let svid = &two.default_svid().svid;
    assert_eq!(read("svid.pem"), svid.chain_pem());
    assert_eq!(read("key.pem"), *svid.key().to_pem());
    let bundle = two.bundles.get(svid.id().trust_domain()).unwrap();
    assert_eq!(read("bundle.pem"), bundle.to_pem());
    let expected = ["..data", "..set-", "bundle.pem", "key.pem", "svid.pem"];
    assert_eq!(names(&folder), expected);
    let mode = std::fs::metadata(folder.path().join("key.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_key_is_for_whom_it_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    // As the kubelet makes a volume with a group.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o2777)).unwrap();
    let mut config = config(&folder);
    for (mode, later) in [(0o640, 1), (0o644, 2), (0o600, 3)] {
        config.key_mode = mode;
        write(
            &config,
            &context("/web"),
            now() + Duration::from_secs(later),
        )
        .unwrap();
        let is = |name: &str| {
            std::fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(is("key.pem") & 0o777, mode);
        assert_eq!(is(DATA) & 0o2777, 0o2755);
    }
}

#[test]
fn a_set_that_cannot_be_written_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    write(&config, &context("/one"), now()).unwrap();
    let before = std::fs::read(folder.path().join("svid.pem")).unwrap();
    let mut without = context("/two");
    without.bundles = [].into_iter().collect();
    let error = write(&config, &without, now()).unwrap_err();
    assert!(matches!(error, FilesError::NoBundle(_)), "{error}");
    let unchanged = || std::fs::read(folder.path().join("svid.pem")).unwrap() == before;
    assert!(unchanged());
    // A folder where a file is to be.
    std::fs::create_dir(folder.path().join("..set-1800000060000000000")).unwrap();
    let later = now() + Duration::from_secs(60);
    let error = write(&config, &context("/two"), later).unwrap_err();
    assert!(matches!(error, FilesError::File { .. }), "{error}");
    assert!(unchanged());
    // What was in the way is gone, so the next attempt succeeds.
    write(&config, &context("/two"), later).unwrap();
    assert!(!unchanged());
}

#[test]
fn what_will_not_do_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    assert!(matches!(
        check(&config, now()),
        Err(FilesError::File { .. })
    ));
    let context = context("/web");
    write(&config, &context, now()).unwrap();
    let end = context.default_svid().svid.expires_at();
    let error = check(&config, end).unwrap_err().to_string();
    assert!(error.ends_with("the SVID has expired"), "{error}");
    let other = super::tests::context("/other");
    let key = other.default_svid().svid.key().to_pem();
    std::fs::write(folder.path().join("key.pem"), key.as_bytes()).unwrap();
    let error = check(&config, now()).unwrap_err().to_string();
    assert!(error.contains("does not belong"), "{error}");
}

#[test]
fn names_are_checked() {
    let named = |svid: &str, key: &str| Names {
        svid: svid.to_owned(),
        key: key.to_owned(),
        bundle: "bundle.pem".to_owned(),
    };
    named("tls.crt", "tls.key").check().unwrap();
    for (svid, key) in [
        ("", "k"),
        ("../x", "k"),
        ("..data", "k"),
        ("a/b", "k"),
        ("k", "k"),
        ("a", "bundle.pem"),
    ] {
        assert!(named(svid, key).check().is_err(), "{svid:?} {key:?}");
    }
}
