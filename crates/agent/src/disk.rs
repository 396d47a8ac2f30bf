//! What survives a restart: the sealed copy of entries, SVIDs and bundles.
//!
//! The copy is sealed with AES-256-GCM; the key lies beside it in a file of its own, so that the copy
//! alone (in a backup, say) is worth nothing, and deleting the key makes it unreadable for good. What
//! has expired is neither written nor read back.

mod content;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand::{SecureRandom, SystemRandom},
};
use identity::{Bundle, EntryId, RegistrationEntry, SpiffeId, TrustDomain, X509Svid};
use prost::Message as _;
use runtime::{
    BoxError, Shutdown,
    files::{self, FileError},
};
use tokio::{sync::watch, time::Instant};
use zeroize::Zeroizing;

use self::content::{Stored, content};
use crate::{
    cache::{Cache, Changed, Update},
    workloads::living::Living,
};

/// The sealed copy.
pub const CACHE_FILE: &str = "svid-cache.sealed";

/// Its key.
pub const KEY_FILE: &str = "svid-cache.key";

/// Stands at the start of the copy: what it is, and in which form.
const HEADER: &[u8] = b"signet agent cache 1\n";

const KEY_LEN: usize = 32;

/// Changes that follow each other are written together.
const SETTLE: Duration = Duration::from_millis(50);

/// Writing takes at most one part in so many of the time.
const WRITE_SHARE: u32 = 20;

/// How long to wait after a disk that took nothing.
const RETRY: Duration = Duration::from_secs(30);

/// Where the copy is kept.
#[derive(Debug, Clone)]
pub struct Disk {
    folder: PathBuf,
    trust_domain: TrustDomain,
    /// Removed for good: nothing is written any more.
    removed: Arc<AtomicBool>,
}

/// What the copy holds.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The agent that all this was said to; `None` while it has no SVID.
    pub agent: Option<SpiffeId>,
    /// All entries.
    pub entries: Vec<Arc<RegistrationEntry>>,
    /// The own bundle.
    pub bundle: Option<Arc<Bundle>>,
    /// Foreign bundles.
    pub federated: Vec<Arc<Bundle>>,
    /// SVIDs by entry.
    pub svids: Vec<(EntryId, Arc<X509Svid>)>,
}

/// Why the copy is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// No key, or a damaged one.
    #[error("its key {} is missing or damaged", .0.display())]
    Key(PathBuf),
    /// Not such a copy.
    #[error("it is none of this program's, or of another version")]
    Header,
    /// Damaged, sealed with another key, or another trust domain's.
    #[error("it is damaged, another trust domain's, or sealed with another key")]
    Seal,
    /// Another agent's: what that one was given is none of ours.
    #[error("it is of the agent {0}")]
    OtherAgent(SpiffeId),
    /// Sealed by us, but broken.
    #[error("its content cannot be read: {0}")]
    Content(String),
    /// The library failed.
    #[error("sealing it failed")]
    Sealing,
}

impl Disk {
    /// Keeps the copy in this folder.
    #[must_use]
    pub fn new(folder: &Path, trust_domain: &TrustDomain) -> Self {
        Self {
            folder: folder.to_owned(),
            trust_domain: trust_domain.clone(),
            removed: Arc::default(),
        }
    }

