use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

/// The process on the other end of a unix socket, as the kernel knew it when it connected.
///
/// Held by a pidfd where the kernel gives one (SO_PEERPIDFD, Linux 6.5), else by its start time, so that another process under
/// the same number is never taken for it.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Held>);

#[derive(Debug)]
struct Held {
    pid: Option<u32>,
    uid: u32,
    gid: u32,
    by: By,
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

#[derive(Debug)]
enum By {
    Pidfd(OwnedFd),
    StartTime(u64),
}

impl Peer {
    /// Asks the kernel who is on the other end. To be called at accept, before anything is read.
    pub fn of(stream: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
        // The kernel gives 0 for a process outside our PID namespace.
        let pid = u32::try_from(credentials.pid())
            .ok()
            .filter(|pid| *pid != 0);
        let by = match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(pidfd) => By::Pidfd(pidfd),
            Err(Errno::ENOPROTOOPT) => By::StartTime(pid.map(start_time).transpose()?.unwrap_or(0)),
            Err(error) => return Err(error.into()),
        };
        Ok(Self(Arc::new(Held {
            pid,
            uid: credentials.uid(),
            gid: credentials.gid(),
            by,
            kept: OnceLock::new(),
        })))
    }

    /// The process; `None` when it lives outside our PID namespace.
    pub fn pid(&self) -> Option<u32> {
        self.0.pid
    }

    /// Its effective user ID when it connected.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// Its effective group ID when it connected.
    pub fn gid(&self) -> u32 {
        self.0.gid
    }

    /// The process itself, where the kernel gives it.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0.by {
            By::Pidfd(pidfd) => Some(pidfd.as_fd()),
            By::StartTime(_) => None,
        }
    }

    /// What a service keeps of this connection for as long as that lasts, made when first asked for; `None` when what is kept
    /// is of another type.
    pub fn kept<T: Default + Send + Sync + 'static>(&self) -> Option<&T> {
        let kept = self.0.kept.get_or_init(|| Box::new(T::default()));
        kept.downcast_ref()
    }

    /// Whether that very process still runs. Ask again after reading anything about it from `/proc`.
    pub fn is_alive(&self) -> bool {
        match (&self.0.by, self.0.pid) {
            (By::Pidfd(pidfd), _) => !has_exited(pidfd.as_fd()),
            (By::StartTime(then), Some(pid)) => start_time(pid).is_ok_and(|now| now == *then),
            (By::StartTime(_), None) => false,
        }
    }
}

/// A pidfd reads as ready once its process has ended.
fn has_exited(pidfd: BorrowedFd<'_>) -> bool {
    let mut descriptors = [PollFd::new(pidfd, PollFlags::POLLIN)];
    loop {
        match poll(&mut descriptors, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            Ok(0) => return false,
            _ => return true,
        }
    }
}

/// When a process started, in clock ticks after boot (proc_pid_stat(5), field 22).
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat).ok_or_else(|| io::Error::other("cannot read /proc/<pid>/stat"))
}

/// The command name stands in brackets and may hold anything, brackets and newlines too: what counts comes after the last one.
fn parse_start_time(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_this_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.pid(), Some(std::process::id()));
        assert_eq!(peer.uid(), nix::unistd::geteuid().as_raw());
        assert_eq!(peer.gid(), nix::unistd::getegid().as_raw());
        assert!(peer.is_alive());
    }

    #[test]
    fn s_2_a_dead_peer_is_not_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut child = Caller::start(&path);
        let (stream, _) = listener.accept().unwrap();
        let pid = child.0.id();
        let peer = Peer::of(&stream).unwrap();
        let by_start_time = Peer(Arc::new(Held {
            pid: Some(pid),
            uid: 0,
            gid: 0,
            by: By::StartTime(start_time(pid).unwrap()),
            kept: OnceLock::new(),
        }));
        assert_eq!(peer.pid(), Some(pid));
        assert!(peer.is_alive() && by_start_time.is_alive());
        child.end();
        assert!(!peer.is_alive() && !by_start_time.is_alive());
    }

    /// This test binary once more, connected to a socket until its standard input ends.
    struct Caller(Child);

    impl Caller {
        fn start(path: &Path) -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "listen::peer::tests::caller", "--ignored"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let stdin = child.stdin.as_mut().unwrap();
            writeln!(stdin, "{}", path.display()).unwrap();
            Self(child)
        }

        fn end(&mut self) {
            drop(self.0.stdin.take());
            self.0.wait().unwrap();
        }
    }

    #[test]
    #[ignore = "the other process of the test above"]
    fn caller() {
        let mut lines = std::io::stdin().lines();
        let Some(path) = lines.next() else { return };
        let _connected = UnixStream::connect(path.unwrap()).unwrap();
        assert!(lines.next().is_none());
    }

    #[test]
    fn s_2_another_process_under_the_same_number_is_not_it() {
        let pid = std::process::id();
        let by = By::StartTime(start_time(pid).unwrap() + 1);
        let peer = Peer(Arc::new(Held {
            pid: Some(pid),
            uid: 0,
            gid: 0,
            by,
            kept: OnceLock::new(),
        }));
        assert!(!peer.is_alive());
    }

    proptest! {
        #[test]
        fn as_04_no_command_name_misleads(comm in proptest::collection::vec(any::<u8>(), 0..32), start: u64) {
            let mut stat = b"7 (".to_vec();
            stat.extend(comm);
            stat.extend(b") R 1 1 1 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 ");
            stat.extend(start.to_string().as_bytes());
            stat.extend(b" 1000 200 18446744073709551615\n");
            prop_assert_eq!(parse_start_time(&stat), Some(start));
        }

        #[test]
        fn no_stat_panics(stat: Vec<u8>) {
            let _ = parse_start_time(&stat);
        }
    }
}
