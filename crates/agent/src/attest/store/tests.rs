use std::time::Duration;

use identity::KeyType;
use tempfile::TempDir;

use super::*;
use crate::fixtures::{CA, noon, trust_domain};

fn store(folder: &TempDir) -> AgentStore {
    let manager = KeyManager::Disk {
        directory: folder.path().to_owned(),
    };
    AgentStore::new(folder.path(), &manager)
}

fn agent_svid() -> AgentSvid {
    AgentSvid {
        svid: CA.svid("/spire/agent/x", noon(), Duration::from_hours(1)),
        reattestable: true,
    }
}

fn load(folder: &TempDir) -> Stored {
    store(folder).load(&trust_domain(), noon())
}

#[test]
fn svid_and_bundle_survive() {
    let folder = TempDir::new().unwrap();
    assert!(load(&folder).svid.is_none());
    let (store, svid) = (store(&folder), agent_svid());
    store.save_key(svid.svid.key()).unwrap();
    store.save_svid(&svid).unwrap();
    store.save_bundle(&CA.bundle()).unwrap();
    let stored = load(&folder);
    assert_eq!(stored.svid, Some(svid));
    let authorities = stored.bundle.unwrap().x509_authorities;
    assert_eq!(authorities, CA.bundle().x509_authorities);
    store.forget_svid().unwrap();
    assert!(load(&folder).svid.is_none());
    assert!(load(&folder).bundle.is_some());
}

#[test]
fn s_3_a_crash_between_key_and_svid_loses_neither() {
    let folder = TempDir::new().unwrap();
    let (store, first, second) = (store(&folder), agent_svid(), agent_svid());
    store.save_key(first.svid.key()).unwrap();
    store.save_svid(&first).unwrap();
    // The new key is there, the server has the new serial, and the agent dies: the former SVID still works.
    store.save_key(second.svid.key()).unwrap();
    assert_eq!(load(&folder).svid, Some(first.clone()));
    // A try that came to nothing takes the place of the one before, never that of the SVID in use.
    store.save_key(agent_svid().svid.key()).unwrap();
    store.save_key(second.svid.key()).unwrap();
    assert_eq!(load(&folder).svid, Some(first));
    store.save_svid(&second).unwrap();
    assert_eq!(load(&folder).svid, Some(second));
}

#[test]
fn what_is_of_no_use_is_left_out() {
    let folder = TempDir::new().unwrap();
    let (store, svid) = (store(&folder), agent_svid());
    store.save_key(svid.svid.key()).unwrap();
    store.save_svid(&svid).unwrap();
    let other = TrustDomain::new("other.org").unwrap();
    assert!(self::store(&folder).load(&other, noon()).svid.is_none());
    let late = noon() + Duration::from_hours(1);
    assert!(
        self::store(&folder)
            .load(&trust_domain(), late)
            .svid
            .is_none()
    );
    for (file, text) in [
        (DATA_FILE, "{"),
        (DATA_FILE, r#"{"svid":["AA"]}"#),
        (KEYS_FILE, ""),
    ] {
        let path = folder.path().join(file);
        let good = std::fs::read(&path).unwrap();
        files::write_private(&path, text.as_bytes()).unwrap();
        assert!(load(&folder).svid.is_none());
        files::write_private(&path, &good).unwrap();
    }
    assert!(load(&folder).svid.is_some());
}

#[test]
fn a_folder_of_spires_agent_is_read() {
    let folder = TempDir::new().unwrap();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let svid = CA.svid_for(
        key.clone(),
        "/spire/agent/x509pop/1",
        noon(),
        Duration::from_hours(1),
    );
    let data = format!(
        r#"{{"svid":["{}"],"bundle":["{}"],"reattestable":true,"bootstrap_state":0}}"#,
        STANDARD.encode(svid.leaf().der()),
        STANDARD.encode(CA.certificate.der()),
    );
    let keys = format!(
        r#"{{"keys":{{"agent-svid-B":"{}"}}}}"#,
        STANDARD.encode(key.as_pkcs8_der())
    );
    files::write_private(&folder.path().join(DATA_FILE), data.as_bytes()).unwrap();
    files::write_private(&folder.path().join(KEYS_FILE), keys.as_bytes()).unwrap();
    let stored = load(&folder);
    assert_eq!(stored.svid.unwrap().svid, svid);
    assert!(stored.bundle.is_some());
}
