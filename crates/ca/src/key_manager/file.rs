//! The key file. It is read whole at the start and replaced whole, so that a crash at any point leaves the former file
//! or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::PrivateKey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::KeyManagerError;

const MAX_FILE_LEN: u64 = 1 << 20;

/// What SPIRE's `disk` key manager writes.
#[derive(Default, Serialize, Deserialize)]
struct Content {
    keys: BTreeMap<String, String>,
}

impl Drop for Content {
    fn drop(&mut self) {
        self.keys.values_mut().for_each(String::zeroize);
    }
}

pub(super) fn read(path: &Path) -> Result<BTreeMap<String, PrivateKey>, KeyManagerError> {
    let failed = |source| KeyManagerError::Read {
        path: path.to_owned(),
        source,
    };
    let format = |reason: String| KeyManagerError::Format {
        path: path.to_owned(),
        reason,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyManagerError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    if metadata.len() > MAX_FILE_LEN {
        return Err(format(format!("it has {} bytes", metadata.len())));
    }
    let mut json = Zeroizing::new(Vec::with_capacity(
        usize::try_from(metadata.len()).unwrap_or_default() + 1,
    ));
    file.take(MAX_FILE_LEN)
        .read_to_end(&mut json)
        .map_err(failed)?;
    let content: Content = serde_json::from_slice(&json).map_err(|error| {
        // serde's own message may quote what it found.
        format(format!(
            "expected {{\"keys\": {{...}}}}; line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    content
        .keys
        .iter()
        .map(|(id, text)| Ok((id.clone(), decode(path, id, text)?)))
        .collect()
}

fn decode(path: &Path, id: &str, text: &str) -> Result<PrivateKey, KeyManagerError> {
    let pkcs8 = STANDARD.decode(text).map_err(|_| KeyManagerError::Format {
        path: path.to_owned(),
        reason: format!("key {id:?} is not base64"),
    })?;
    PrivateKey::from_pkcs8_der(&Zeroizing::new(pkcs8)).map_err(|source| KeyManagerError::Key {
        path: path.to_owned(),
        id: id.to_owned(),
        source,
    })
}

pub(super) fn write(
    path: &Path,
    keys: &BTreeMap<String, PrivateKey>,
) -> Result<(), KeyManagerError> {
    let content = Content {
        keys: keys
            .iter()
            .map(|(id, key)| (id.clone(), STANDARD.encode(key.as_pkcs8_der())))
            .collect(),
    };
    let room = content
        .keys
        .iter()
        .map(|(id, key)| id.len() + key.len() + 32);
    let mut json = Zeroizing::new(Vec::with_capacity(room.sum::<usize>() + 64));
    serde_json::to_writer_pretty(&mut *json, &content)
        .map_err(io::Error::from)
        .and_then(|()| replace(path, &json))
        .map_err(|source| KeyManagerError::Write {
            path: path.to_owned(),
            source,
        })
}

/// Writes a sibling file, mode 0600 from its first moment, and renames it over `path`. Both the file and the folder are
/// on the disk when it returns.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    // Left by a crash; nobody else writes here.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = create(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    File::open(folder(path))?.sync_all()
}

fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
