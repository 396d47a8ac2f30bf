//! The agent's own SVID, key and bundle on disk, in the files and the form of SPIRE's agent, so that
//! a data folder of hers can be taken over.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use identity::{Bundle, Certificate, PrivateKey, TrustDomain, X509Authority, X509Svid};
use runtime::files::{self, FileError};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::AgentSvid;
use crate::config::KeyManager;

/// The agent SVID and bundle.
pub const DATA_FILE: &str = "agent-data.json";

/// The keys, with the key manager `disk`.
pub const KEYS_FILE: &str = "keys.json";

/// A key is written under the name that the former one does not have.
const KEY_NAMES: [&str; 2] = ["agent-svid-A", "agent-svid-B"];

/// What is kept of the agent.
#[derive(Debug)]
pub struct AgentStore {
    data_path: PathBuf,
    /// `None` with the key manager `memory`.
    keys_path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    data: Data,
    keys: BTreeMap<String, PrivateKey>,
}

/// What was found on disk.
#[derive(Debug, Default)]
pub struct Stored {
    /// The agent SVID, when it is whole and has not expired.
    pub svid: Option<AgentSvid>,
    /// The X.509 authorities of the own bundle.
    pub bundle: Option<Bundle>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Data {
    svid: Vec<String>,
    bundle: Vec<String>,
    reattestable: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Keys {
    keys: BTreeMap<String, String>,
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.keys.values_mut().for_each(Zeroize::zeroize);
    }
}

impl AgentStore {
    /// Keeps the agent's things in `data_dir`.
    #[must_use]
    pub fn new(data_dir: &Path, key_manager: &KeyManager) -> Self {
        let keys_path = match key_manager {
            KeyManager::Memory => None,
            KeyManager::Disk { directory } => Some(directory.join(KEYS_FILE)),
        };
        Self {
            data_path: data_dir.join(DATA_FILE),
            keys_path,
            state: Mutex::default(),
        }
    }

    /// Reads what is there. A file that cannot be used is left alone and said so in the log: the
    /// agent attests anew.
    pub fn load(&self, trust_domain: &TrustDomain, now: SystemTime) -> Stored {
        let data: Data = read_json(&self.data_path).unwrap_or_default();
        let keys: Keys = self
            .keys_path
            .as_deref()
            .and_then(read_json)
            .unwrap_or_default();
        let keys: BTreeMap<String, PrivateKey> = keys
            .keys
            .iter()
            .filter_map(|(name, key)| {
                let der = Zeroizing::new(STANDARD.decode(key.as_bytes()).ok()?);
                Some((name.clone(), PrivateKey::from_pkcs8_der(&der).ok()?))
            })
            .collect();
        let stored = Stored {
            svid: self.usable(&data, &keys, trust_domain, now),
            bundle: read_bundle(&data, trust_domain),
        };
        *self.lock() = State { data, keys };
        stored
    }

    /// Writes a new key beside the former one, before the server is asked for its SVID: whichever
    /// of the two the server knows after a crash, its key is there.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn save_key(&self, key: &PrivateKey) -> Result<(), FileError> {
        let mut state = self.lock();
        let current = state.current_key();
        let name = KEY_NAMES
            .into_iter()
            .find(|name| Some(*name) != current.as_deref())
            .unwrap_or(KEY_NAMES[0]);
        let mut keys = state.keys.clone();
        keys.insert(name.to_owned(), key.clone());
        if let Some(path) = &self.keys_path {
            write_keys(path, &keys)?;
        }
        state.keys = keys;
        drop(state);
        Ok(())
    }

