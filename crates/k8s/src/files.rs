//! SVID, key and bundle as PEM files, kept fresh from the Workload API, for programs that read files.
//!
//! All three belong together, so they are swapped together: each set is a folder of its own, and one symbolic link, `..data`,
//! leads to the one that counts, as the kubelet does it. Who opens `..data` once reads files that fit.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Certificate, PrivateKey, X509Svid};
use runtime::listen::{ListenError, bind_tcp};
use runtime::{BoxError, Clock, Part, Readiness, Shutdown, Tasks};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use crate::workload::{X509Context, watch_x509};

/// The link to the set that counts.
const DATA: &str = "..data";
/// What the names of sets begin with.
const SET: &str = "..set-";
/// When writing failed, it is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// All the program is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the files are kept. Made when it is not there.
    pub dir: PathBuf,
    /// The agent's socket.
    pub socket: PathBuf,
    /// The files' names.
    pub names: Names,
    /// Mode of the key's file.
    pub key_mode: u32,
    /// Where health is told over HTTP.
    pub health: Option<SocketAddr>,
}

/// The files' names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The certificate, and the chain behind it.
    pub svid: String,
    /// Its key.
    pub key: String,
    /// The authorities of the SVID's trust domain.
    pub bundle: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            svid: "svid.pem".to_owned(),
            key: "key.pem".to_owned(),
            bundle: "bundle.pem".to_owned(),
        }
    }
}

/// Why files cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A name is none.
    #[error(
        "{0:?} is no name for a file; give letters, digits, `.`, `-` and `_`, each file another"
    )]
    Name(String),
    /// A file cannot be written or read.
    #[error("{path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in a file will not do.
    #[error("{path}: {reason}")]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No bundle came with the SVID.
    #[error("the agent gave no bundle of the trust domain {0}")]
    NoBundle(String),
    /// A listener cannot be set up.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl Names {
    fn check(&self) -> Result<(), FilesError> {
        let all = [&self.svid, &self.key, &self.bundle];
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        for (place, name) in all.into_iter().enumerate() {
            let sound = !name.is_empty() && !name.starts_with('.') && name.bytes().all(letter);
            if !sound || all[..place].contains(&name) {
                return Err(FilesError::Name(name.clone()));
            }
        }
        Ok(())
    }
}

/// Starts keeping the files; goes on until `tasks` are asked to end. The files stay.
///
/// # Errors
/// When the folder, a name or the listener will not do.
pub async fn start(config: Config, clock: Clock, tasks: &Tasks) -> Result<(), FilesError> {
    config.names.check()?;
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&config.dir);
    made.map_err(|source| failed(&config.dir, source))?;
    let readiness = Readiness::new();
    let first = readiness.part("files");
    if let Some(address) = config.health {
        let listener = bind_tcp(address).await?;
        let (now, shown) = (clock.clone(), config.clone());
        let fresh = move || check(&shown, now.now()).map_err(|error| error.to_string());
        readiness.check("freshness", fresh);
        readiness.serve(listener, "/live", "/ready", tasks);
    }
    let contexts = watch_x509(&config.socket, tasks);
    tasks.spawn(
        "files",
        keep(config, contexts, clock, first, tasks.shutdown()),
    );
    Ok(())
}

