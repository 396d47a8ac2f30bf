//! Files that hold secrets: written whole or not at all, readable by their owner alone.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Which step on which file failed, and what would help.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}{}", .path.display(), hint(.source))]
pub struct FileError {
    /// The step: "write", "create the folder", ….
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Writes `bytes` to `path` so that a crash leaves either the old content or the new: temporary name in the same folder with mode
/// 0600, fsync, rename, fsync of the folder.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    todo!()
}

/// Reads a file that [`write_private`] wrote; `None` when there is none. Refuses one that everybody on the machine may read.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    todo!()
}

/// Removes a file and makes that lasting; one that is not there is fine.
pub fn remove(path: &Path) -> Result<(), FileError> {
    todo!()
}

/// Makes a folder with mode 0700, and the folders above it; one that is there is left as it is.
pub fn private_folder(path: &Path) -> Result<(), FileError> {
    todo!()
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, nothing was changed"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount it writable, or use another data folder",
        io::ErrorKind::PermissionDenied => "; it must belong to the user this program runs as",
        _ => "",
    }
}