    /// Where the copy is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(CACHE_FILE)
    }

    /// Writes the copy, unless it was removed.
    ///
    /// # Errors
    /// When the disk does not take it; the former copy is still there then.
    pub fn save(&self, snapshot: &Snapshot) -> Result<(), DiskError> {
        if self.removed.load(Ordering::Acquire) {
            return Ok(());
        }
        let key = match self.key() {
            Ok(key) => key,
            Err(DiskError::Key(_)) => self.new_key()?,
            Err(other) => return Err(other),
        };
        let mut sealed = Stored::of(snapshot).encode_to_vec();
        let nonce = key
            .seal_in_place_append_tag(self.aad(), &mut sealed)
            .map_err(|_| DiskError::Sealing)?;
        let bytes = [HEADER, nonce.as_ref(), &sealed].concat();
        Ok(files::write_private(&self.path(), &bytes)?)
    }

    /// Reads the copy, without what has expired; `None` when there is none. `agent`: who asks, as far as that is known
    /// before it has attested.
    ///
    /// # Errors
    /// When it is of no use; nothing is changed then.
    pub fn load(
        &self,
        agent: Option<&SpiffeId>,
        now: SystemTime,
    ) -> Result<Option<Snapshot>, DiskError> {
        let Some(bytes) = files::read_private(&self.path())? else {
            return Ok(None);
        };
        let key = self.key()?;
        let rest = bytes.strip_prefix(HEADER).ok_or(DiskError::Header)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(DiskError::Header)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| DiskError::Header)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let plain = key
            .open_in_place(nonce, self.aad(), &mut opened)
            .map_err(|_| DiskError::Seal)?;
        let snapshot = Stored::decode(&*plain)
            .map_err(|error| content(&error))
            .and_then(|stored| stored.read(&self.trust_domain, now))?;
        match (agent, &snapshot.agent) {
            (Some(agent), Some(other)) if agent != other => {
                Err(DiskError::OtherAgent(other.clone()))
            }
            _ => Ok(Some(snapshot)),
        }
    }

    /// Deletes the copy and its key, and sees to it that none is written again.
    ///
    /// # Errors
    /// When the disk does not let go of it.
    pub fn remove(&self) -> Result<(), FileError> {
        self.removed.store(true, Ordering::Release);
        files::remove(&self.folder.join(KEY_FILE))?;
        files::remove(&self.path())
    }

    /// Writes the copy whenever something has changed, until shutdown.
    ///
    /// # Errors
    /// None: a disk that takes nothing is said in the log, and tried again.
    pub(crate) async fn keep(
        self,
        living: Arc<Living>,
        svid: watch::Receiver<Option<Arc<X509Svid>>>,
        shutdown: Shutdown,
    ) -> Result<(), BoxError> {
        let mut changes = living.generation();
        let mut behind = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(RETRY), if behind => {}
                changed = changes.changed(), if !behind => if changed.is_err() { break },
            }
            behind = true;
            if stopped_within(SETTLE, &shutdown).await {
                break;
            }
            changes.mark_unchanged();
            let began = Instant::now();
            behind = !self.write(&living, &svid).await;
            if stopped_within(began.elapsed() * WRITE_SHARE, &shutdown).await {
                break;
            }
        }
        if behind || changes.has_changed().unwrap_or(false) {
            self.write(&living, &svid).await;
        }
        Ok(())
    }

    async fn write(&self, living: &Living, svid: &watch::Receiver<Option<Arc<X509Svid>>>) -> bool {
        let Some(mut snapshot) = living.read(Snapshot::of) else {
            return true;
        };
        snapshot.agent = svid.borrow().as_ref().map(|svid| svid.id().clone());
        let disk = self.clone();
        let saved = tokio::task::spawn_blocking(move || disk.save(&snapshot)).await;
        let error = match saved {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            error,
            retry_in_s = RETRY.as_secs(),
            "the copy for a restart is not up to date; serving goes on"
        );
        false
    }

    fn key(&self) -> Result<RandomizedNonceKey, DiskError> {
        let path = self.folder.join(KEY_FILE);
        let bytes = files::read_private(&path)?;
        bytes
            .as_deref()
            .filter(|bytes| bytes.len() == KEY_LEN)
            .and_then(|bytes| RandomizedNonceKey::new(&AES_256_GCM, bytes).ok())
            .ok_or(DiskError::Key(path))
    }

    fn new_key(&self) -> Result<RandomizedNonceKey, DiskError> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        SystemRandom::new()
            .fill(&mut *bytes)
            .map_err(|_| DiskError::Sealing)?;
        files::write_private(&self.folder.join(KEY_FILE), &*bytes)?;
        RandomizedNonceKey::new(&AES_256_GCM, &*bytes).map_err(|_| DiskError::Sealing)
    }

    /// A copy of another trust domain does not open.
    fn aad(&self) -> Aad<Vec<u8>> {
        Aad::from([HEADER, self.trust_domain.as_str().as_bytes()].concat())
    }
}

impl Snapshot {
    /// What there is to keep; `None` before the server has said anything.
    fn of(cache: &Cache, now: SystemTime) -> Option<Self> {
        if !cache.is_synced() {
            return None;
        }
        let own = cache.bundle();
        Some(Self {
            agent: None,
            entries: cache.records().map(|(entry, _)| entry.clone()).collect(),
            bundle: Some(own.clone()),
            federated: cache
                .bundles()
                .iter()
                .filter(|bundle| bundle.trust_domain != own.trust_domain)
                .cloned()
                .collect(),
            svids: cache
                .records()
                .filter_map(|(entry, svid)| Some((entry.id.clone(), svid?.clone())))
                .filter(|(_, svid)| svid.expires_at() > now)
                .collect(),
        })
    }

    /// Fills a cache, as if the server had said all this.
    pub fn restore(self, cache: &mut Cache, now: SystemTime) -> Changed {
        let revisions: HashMap<EntryId, i64> = self
            .entries
            .iter()
            .map(|entry| (entry.id.clone(), entry.revision))
            .collect();
        let mut changed = cache.apply(Update {
            upserted: self.entries,
            bundle: self.bundle,
            federated: self.federated,
            synced: true,
            ..Update::default()
        });
        for (id, svid) in self.svids {
            let revision = revisions.get(&id).copied().unwrap_or_default();
            changed.extend(cache.issued(&id, revision, svid, now));
        }
        changed
    }
}

async fn stopped_within(duration: Duration, shutdown: &Shutdown) -> bool {
    tokio::select! {
        () = tokio::time::sleep(duration) => false,
        () = shutdown.cancelled() => true,
    }
}

#[cfg(test)]
mod tests;