    /// Writes the agent SVID; its key must have been saved.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn save_svid(&self, svid: &AgentSvid) -> Result<(), FileError> {
        self.edit(|data| {
            data.svid = encode(svid.svid.chain().iter());
            data.reattestable = svid.reattestable;
        })
    }

    /// Writes the own bundle.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn save_bundle(&self, bundle: &Bundle) -> Result<(), FileError> {
        let authorities = bundle.x509_authorities.iter();
        let encoded = encode(authorities.map(|authority| &authority.certificate));
        self.edit(|data| data.bundle = encoded)
    }

    /// Forgets the agent SVID, since the server does not want it any more.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn forget_svid(&self) -> Result<(), FileError> {
        self.edit(|data| data.svid.clear())
    }

    fn edit(&self, edit: impl FnOnce(&mut Data)) -> Result<(), FileError> {
        let mut state = self.lock();
        let mut data = state.data.clone();
        edit(&mut data);
        if data != state.data {
            let json = serde_json::to_vec(&data).expect("strings must be JSON");
            files::write_private(&self.data_path, &json)?;
            state.data = data;
        }
        drop(state);
        Ok(())
    }

    fn usable(
        &self,
        data: &Data,
        keys: &BTreeMap<String, PrivateKey>,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Option<AgentSvid> {
        if data.svid.is_empty() {
            return None;
        }
        let ignored = |reason: &str| {
            let path = self.data_path.display();
            tracing::warn!(%path, reason, "the stored agent SVID is of no use; attesting anew");
        };
        let Some(chain) = decode(&data.svid) else {
            ignored("it is damaged");
            return None;
        };
        let key = keys.values().find(|key| {
            chain
                .first()
                .is_some_and(|leaf| leaf.spki() == key.public_key_spki())
        });
        let Some(key) = key else {
            if self.keys_path.is_some() {
                ignored("its key is missing");
            }
            return None;
        };
        let svid = match X509Svid::new(chain, key.clone()) {
            Ok(svid) => svid,
            Err(error) => {
                ignored(&error.to_string());
                return None;
            }
        };
        if !svid.id().is_member_of(trust_domain) {
            ignored("it is of another trust domain");
            return None;
        }
        if svid.expires_at() <= now {
            ignored("it has expired");
            return None;
        }
        Some(AgentSvid {
            svid: svid.into(),
            reattestable: data.reattestable,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The name of the key that belongs to the SVID on disk.
    fn current_key(&self) -> Option<String> {
        let chain = decode(&self.data.svid)?;
        let leaf = chain.first()?;
        self.keys
            .iter()
            .find(|(_, key)| key.public_key_spki() == leaf.spki())
            .map(|(name, _)| name.clone())
    }
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    let bytes = match files::read_private(path) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::warn!(%error, "going on without it");
            return None;
        }
    };
    serde_json::from_slice(&bytes)
        // The error's text may show what is in the file.
        .map_err(|_| tracing::warn!(path = %path.display(), "damaged; going on without it"))
        .ok()
}

fn write_keys(path: &Path, keys: &BTreeMap<String, PrivateKey>) -> Result<(), FileError> {
    let keys = keys
        .iter()
        .map(|(name, key)| (name.clone(), STANDARD.encode(key.as_pkcs8_der())))
        .collect();
    let json = serde_json::to_vec(&Keys { keys }).expect("strings must be JSON");
    files::write_private(path, &Zeroizing::new(json))
}

fn read_bundle(data: &Data, trust_domain: &TrustDomain) -> Option<Bundle> {
    let certificates = decode(&data.bundle)?;
    if certificates.is_empty() {
        return None;
    }
    let mut bundle = Bundle::empty(trust_domain.clone());
    bundle.x509_authorities = certificates.into_iter().map(X509Authority::new).collect();
    Some(bundle)
}

fn encode<'a>(certificates: impl Iterator<Item = &'a Certificate>) -> Vec<String> {
    certificates.map(|one| STANDARD.encode(one.der())).collect()
}

fn decode(texts: &[String]) -> Option<Vec<Certificate>> {
    texts
        .iter()
        .map(|text| Certificate::from_der(&STANDARD.decode(text).ok()?).ok())
        .collect()
}

#[cfg(test)]
mod tests;
