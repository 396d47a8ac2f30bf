//! Where a volume may appear: below the kubelet's folder of pods, and nowhere that a symbolic link leads to.
//!
//! What the kubelet names is not believed to be what is there: a pod can put symbolic links into its own volumes. So every
//! step of the way is taken by the kernel under `openat2`'s rules, and what was opened is what is mounted on.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, fstat};

/// Why a path is none that a volume may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It lies elsewhere.
    #[error("{path} is not below {pods}, where pods' volumes are; see --pods-dir")]
    Elsewhere {
        /// The path.
        path: PathBuf,
        /// The kubelet's folder of pods.
        pods: PathBuf,
    },
    /// A symbolic link, or something else that is no folder, is on the way.
    #[error("{0} is reached by a symbolic link, or is no folder")]
    Link(PathBuf),
    /// It cannot be opened.
    #[error("cannot open {path}: {error}")]
    Open {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: Errno,
    },
}

/// A place for a volume: an open folder, and a name in it.
#[derive(Debug)]
pub(super) struct Target {
    parent: OwnedFd,
    pub(super) name: OsString,
    path: PathBuf,
}

impl Target {
    /// Finds the folder that `path` is in; `None` when there is none.
    pub(super) fn find(pods: &Path, path: &Path) -> Result<Option<Self>, TargetError> {
        let (inner, name) = split(pods, path)?;
        let failed = |error| match error {
            Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV => TargetError::Link(path.to_owned()),
            error => TargetError::Open {
                path: path.to_owned(),
                error,
            },
        };
        let root =
            open(pods, folder_flags(), Mode::empty()).map_err(|error| TargetError::Open {
                path: pods.to_owned(),
                error,
            })?;
        match beneath(&root, &inner) {
            Ok(parent) => Ok(Some(Self {
                parent,
                name,
                path: path.to_owned(),
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The folder the name is in.
    pub(super) const fn parent(&self) -> &OwnedFd {
        &self.parent
    }

    /// What is there now: the folder itself, or the root of what is mounted on it. `None`: nothing.
    pub(super) fn open(&self) -> Result<Option<Place>, TargetError> {
        match beneath(&self.parent, Path::new(&self.name)) {
            Ok(fd) => Ok(Some(Place(fd))),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP | Errno::ENOTDIR) => Err(TargetError::Link(self.path.clone())),
            Err(error) => Err(TargetError::Open {
                path: self.path.clone(),
                error,
            }),
        }
    }

    /// Whether something is mounted on `place`, which was opened here.
    pub(super) fn is_mounted(&self, place: &Place) -> std::io::Result<bool> {
        Ok(mount_id(&self.parent)? != mount_id(&place.0)?)
    }
}

/// An open folder.
#[derive(Debug)]
pub(super) struct Place(OwnedFd);

impl Place {
    /// Opens a folder by its path, which is trusted.
    pub(super) fn trusted(path: &Path) -> nix::Result<Self> {
        open(path, folder_flags(), Mode::empty()).map(Self)
    }

    /// Whether the folder was removed, and is there only for those who hold it (or have it mounted).
    pub(super) fn is_removed(&self) -> nix::Result<bool> {
        Ok(fstat(&self.0)?.st_nlink == 0)
    }

    /// A path that leads the kernel to just this folder.
    pub(super) fn link(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// Whether both are the same folder, however they were reached.
    pub(super) fn is(&self, other: &Self) -> nix::Result<bool> {
        let id = |stat: FileStat| (stat.st_dev, stat.st_ino);
        Ok(id(fstat(&self.0)?) == id(fstat(&other.0)?))
    }
}

/// The folder below `pods` and the last name.
fn split(pods: &Path, path: &Path) -> Result<(PathBuf, OsString), TargetError> {
    let elsewhere = || TargetError::Elsewhere {
        path: path.to_owned(),
        pods: pods.to_owned(),
    };
    let below = path.strip_prefix(pods).map_err(|_| elsewhere())?;
    let names: Vec<&OsStr> = below
        .components()
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(elsewhere()),
        })
        .collect::<Result<_, _>>()?;
    // A pod's own folder is no volume's.
    match names.split_last() {
        Some((name, folders)) if !folders.is_empty() => {
            Ok((folders.iter().collect(), (*name).to_owned()))
        }
        _ => Err(elsewhere()),
    }
}

fn folder_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

fn beneath(folder: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let rules = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(
        folder,
        path,
        OpenHow::new().flags(folder_flags()).resolve(rules),
    )
}

/// Which mount an open file is on (proc_pid_fdinfo(5)).
fn mount_id(file: &impl AsFd) -> std::io::Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd());
    let mut text = String::new();
    File::open(path)?.read_to_string(&mut text)?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.and_then(|id| id.trim().parse().ok())
        .ok_or_else(|| std::io::Error::other("fdinfo tells no mnt_id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(path: &str) -> bool {
        split(Path::new("/var/lib/kubelet/pods"), Path::new(path)).is_ok()
    }

    #[test]
    fn csi_06_only_places_below_the_pods_are_taken() {
        assert!(inside(
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount"
        ));
        for path in [
            "",
            "/",
            "relative",
            "/etc/passwd",
            "/var/lib/kubelet/pods",
            "/var/lib/kubelet/pods/u",
            "/var/lib/kubelet/podsx/u/mount",
            "/var/lib/kubelet/pods/../../../etc/x",
            "/var/lib/kubelet/pods/u/../../x/y",
        ] {
            assert!(!inside(path), "{path}");
        }
    }

    #[test]
    fn csi_06_symbolic_links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let (pods, outside) = (folder.path().join("pods"), folder.path().join("outside"));
        std::fs::create_dir_all(pods.join("u/volumes")).unwrap();
        std::fs::create_dir_all(outside.join("inner")).unwrap();
        std::os::unix::fs::symlink(&outside, pods.join("u/link")).unwrap();
        std::os::unix::fs::symlink(pods.join("u/volumes"), pods.join("u/near")).unwrap();
        std::os::unix::fs::symlink(&outside, pods.join("u/volumes/mount")).unwrap();
        std::fs::write(pods.join("u/volumes/file"), "").unwrap();
        for path in ["u/link/inner", "u/near/x", "u/volumes/file/x"] {
            let found = Target::find(&pods, &pods.join(path));
            assert!(
                matches!(found, Err(TargetError::Link(_))),
                "{path}: {found:?}"
            );
        }
        for path in ["u/volumes/mount", "u/volumes/file"] {
            let target = Target::find(&pods, &pods.join(path)).unwrap().unwrap();
            let found = target.open();
            assert!(
                matches!(found, Err(TargetError::Link(_))),
                "{path}: {found:?}"
            );
        }
        assert!(
            Target::find(&pods, &pods.join("gone/x/mount"))
                .unwrap()
                .is_none()
        );
    }
}
