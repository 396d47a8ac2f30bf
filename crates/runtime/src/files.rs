//! Files that hold secrets: written whole or not at all, readable by their owner alone.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

/// How often and at what pace a folder's lock is tried: for two seconds.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Which step on which file failed, and what would help.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}{}", .path.display(), hint(.source))]
pub struct FileError {
    /// The step: `write`, `read`, `remove`, `make the folder`, `replace`.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Writes `bytes` to `path` so that a crash leaves either the old content or the new: a temporary name in the same folder with mode
/// 0600, fsync, rename, fsync of the folder. Temporary files that a crash left are removed. One writer process per file.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let temporary = temporary_name(path);
    let written = replace(path, &temporary, bytes);
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Reads a file that [`write_private`] wrote; `None` when there is none. Refuses one that everybody on the machine may read.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    let read = || -> io::Result<Zeroizing<Vec<u8>>> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.mode() & 0o007 != 0 {
            return Err(io::Error::other(format!(
                "everybody may read it (mode {:03o}); chmod it to 600, and replace the secret if others had access",
                metadata.mode() & 0o777
            )));
        }
        // Room for all of it at once, so that no copy stays behind in memory.
        let length = usize::try_from(metadata.len()).unwrap_or_default();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path, source)),
    }
}

/// Removes a file and makes that lasting; one that is not there is fine.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_folder(folder_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed("remove", path, source)),
    }
}

/// A folder that no other process takes while this is held; one that ends lets go of it, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Takes a folder for this process alone, by a lock on the file `.lock` in it. Waits a moment for a process that is ending.
pub async fn lock_folder(folder: &Path) -> Result<FolderLock, FileError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(folder.join(".lock"))
        .map_err(|source| failed("write to", folder, source))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(FolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(source)) => return Err(failed("lock", folder, source)),
        }
    }
    Err(failed("use", folder, io::ErrorKind::ResourceBusy.into()))
}

/// Makes a folder with mode 0700, and the folders above it; one that is there is left as it is.
pub fn private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| failed("make the folder", path, source))
}

fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || -> io::Result<()> {
        match std::fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| failed("write", path, source))?;
    std::fs::rename(temporary, path).map_err(|source| failed("replace", path, source))?;
    sync_folder(folder_of(path))
}

fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| failed("write", folder, source))
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> FileError {
    FileError {
        action,
        path: path.to_owned(),
        source,
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, nothing was changed"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount it writable, or use another data folder",
        io::ErrorKind::PermissionDenied => "; it must belong to the user this program runs as",
        io::ErrorKind::NotFound => "; its folder does not exist",
        io::ErrorKind::ResourceBusy => {
            "; it is in use: another process has it, stop that one first or use another folder"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn s_8_what_is_written_is_private_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        private_folder(&data).unwrap();
        let path = data.join("keys.json");
        assert_eq!(read_private(&path).unwrap(), None);
        write_private(&path, b"old").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(read_private(&path).unwrap().unwrap().as_slice(), b"new");
        assert_eq!((mode(&path), mode(&data)), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn s_8_an_open_file_becomes_private_when_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = read_private(&path).unwrap_err().to_string();
        assert!(refused.contains("everybody may read it"), "{refused}");
        write_private(&path, b"new").unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn what_a_crash_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(folder.path().join(".keys.json.tmp"), "half").unwrap();
        write_private(&path, b"whole").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, "untouched").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join(".keys.json.tmp")).unwrap();
        write_private(&folder.path().join("keys.json"), b"whole").unwrap();
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "untouched");
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_is_one_processs_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock_folder(folder.path()).await.unwrap();
        let error = lock_folder(folder.path()).await.unwrap_err().to_string();
        let shown = folder.path().display();
        assert!(
            error.starts_with(&format!("cannot use {shown}: ")),
            "{error}"
        );
        assert!(error.contains("in use: another process has it"), "{error}");
        let (second, ()) = tokio::join!(lock_folder(folder.path()), async {
            tokio::time::sleep(LOCK_PAUSE).await;
            drop(first);
        });
        assert_eq!(mode(&folder.path().join(".lock")), 0o600);
        drop(second.unwrap());
    }

    #[test]
    fn errors_say_which_file_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/keys.json");
        let error = write_private(&path, b"").unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot write {}", path.display())),
            "{error}"
        );
        assert!(error.ends_with("its folder does not exist"), "{error}");
        let full = failed("write", &path, io::ErrorKind::StorageFull.into()).to_string();
        assert!(full.contains("free some space"), "{full}");
    }
}
