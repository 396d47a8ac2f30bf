//! The agent's folder, bound into pods' volumes.
//!
//! The folder is bound, not the socket: so a volume may be there before the agent is, and shows the socket of each agent that
//! comes. On the host's side it stays writable, so that SELinux labels can be set; the kubelet mounts it read-only into
//! containers. When the folder itself was made anew, what was bound before is a folder nobody writes to any more: it is
//! known by its inode, and bound anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statvfs::statvfs;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::label::{Label, LabelError};
use super::target::{Place, Target, TargetError};

/// More mounts than this on top of each other are nobody's doing but a fault's.
const MAX_STACKED: usize = 64;

/// Why a volume cannot be mounted or taken away.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The path is none for a volume.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The folder that the volume is to be in is not there.
    #[error("the folder of {0} is not there")]
    NoParent(PathBuf),
    /// The agent's folder is not there.
    #[error("the agent's folder {folder} cannot be opened: {error}; see --workload-api-socket-dir")]
    NoSource {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        error: Errno,
    },
    /// The agent's folder cannot be labelled.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The system refuses.
    #[error("cannot {what} {path}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// What became of a look at a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The agent's folder is mounted.
    Good,
    /// Nothing is there.
    Missing,
    /// Nothing is mounted there.
    NotMounted,
    /// A folder is mounted that is not the agent's any more.
    Stale,
}

/// How much the volume's file system holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Free for ordinary users.
    pub available: u64,
    /// In all.
    pub total: u64,
}

/// Mounts and unmounts, one at a time.
#[derive(Debug)]
pub struct Mounts {
    source: PathBuf,
    pods: PathBuf,
    label: Option<Label>,
    /// The volumes that are published.
    published: Mutex<BTreeSet<PathBuf>>,
}

impl Mounts {
    /// `source` is the agent's folder, `pods` the kubelet's.
    #[must_use]
    pub const fn new(source: PathBuf, pods: PathBuf) -> Self {
        Self {
            source,
            pods,
            label: None,
            published: Mutex::new(BTreeSet::new()),
        }
    }

    /// With the agent's folder labelled for SELinux before it is shown.
    #[must_use]
    pub fn labelled(self, label: Option<Label>) -> Self {
        Self { label, ..self }
    }

    /// Labels the agent's folder, if it is there and that was asked for.
    ///
    /// # Errors
    /// When it cannot be labelled.
    pub fn label(&self) -> Result<(), LabelError> {
        self.source()
            .map_or(Ok(()), |source| self.put_label(&source))
    }

    fn put_label(&self, source: &Place) -> Result<(), LabelError> {
        let put = |label: &Label| label.put(&source.link(), &self.source);
        self.label.as_ref().map_or(Ok(()), put)
    }

    /// Makes the agent's folder visible at `path`. Once more changes nothing, unless the folder was made anew.
    ///
    /// # Errors
    /// See [`MountError`]; nothing is left mounted then.
    pub fn publish(&self, path: &Path) -> Result<(), MountError> {
        self.publish_in(&mut self.turn(), path)
    }

