//! Where the authorities' private keys are kept: in memory, or in a file that outlives the process.

mod file;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use identity::{KeyError, KeyType, PrivateKey};
use thiserror::Error;

/// Why keys cannot be read or kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyManagerError {
    /// The file cannot be read.
    #[error("reading the keys from {path}: {source}", path = path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is open to others.
    #[error("{path} is open to others (mode {mode:03o}); chmod it to 600", path = path.display())]
    Mode {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{path} is no key file: {reason}", path = path.display())]
    Format {
        /// The key file.
        path: PathBuf,
        /// What is wrong, without any of its contents.
        reason: String,
    },
    /// A key in the file is unusable.
    #[error("key {id:?} in {path}: {source}", path = path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// The key's name.
        id: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The file cannot be written.
    #[error("writing the keys to {path}: {source}", path = path.display())]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No key was made.
    #[error(transparent)]
    Generate(#[from] KeyError),
}

/// Named private keys.
#[derive(Debug)]
pub struct KeyManager {
    keys: BTreeMap<String, PrivateKey>,
    path: Option<PathBuf>,
}

impl KeyManager {
    /// Keys that go with the process.
    #[must_use]
    pub const fn memory() -> Self {
        Self {
            keys: BTreeMap::new(),
            path: None,
        }
    }

    /// Keys kept in a file of SPIRE's shape (`{"keys": {"<name>": "<PKCS#8, base64>"}}`, mode 0600), which need not be
    /// there yet.
    ///
    /// # Errors
    /// When the file is there but cannot be read, is open to others, or holds something else.
    pub fn disk(path: impl Into<PathBuf>) -> Result<Self, KeyManagerError> {
        let path = path.into();
        let keys = file::read(&path)?;
        Ok(Self {
            keys,
            path: Some(path),
        })
    }

    /// The file, where there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The key of this name.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<&PrivateKey> {
        self.keys.get(id)
    }

    /// Makes a key and keeps it under this name, in place of a former one. When it returns, the key is on disk.
    ///
    /// # Errors
    /// When no key can be made or the file cannot be written; then the former key stands.
    pub fn generate(&mut self, id: &str, kind: KeyType) -> Result<PrivateKey, KeyManagerError> {
        let key = PrivateKey::generate(kind)?;
        let mut keys = self.keys.clone();
        keys.insert(id.to_owned(), key.clone());
        if let Some(path) = &self.path {
            file::write(path, &keys)?;
        }
        self.keys = keys;
        Ok(key)
    }
}

#[cfg(test)]
mod tests;
