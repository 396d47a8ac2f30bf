use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use tokio::net::UnixStream;

/// The process on the other end of a unix socket, as the kernel knew it when it connected.
///
/// Held by a pidfd where the kernel gives one (SO_PEERPIDFD, Linux 6.5), else by its start time, so that another process under
/// the same number is never taken for it.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Held>);

#[derive(Debug)]
struct Held {}

impl Peer {
    /// Asks the kernel who is on the other end.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        todo!()
    }

    /// The process; `None` when it lives outside our PID namespace.
    pub fn pid(&self) -> Option<u32> {
        todo!()
    }

    /// Its effective user ID when it connected.
    pub fn uid(&self) -> u32 {
        todo!()
    }

    /// Its effective group ID when it connected.
    pub fn gid(&self) -> u32 {
        todo!()
    }

    /// The process itself, where the kernel gives it.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        todo!()
    }

    /// Whether that very process still runs. Ask again after reading anything about it from `/proc`.
    pub fn is_alive(&self) -> bool {
        todo!()
    }
}