    fn publish_in(&self, published: &mut BTreeSet<PathBuf>, path: &Path) -> Result<(), MountError> {
        let target = Target::find(&self.pods, path)?;
        let target = target.ok_or_else(|| MountError::NoParent(path.to_owned()))?;
        let source = self.source()?;
        self.put_label(&source)?;
        match mkdirat(
            target.parent(),
            target.name.as_os_str(),
            Mode::from_bits_truncate(0o750),
        ) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(system("make", path, error)),
        }
        self.bind(&source, &target, path)?;
        published.insert(path.to_owned());
        Ok(())
    }

    /// Takes away what is at `path`, with its folder. What is not there is no error.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn unpublish(&self, path: &Path) -> Result<(), MountError> {
        let mut published = self.turn();
        if let Some(target) = Target::find(&self.pods, path)? {
            unmount(&target, path)?;
            match unlinkat(
                target.parent(),
                target.name.as_os_str(),
                UnlinkatFlags::RemoveDir,
            ) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(system("remove", path, error)),
            }
        }
        published.remove(path);
        Ok(())
    }

    /// Looks at the volume at `path`.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn health(&self, path: &Path) -> Result<Health, MountError> {
        let _turn = self.turn();
        self.look_at(path)
    }

    fn look_at(&self, path: &Path) -> Result<Health, MountError> {
        let Some(target) = Target::find(&self.pods, path)? else {
            return Ok(Health::Missing);
        };
        let Some(place) = target.open()? else {
            return Ok(Health::Missing);
        };
        if !is_mounted(&target, &place, path)? {
            return Ok(Health::NotMounted);
        }
        let same = self
            .source()
            .is_ok_and(|source| place.is(&source) == Ok(true));
        Ok(if same { Health::Good } else { Health::Stale })
    }

    /// How much the agent's folder can hold.
    ///
    /// # Errors
    /// When it is not there.
    pub fn usage(&self) -> Result<Usage, MountError> {
        let stat = statvfs(&self.source).map_err(|error| MountError::NoSource {
            folder: self.source.clone(),
            error,
        })?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        Ok(Usage {
            available: bytes(stat.blocks_available()),
            total: bytes(stat.blocks()),
        })
    }

    /// Binds anew what is stale; says how many volumes that were. What was unmounted or removed by others is forgotten.
    pub fn heal(&self) -> usize {
        let paths: Vec<_> = self.turn().iter().cloned().collect();
        paths.iter().filter(|path| self.heal_one(path)).count()
    }

    /// Whether it was bound anew. One turn for the look and what follows of it: the kubelet may take the volume away meanwhile.
    fn heal_one(&self, path: &Path) -> bool {
        let mut published = self.turn();
        if !published.contains(path) {
            return false;
        }
        match self.look_at(path) {
            // What is unmounted is the kubelet's to publish or to clean up, after a reboot for instance.
            Ok(Health::Good | Health::NotMounted) => {}
            Ok(Health::Missing) => {
                published.remove(path);
            }
            Ok(Health::Stale) => match self.publish_in(&mut published, path) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "the agent's folder was made anew: volume bound anew");
                    return true;
                }
                // Without an agent there is nothing to bind; its next folder will do.
                Err(MountError::NoSource { .. }) => {}
                Err(error) => tracing::warn!(%error, "a volume cannot be bound anew"),
            },
            Err(error) => tracing::warn!(%error, "a volume cannot be looked at"),
        }
        false
    }

    /// Whether the agent's folder, itself mounted into this container, was removed on the node: a new one under its path is
    /// not seen from here then, whatever is done.
    #[must_use]
    pub fn source_is_removed(&self) -> bool {
        self.source()
            .is_ok_and(|source| source.is_removed() == Ok(true))
    }

    /// Takes up volumes that an earlier run published.
    pub fn adopt(&self, paths: impl IntoIterator<Item = PathBuf>) {
        self.turn().extend(paths);
    }

    /// How many volumes are published.
    #[must_use]
    pub fn count(&self) -> usize {
        self.turn().len()
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, BTreeSet<PathBuf>> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self) -> Result<Place, MountError> {
        Place::trusted(&self.source).map_err(|error| MountError::NoSource {
            folder: self.source.clone(),
            error,
        })
    }

    /// Mounts `source` on `target` unless it is; never on top of anything else.
    fn bind(&self, source: &Place, target: &Target, path: &Path) -> Result<(), MountError> {
        let gone = || MountError::NoParent(path.to_owned());
        let place = target.open()?.ok_or_else(gone)?;
        if is_mounted(target, &place, path)? {
            if place
                .is(source)
                .map_err(|error| system("look at", path, error))?
            {
                return Ok(());
            }
            drop(place);
            unmount(target, path)?;
        }
        let place = target.open()?.ok_or_else(gone)?;
        const NOTHING: Option<&str> = None;
        let bound = mount(
            Some(&source.link()),
            &place.link(),
            NOTHING,
            MsFlags::MS_BIND,
            NOTHING,
        );
        bound.map_err(|error| system("mount the agent's folder on", path, error))?;
        let restricted = restrict(target, path);
        if restricted.is_err() {
            unmount(target, path)?;
        }
        restricted
    }
}

/// No devices, no programs, no set-user-ID: sockets need none of them.
fn restrict(target: &Target, path: &Path) -> Result<(), MountError> {
    const NOTHING: Option<&str> = None;
    let place = target.open()?;
    let place = place.ok_or_else(|| MountError::NoParent(path.to_owned()))?;
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    mount(NOTHING, &place.link(), NOTHING, flags, NOTHING)
        .map_err(|error| system("restrict the mount on", path, error))
}

/// Until nothing is mounted there.
fn unmount(target: &Target, path: &Path) -> Result<(), MountError> {
    for _ in 0..MAX_STACKED {
        let Some(place) = target.open()? else {
            return Ok(());
        };
        if !is_mounted(target, &place, path)? {
            return Ok(());
        }
        match umount2(&place.link(), MntFlags::MNT_DETACH) {
            // After a reboot, or when somebody was faster, there is nothing to unmount.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(system("unmount", path, error)),
        }
    }
    Err(system("unmount", path, Errno::EBUSY))
}

fn is_mounted(target: &Target, place: &Place, path: &Path) -> Result<bool, MountError> {
    target
        .is_mounted(place)
        .map_err(|error| MountError::System {
            what: "look at",
            path: path.to_owned(),
            error,
        })
}

fn system(what: &'static str, path: &Path, error: Errno) -> MountError {
    MountError::System {
        what,
        path: path.to_owned(),
        error: error.into(),
    }
}
