//! One process under `/proc`, held so that it cannot turn into another one with the same PID.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::fcntl::{AtFlags, OFlag, open, openat, readlink};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use runtime::Peer;

use super::AttestError;

/// Upper bound of what is read of a file: `status` with the most groups Linux allows, 65 536, stays below.
const MAX_LEN: u64 = 1 << 20;

/// A process's folder under `/proc`. Once the process has ended, reads fail; they never see a successor.
pub(super) struct Process {
    folder: OwnedFd,
    pid: u32,
}

/// Whom a process acts as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Credentials {
    /// Effective user ID.
    pub(super) uid: u32,
    /// Effective group ID.
    pub(super) gid: u32,
    /// Supplementary group IDs.
    pub(super) groups: Vec<u32>,
}

/// The program a process runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Program {
    /// As the kernel names it: within the process's own mount namespace; ends with ` (deleted)` when it was.
    pub(super) path: OsString,
    /// The file itself.
    pub(super) file: FileId,
}

/// A program's file, whatever becomes of the process that runs it.
pub(super) struct ProgramFile(OwnedFd);

/// Tells one content of a file from another. The times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    modified: i128,
    changed: i128,
    /// In bytes.
    pub(super) size: u64,
}

/// Fails when the process behind `peer` has ended.
pub(super) fn check_alive(peer: &Peer) -> Result<(), AttestError> {
    if peer.is_alive() {
        Ok(())
    } else {
        Err(AttestError::Gone {
            pid: peer.pid().unwrap_or_default(),
        })
    }
}

impl Process {
    /// The process behind `peer`.
    pub(super) fn open(peer: &Peer) -> Result<Self, AttestError> {
        let pid = peer.pid().ok_or(AttestError::OutOfSight)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(format!("/proc/{pid}").as_str(), flags, Mode::empty());
        // Alive after the folder was opened: so it was the peer's, and not a successor's.
        check_alive(peer)?;
        let folder = folder.map_err(|error| unreadable("the /proc folder", pid, error))?;
        Ok(Self { folder, pid })
    }

    /// Whom it acts as, from `status`.
    pub(super) fn credentials(&self) -> Result<Credentials, AttestError> {
        const WHAT: &str = "status";
        let status = self.read(WHAT)?;
        parse_status(&status)
            .ok_or_else(|| unreadable(WHAT, self.pid, io::Error::from(io::ErrorKind::InvalidData)))
    }

    /// Its cgroups, a line for each hierarchy.
    pub(super) fn cgroup(&self) -> Result<String, AttestError> {
        // A name may be anything but a line; what is no text is no container's.
        let cgroup = self.read("cgroup")?;
        Ok(String::from_utf8_lossy(&cgroup).into_owned())
    }

    /// What it runs. Name and content come from one opened handle: a process that calls `exec` meanwhile is never seen
    /// as half of each program.
    pub(super) fn program(&self) -> io::Result<(Program, ProgramFile)> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let handle = ProgramFile(openat(&self.folder, "exe", flags, Mode::empty())?);
        let path = readlink(handle.link().as_str())?;
        let file = FileId::from(&fstat(&handle.0)?);
        Ok((Program { path, file }, handle))
    }

    /// Whether it still runs the program it did.
    pub(super) fn still_runs(&self, program: &Program) -> bool {
        let now = fstatat(&self.folder, "exe", AtFlags::empty());
        now.is_ok_and(|now| FileId::from(&now) == program.file)
    }

    fn read(&self, what: &'static str) -> Result<Vec<u8>, AttestError> {
        let failed = |error| unreadable(what, self.pid, error);
        let mut content = Vec::with_capacity(2048);
        let file = self.file(what).map_err(failed)?;
        file.take(MAX_LEN)
            .read_to_end(&mut content)
            .map_err(failed)?;
        Ok(content)
    }

    fn file(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(openat(&self.folder, name, flags, Mode::empty())?.into())
    }
}

impl ProgramFile {
    /// Opens it for reading.
    pub(super) fn open(&self) -> io::Result<File> {
        File::open(self.link())
    }

    fn link(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

impl FileId {
    /// Which file an open one is.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&fstat(file)?))
    }
}

impl From<&FileStat> for FileId {
    fn from(stat: &FileStat) -> Self {
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
        }
    }
}

fn unreadable(what: &'static str, pid: u32, source: impl Into<io::Error>) -> AttestError {
    AttestError::Unreadable {
        what,
        pid,
        source: source.into(),
    }
}

/// The lines `Uid:`, `Gid:` (real, effective, saved, file system) and `Groups:`. The kernel escapes line ends in the
/// process's name, the only text in there that the process chooses.
fn parse_status(status: &[u8]) -> Option<Credentials> {
    let numbers = |name: &[u8]| -> Option<Vec<u32>> {
        let line = status
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(name))?;
        str::from_utf8(line)
            .ok()?
            .split_ascii_whitespace()
            .map(|number| number.parse().ok())
            .collect()
    };
    Some(Credentials {
        uid: *numbers(b"Uid:")?.get(1)?,
        gid: *numbers(b"Gid:")?.get(1)?,
        groups: numbers(b"Groups:")?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_effective_ids_are_read() {
        let status = b"Name:\tweb\nUmask:\t0022\nPid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t4 24 1000 \n";
        let expected = Credentials {
            uid: 2,
            gid: 6,
            groups: vec![4, 24, 1000],
        };
        assert_eq!(parse_status(status), Some(expected));
    }

    /// A name may hold anything, but the kernel escapes line ends in it.
    #[test]
    fn as_04_a_hostile_name_changes_nothing() {
        let status =
            b"Name:\t) R 1 (\\nUid:\t0\t0\t0\t0 \xff\nUid:\t9\t9\t9\t9\nGid:\t9\t9\t9\t9\nGroups:\t\n";
        let expected = Credentials {
            uid: 9,
            gid: 9,
            groups: vec![],
        };
        assert_eq!(parse_status(status), Some(expected));
    }

    #[test]
    fn a_status_without_its_lines_is_refused() {
        assert_eq!(parse_status(b""), None);
        assert_eq!(
            parse_status(b"Uid:\t1\nGid:\t1\t1\t1\t1\nGroups:\t\n"),
            None
        );
        assert_eq!(parse_status(b"Uid:\t-1\t-1\nGid:\t1\t1\nGroups:\t\n"), None);
        assert_eq!(parse_status(b"Uid:\t1\t1\nGid:\t1\t1\n"), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(status in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_status(&status);
        }
    }
}
