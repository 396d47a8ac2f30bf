use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::{
    fixtures::{CA, entry, noon, selectors, svid, trust_domain},
    svid::Rotation,
};

fn snapshot() -> Snapshot {
    let mut web = entry("web", &["unix:uid:1"]);
    web.revision = 3;
    web.federates_with
        .insert(TrustDomain::new("other.org").unwrap());
    Snapshot {
        agent: Some(agent("/spire/agent/x")),
        entries: vec![Arc::new(web), Arc::new(entry("db", &["unix:uid:2"]))],
        bundle: Some(Arc::new(CA.bundle())),
        federated: vec![Arc::new(Bundle::empty(
            TrustDomain::new("other.org").unwrap(),
        ))],
        svids: vec![(EntryId::new("web").unwrap(), svid("/web"))],
    }
}

fn agent(path: &str) -> SpiffeId {
    SpiffeId::new(&trust_domain(), path).unwrap()
}

fn disk(folder: &TempDir) -> Disk {
    Disk::new(folder.path(), &trust_domain())
}

#[test]
fn what_is_written_is_read_back() {
    let folder = TempDir::new().unwrap();
    assert!(disk(&folder).load(None, noon()).unwrap().is_none());
    let before = snapshot();
    disk(&folder).save(&before).unwrap();
    let after = disk(&folder).load(None, noon()).unwrap().unwrap();
    assert_eq!(after.entries, before.entries);
    assert_eq!(after.bundle, before.bundle);
    assert_eq!(after.federated, before.federated);
    assert_eq!(after.svids, before.svids);
    assert_eq!(after.svids[0].1.key(), before.svids[0].1.key());
}

#[test]
fn s_8_both_files_are_their_owners_alone_and_show_nothing() {
    let folder = TempDir::new().unwrap();
    disk(&folder).save(&snapshot()).unwrap();
    for file in [CACHE_FILE, KEY_FILE] {
        let path = folder.path().join(file);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let bytes = std::fs::read(folder.path().join(CACHE_FILE)).unwrap();
    let shows = |needle: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
    assert!(!shows(b"example.org/web"));
    assert!(!shows(snapshot().svids[0].1.leaf().der()));
}

#[test]
fn i_7_expired_svids_are_not_read_back() {
    let folder = TempDir::new().unwrap();
    disk(&folder).save(&snapshot()).unwrap();
    let end = noon() + Duration::from_hours(1);
    let second = Duration::from_secs(1);
    assert_eq!(
        disk(&folder)
            .load(None, end - second)
            .unwrap()
            .unwrap()
            .svids
            .len(),
        1
    );
    let late = disk(&folder).load(None, end).unwrap().unwrap();
    assert_eq!((late.svids.len(), late.entries.len()), (0, 2));
}

#[test]
fn a_damaged_or_foreign_copy_is_refused() {
    let folder = TempDir::new().unwrap();
    disk(&folder).save(&snapshot()).unwrap();
    let path = folder.path().join(CACHE_FILE);
    let good = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        files::write_private(&path, bytes).unwrap();
        disk(&folder).load(None, noon()).unwrap_err()
    };
    for at in [0, HEADER.len(), HEADER.len() + 12, 200, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        refused(&bad);
    }
    for len in [0, 5, HEADER.len(), HEADER.len() + 12, good.len() - 1] {
        refused(&good[..len]);
    }
    files::write_private(&path, &good).unwrap();
    let other = Disk::new(folder.path(), &TrustDomain::new("other.org").unwrap());
    assert!(matches!(other.load(None, noon()), Err(DiskError::Seal)));
    std::fs::remove_file(folder.path().join(KEY_FILE)).unwrap();
    assert!(matches!(
        disk(&folder).load(None, noon()),
        Err(DiskError::Key(_))
    ));
    disk(&folder).save(&snapshot()).unwrap();
    assert!(
        disk(&folder).load(None, noon()).unwrap().is_some(),
        "a new key is made"
    );
}

/// A node that attests as somebody else gets nothing of what the former agent was given.
#[test]
fn the_copy_of_another_agent_is_refused() {
    let folder = TempDir::new().unwrap();
    let disk = disk(&folder);
    disk.save(&snapshot()).unwrap();
    let (mine, other) = (agent("/spire/agent/x"), agent("/spire/agent/y"));
    let loaded = disk.load(Some(&mine), noon()).unwrap().unwrap();
    assert_eq!(loaded.agent, Some(mine.clone()));
    match disk.load(Some(&other), noon()) {
        Err(DiskError::OtherAgent(found)) => assert_eq!(found, mine),
        loaded => panic!("refused, not {loaded:?}"),
    }
    // Who has not attested yet does not know who it will be.
    assert!(disk.load(None, noon()).unwrap().is_some());
}

#[test]
fn what_was_removed_is_not_written_again() {
    let folder = TempDir::new().unwrap();
    let disk = disk(&folder);
    disk.save(&snapshot()).unwrap();
    disk.remove().unwrap();
    disk.save(&snapshot()).unwrap();
    assert!(!folder.path().join(CACHE_FILE).exists());
    assert!(!folder.path().join(KEY_FILE).exists());
}

#[test]
fn a_restored_cache_serves_the_same_and_asks_only_for_what_is_missing() {
    let mut cache = Cache::new(&trust_domain(), 100, Rotation::default());
    let before = snapshot();
    let web = before.svids[0].1.clone();
    before.restore(&mut cache, noon());
    let view = cache.view(&selectors(&["unix:uid:1"]), noon());
    assert!(view.synced);
    assert_eq!(view.identities[0].svid, web);
    assert_eq!(view.federated.len(), 1);
    assert_eq!(*view.bundle, CA.bundle());
    let due = cache.take_due(noon(), 9);
    assert_eq!(due.len(), 1);
    let db = SpiffeId::parse("spiffe://example.org/db").unwrap();
    assert_eq!(due[0].spiffe_id, db);
    let again = Snapshot::of(&cache, noon()).unwrap();
    assert_eq!((again.entries.len(), again.svids.len()), (2, 1));
}
