//! Listeners: unix sockets that know who is on the other end, and TLS.

mod authority;
mod peer;
mod tap;
mod tls;
mod unix;

use std::fmt;
use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

pub use authority::{Authority, Shim};
pub use peer::Peer;
pub use tap::{Tap, Tapped};
pub use tls::{TlsListener, TlsPeer, bind_tcp};
pub use unix::UnixListener;

/// Why a listener could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct ListenError {
    /// The socket path or the address.
    pub address: String,
    /// What is wrong, and what to do about it.
    pub reason: String,
}

/// Something that gives streams, each with what is known of its other end.
pub trait Listen: fmt::Display + Send + 'static {
    /// The bytes.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// What is known of the other end; put into each request's extensions.
    type Peer: Clone + fmt::Debug + Send + Sync + 'static;
    /// Who shares a limit of connections.
    type Key: Clone + Eq + std::hash::Hash + fmt::Debug + Send + Sync + 'static;
    /// Makes an accepted connection a stream; awaited in a task of its own.
    type Handshake: Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send + 'static;

    /// Waits for the next connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Key, Self::Handshake)>> + Send;
}
