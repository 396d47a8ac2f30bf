use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use tempfile::{TempDir, tempdir};

use super::*;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("keys.json");
    (folder, path)
}

fn names(folder: &TempDir) -> Vec<String> {
    fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// What every key manager does.
fn contract(mut keys: KeyManager) {
    assert_eq!(keys.key("x509-CA-A"), None);
    let a = keys.generate("x509-CA-A", KeyType::EcP256).unwrap();
    let b = keys.generate("x509-CA-B", KeyType::EcP384).unwrap();
    assert_eq!(keys.key("x509-CA-A"), Some(&a));
    assert_eq!(keys.key("x509-CA-B"), Some(&b));
    let newer = keys.generate("x509-CA-A", KeyType::EcP256).unwrap();
    assert_ne!(newer, a);
    assert_eq!(keys.key("x509-CA-A"), Some(&newer));
}

#[test]
fn memory_keeps_the_contract() {
    contract(KeyManager::memory());
}

#[test]
fn disk_keeps_the_contract() {
    let (_folder, path) = folder();
    contract(KeyManager::disk(path).unwrap());
}

#[test]
fn keys_on_disk_outlive_the_process() {
    let (folder, path) = folder();
    let mut keys = KeyManager::disk(&path).unwrap();
    let made = [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048]
        .map(|kind| keys.generate(kind.as_str(), kind).unwrap());
    let read = KeyManager::disk(&path).unwrap();
    for key in &made {
        assert_eq!(read.key(key.key_type().as_str()), Some(key));
    }
    assert_eq!(names(&folder), ["keys.json"], "no temporary file is left");
}

#[test]
fn s_8_the_file_is_the_owners_alone() {
    let (_folder, path) = folder();
    let mut keys = KeyManager::disk(&path).unwrap();
    keys.generate("one", KeyType::EcP256).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = KeyManager::disk(&path).unwrap_err();
        assert!(matches!(error, KeyManagerError::Mode { mode: found, .. } if found == mode));
    }
}

#[test]
fn as_27_a_planted_link_is_not_followed() {
    let (folder, path) = folder();
    let target = folder.path().join("target");
    fs::write(&target, "untouched").unwrap();
    symlink(&target, folder.path().join("keys.json.new")).unwrap();
    let mut keys = KeyManager::disk(&path).unwrap();
    keys.generate("one", KeyType::EcP256).unwrap();
    assert_eq!(fs::read_to_string(target).unwrap(), "untouched");
    assert!(KeyManager::disk(&path).unwrap().key("one").is_some());
}

#[test]
fn a_crash_while_writing_leaves_the_former_file() {
    let (folder, path) = folder();
    let mut keys = KeyManager::disk(&path).unwrap();
    let key = keys.generate("one", KeyType::EcP256).unwrap();
    fs::write(folder.path().join("keys.json.new"), "{\"keys\": {\"o").unwrap();
    let mut keys = KeyManager::disk(&path).unwrap();
    assert_eq!(keys.key("one"), Some(&key));
    keys.generate("two", KeyType::EcP256).unwrap();
    assert_eq!(names(&folder), ["keys.json"]);
}

#[test]
fn a_failed_write_leaves_the_former_keys() {
    let (folder, path) = folder();
    let mut keys = KeyManager::disk(&path).unwrap();
    let key = keys.generate("one", KeyType::EcP256).unwrap();
    // A folder in the way of the temporary file fails for root too.
    fs::create_dir_all(folder.path().join("keys.json.new/in the way")).unwrap();
    let error = keys.generate("one", KeyType::EcP256).unwrap_err();
    assert!(matches!(error, KeyManagerError::Write { .. }), "{error}");
    assert_eq!(keys.key("one"), Some(&key));
    assert_eq!(KeyManager::disk(&path).unwrap().key("one"), Some(&key));
}

#[test]
fn spires_own_file_is_read() {
    let (_folder, path) = folder();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let pem = key.to_pem();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    // Go's indented form, with a key name of its own.
    let json = format!("{{\n\t\"keys\": {{\n\t\t\"JWT-Signer-A\": \"{base64}\"\n\t}}\n}}");
    fs::write(&path, json).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let keys = KeyManager::disk(&path).unwrap();
    assert_eq!(keys.key("JWT-Signer-A"), Some(&key));
}

#[test]
fn s_4_broken_files_are_refused_without_quoting_them() {
    let (_folder, path) = folder();
    for content in [
        "",
        "{}",
        "[]",
        "{\"keys\": {\"one\": 7}}",
        "{\"keys\": {\"one\": \"c2VjcmV0\"}}",
        "{\"keys\": {\"one\": \"c2VjcmV0!\"}}",
        "{\"keys\": \"c2VjcmV0\"}",
    ] {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = KeyManager::disk(&path).unwrap_err().to_string();
        assert!(error.contains("keys.json"), "{error}");
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
}

#[test]
fn a_missing_folder_is_told() {
    let (folder, _) = folder();
    let mut keys = KeyManager::disk(folder.path().join("missing/keys.json")).unwrap();
    let error = keys
        .generate("one", KeyType::EcP256)
        .unwrap_err()
        .to_string();
    assert!(error.contains("missing/keys.json"), "{error}");
}
