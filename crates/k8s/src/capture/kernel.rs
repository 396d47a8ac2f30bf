//! One batch of messages to the kernel's nf_tables, and its answer.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket,
};
use nix::sys::time::TimeVal;

use super::message::Batch;

/// The kernel answers before `sendto` returns; this bounds what cannot happen.
const BOUND_SECONDS: i64 = 5;
/// A netlink message of the kernel's, at most.
const LONGEST_ANSWER: usize = 64 * 1024;
const HEADER: usize = 16;
const ERROR: u16 = 2;

/// Why the kernel did not take a batch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No nf_tables in this kernel.
    #[error(
        "this kernel has no nf_tables ({0}): load the modules nf_tables and nft_redir on the node, or take signet.dev/capture off the pod"
    )]
    NoNfTables(Errno),
    /// Not allowed to.
    #[error(
        "not allowed to set packet filter rules ({0}): run with the capability NET_ADMIN in the network namespace's own user namespace"
    )]
    NotAllowed(Errno),
    /// A message was refused; nothing of the batch holds.
    #[error("the kernel refuses `{step}`: {errno}; nothing was changed")]
    Refused {
        /// What it was to do.
        step: String,
        /// Why not.
        errno: Errno,
    },
    /// The socket failed.
    #[error("netlink: {what}: {errno}")]
    Socket {
        /// At what.
        what: &'static str,
        /// How.
        errno: Errno,
    },
    /// No answer, or none that can be read.
    #[error("netlink: the kernel's answer says neither yes nor no")]
    NoAnswer,
}

/// Sends a batch and waits until it holds.
pub(super) fn send(batch: &Batch) -> Result<(), Error> {
    let socket = open()?;
    let failed = |what| move |errno| Error::Socket { what, errno };
    // All goes in one message; the usual buffer holds some hundred rules.
    setsockopt(&socket, SndBufForce, &(batch.bytes.len() * 2 + 4096)).map_err(not_allowed)?;
    let to = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &batch.bytes, &to, MsgFlags::empty()).map_err(
        |errno| match errno {
            Errno::EPERM => Error::NotAllowed(errno),
            errno => failed("send")(errno),
        },
    )?;
    let mut answered = false;
    let mut buffer = vec![0; LONGEST_ANSWER];
    let mut flags = MsgFlags::empty();
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, flags) {
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) if answered => return Ok(()),
            Err(Errno::EAGAIN) => return Err(Error::NoAnswer),
            Err(errno) => return Err(failed("receive")(errno)),
        };
        read(&buffer[..length], batch)?;
        answered = true;
        flags = MsgFlags::MSG_DONTWAIT;
    }
}

fn open() -> Result<OwnedFd, Error> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
    .map_err(|errno| match errno {
        Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => Error::NoNfTables(errno),
        errno => Error::Socket {
            what: "open",
            errno,
        },
    })?;
    let failed = |what| move |errno| Error::Socket { what, errno };
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(BOUND_SECONDS, 0))
        .map_err(failed("set a bound"))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed("bind"))?;
    Ok(socket)
}

fn not_allowed(errno: Errno) -> Error {
    match errno {
        Errno::EPERM => Error::NotAllowed(errno),
        errno => Error::Socket {
            what: "make room for the rules",
            errno,
        },
    }
}

/// Reads the messages of one answer: a refusal is an error, an acknowledgement is none.
pub(super) fn read(mut answer: &[u8], batch: &Batch) -> Result<(), Error> {
    while !answer.is_empty() {
        let length = word(answer, 0).ok_or(Error::NoAnswer)?;
        let length = usize::try_from(length).map_err(|_| Error::NoAnswer)?;
        if length < HEADER || length > answer.len() {
            return Err(Error::NoAnswer);
        }
        let message = &answer[..length];
        if u16::from_ne_bytes([message[4], message[5]]) == ERROR {
            let code = word(message, HEADER).ok_or(Error::NoAnswer)?;
            let number = word(message, 8).ok_or(Error::NoAnswer)?;
            refusal(code.cast_signed(), number, batch)?;
        }
        answer = &answer[length.next_multiple_of(4).min(answer.len())..];
    }
    Ok(())
}

fn refusal(code: i32, number: u32, batch: &Batch) -> Result<(), Error> {
    let errno = Errno::from_raw(code.saturating_neg());
    match errno {
        _ if code == 0 => Ok(()),
        Errno::EPERM => Err(Error::NotAllowed(errno)),
        // What the kernel says of a batch for a subsystem it does not have.
        Errno::EOPNOTSUPP if number == 0 => Err(Error::NoNfTables(errno)),
        errno => {
            let step = usize::try_from(number)
                .ok()
                .and_then(|at| batch.steps.get(at));
            let step = step.cloned().unwrap_or_default();
            Err(Error::Refused { step, errno })
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
