use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::{ListenError, Peer};

/// A unix socket.
#[derive(Debug)]
pub struct UnixListener {
    path: PathBuf,
}

impl UnixListener {
    /// Binds a socket with exactly `mode` (0o777 for everybody, 0o770 for owner and group), whatever the umask, set before anybody can
    /// connect. The folders above it are made. A socket left by a dead process is replaced; a living one is not.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ListenError> {
        todo!()
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
