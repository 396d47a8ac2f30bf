//! Where the programs of a test cluster keep their files: in memory where the machine has some to spare. On a disk that
//! another program fills, every write of etcd, of a log and of a database waits for that program, for minutes on end.

use std::io;
use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tempfile::{Builder, TempDir};

const MEMORY: &str = "/dev/shm";
const DISK: &str = "/tmp";

/// What a cluster and its node have been seen to need, several times over.
const ENOUGH: u64 = 2 << 30;

/// A new folder with a short path: sockets are made in it, whose paths may hold 107 bytes.
pub(crate) fn fresh(prefix: &str) -> io::Result<TempDir> {
    let mut builder = Builder::new();
    builder.prefix(prefix);
    if roomy(Path::new(MEMORY))
        && let Ok(folder) = builder.tempdir_in(MEMORY)
    {
        return Ok(folder);
    }
    builder.tempdir_in(DISK)
}

fn roomy(memory: &Path) -> bool {
    statfs(memory).is_ok_and(|about| {
        let block = u64::try_from(about.block_size()).unwrap_or_default();
        about.filesystem_type() == TMPFS_MAGIC && about.blocks_available() * block >= ENOUGH
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_has_a_tmpfs_of_some_size() {
        assert!(!roomy(Path::new("/proc")));
        assert!(!roomy(Path::new("/nowhere")));
        let folder = fresh("sgt").expect("a folder can be made");
        let expected = if roomy(Path::new(MEMORY)) {
            MEMORY
        } else {
            DISK
        };
        assert!(folder.path().starts_with(expected), "{folder:?}");
    }
}