async fn keep(
    config: Config,
    mut contexts: watch::Receiver<Option<Arc<X509Context>>>,
    clock: Clock,
    first: Part,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    let mut first = Some(first);
    let mut again = None;
    loop {
        let retry = async {
            match again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = contexts.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            () = retry => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let Some(context) = contexts.borrow_and_update().clone() else {
            continue;
        };
        again = match write(&config, &context, clock.now()) {
            Ok(()) => {
                let svid = &context.default_svid().svid;
                tracing::info!(spiffe_id = %svid.id(), dir = %config.dir.display(), "Files written");
                if let Some(first) = first.take() {
                    first.done();
                }
                None
            }
            Err(error) => {
                tracing::warn!(%error, "the files cannot be written; trying again");
                Some(Instant::now() + RETRY)
            }
        };
    }
}

/// Writes one set and lets it count.
///
/// # Errors
/// When a file cannot be written; the old set counts then.
pub fn write(config: &Config, context: &X509Context, now: SystemTime) -> Result<(), FilesError> {
    let svid = &context.default_svid().svid;
    let trust_domain = svid.id().trust_domain();
    let bundle = context.bundles.get(trust_domain);
    let bundle = bundle.ok_or_else(|| FilesError::NoBundle(trust_domain.to_string()))?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let set = format!("{SET}{}", since.unwrap_or_default().as_nanos());
    let folder = config.dir.join(&set);
    let Names {
        svid: svid_name,
        key,
        bundle: bundle_name,
    } = &config.names;
    let made = DirBuilder::new().create(&folder);
    let made = made.and_then(|()| open_to_readers(&folder));
    let written = made
        .map_err(|source| failed(&folder, source))
        .and_then(|()| {
            write_file(&folder.join(svid_name), svid.chain_pem().as_bytes(), 0o644)?;
            write_file(
                &folder.join(key),
                svid.key().to_pem().as_bytes(),
                config.key_mode,
            )?;
            write_file(&folder.join(bundle_name), bundle.to_pem().as_bytes(), 0o644)?;
            link(&config.dir, DATA, Path::new(&set))?;
            for name in [svid_name, key, bundle_name] {
                link(&config.dir, name, &Path::new(DATA).join(name))?;
            }
            Ok(())
        });
    // The old set goes, or, where something failed, the new one that does not count.
    tidy(&config.dir);
    written
}

/// Whether the files are there, fit together, and hold now.
///
/// # Errors
/// What is wrong with them.
pub fn check(config: &Config, now: SystemTime) -> Result<(), FilesError> {
    let data = config.dir.join(DATA);
    let path = |name: &String| data.join(name);
    let content = |path: &Path, reason: String| FilesError::Content {
        path: path.to_owned(),
        reason,
    };
    let (svid_path, key_path) = (path(&config.names.svid), path(&config.names.key));
    let pem = read(&svid_path)?;
    let chain: Result<Vec<_>, String> = CertificateDer::pem_slice_iter(&pem)
        .map(|der| {
            let der = der.map_err(|error| error.to_string())?;
            Certificate::from_der(&der).map_err(|error| error.to_string())
        })
        .collect();
    let chain = chain.map_err(|reason| content(&svid_path, reason))?;
    let key = read(&key_path)?;
    let key = str::from_utf8(&key).ok().map(PrivateKey::from_pem);
    let key = match key {
        Some(Ok(key)) => key,
        _ => return Err(content(&key_path, "holds no key".to_owned())),
    };
    let svid = X509Svid::new(chain, key).map_err(|error| content(&svid_path, error.to_string()))?;
    if svid.expires_at() <= now {
        return Err(content(&svid_path, "the SVID has expired".to_owned()));
    }
    read(&path(&config.names.bundle)).map(drop)
}

/// Whatever the umask; the volume's group, which the folder has from above, stays.
fn open_to_readers(folder: &Path) -> io::Result<()> {
    let group = std::fs::metadata(folder)?.permissions().mode() & 0o2000;
    std::fs::set_permissions(folder, Permissions::from_mode(0o755 | group))
}

fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), FilesError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    // The mode before the content, whatever the umask.
    let write = |mut file: std::fs::File| {
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)
    };
    file.and_then(write).map_err(|source| failed(path, source))
}

/// Makes a link, in place of one that was there.
fn link(dir: &Path, name: &str, to: &Path) -> Result<(), FilesError> {
    let path = dir.join(name);
    if std::fs::read_link(&path).is_ok_and(|there| there == to) {
        return Ok(());
    }
    let new = dir.join(format!("{SET}link"));
    let replace = || {
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(to, &new)?;
        std::fs::rename(&new, &path)
    };
    replace().map_err(|source| failed(&path, source))
}

/// Removes the sets that do not count. What stays, for whatever reason, is tried with the next set.
fn tidy(dir: &Path) {
    let current = std::fs::read_link(dir.join(DATA)).unwrap_or_default();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(SET) && Path::new(&name) != current {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FilesError> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> FilesError {
    FilesError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
