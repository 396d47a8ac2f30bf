//! Free loopback ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};

/// A port nobody listens on right now. The kernel hands ephemeral ports out in turn, so the gap until it is bound is safe
/// enough for tests; a clash shows as "address in use" in that process's log.
///
/// # Errors
/// When no port can be bound on loopback.
pub fn free() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a loopback port")?;
    Ok(listener.local_addr()?.port())
}

/// `port` on 127.0.0.1.
#[must_use]
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
