use std::fs::{DirBuilder, File, Permissions};
use std::future::{Ready, ready};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use tokio::net::{UnixSocket, UnixStream};

use super::authority::{Authority, Shim};
use super::{Listen, ListenError, Peer};

/// The longest path the kernel takes (sockaddr_un, without its final NUL), in bytes.
const MAX_PATH: usize = 107;

const BACKLOG: u32 = 1024;

/// How often and at what pace the folder's lock is tried: for a second.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// A unix socket. Its file is removed when the listener is dropped.
///
/// Its streams make the `:authority` of gRPC's C-core clients one that HTTP libraries take, see [`Shim`].
#[derive(Debug)]
pub struct UnixListener {
    listener: tokio::net::UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl UnixListener {
    /// Binds a socket with exactly `mode` (0o777 for everybody, 0o770 for owner and group), whatever the umask, set before anybody can
    /// connect. The folders above it are made. A socket left by a dead process is replaced; a living one is not.
    ///
    /// Must be called within a tokio runtime.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ListenError> {
        Self::bind_to(path, mode).map_err(|reason| ListenError {
            address: path.display().to_string(),
            reason,
        })
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn bind_to(path: &Path, mode: u32) -> Result<Self, String> {
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            return Err(format!(
                "the path has {length} bytes, and a unix socket's has at most {MAX_PATH}: use a shorter one"
            ));
        }
        let folder = path.parent().ok_or("give the path of a file")?;
        make_folder(folder, mode)?;
        check_folder(folder)?;
        // Two of us that start at once would each take the other's new socket for a stale one.
        let _turn = lock(folder)?;
        remove_stale(path)?;

        let error = |error: io::Error| error.to_string();
        let socket = UnixSocket::new_stream().map_err(error)?;
        socket.bind(path).map_err(error)?;
        // Nobody can connect before `listen`.
        std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(error)?;
        let listener = socket.listen(BACKLOG).map_err(error)?;
        let metadata = path.symlink_metadata().map_err(error)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: (metadata.dev(), metadata.ino()),
        })
    }
}

impl Listen for UnixListener {
    type Stream = Shim<UnixStream>;
    type Peer = Peer;
    type Key = u32;
    type Handshake = Ready<io::Result<(Self::Stream, Peer)>>;

    async fn accept(&mut self) -> io::Result<(u32, Self::Handshake)> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match Peer::of(&stream) {
                Ok(peer) => {
                    return Ok((
                        peer.uid(),
                        ready(Ok((Shim::new(stream, Authority::default()), peer))),
                    ));
                }
                Err(error) => tracing::debug!(%error, "a caller had gone before it was accepted"),
            }
        }
    }
}

impl fmt::Display for UnixListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl Drop for UnixListener {
    fn drop(&mut self) {
        // Somebody may have replaced it already.
        let ours = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino()) == self.file;
        if self.path.symlink_metadata().is_ok_and(ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Everybody who may use the socket must be able to pass the folders made for it.
fn make_folder(folder: &Path, mode: u32) -> Result<(), String> {
    if folder.as_os_str().is_empty() || folder.exists() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above, mode)?;
    }
    let folder_mode = if mode & 0o007 == 0 { 0o750 } else { 0o755 };
    DirBuilder::new()
        .mode(folder_mode)
        .create(folder)
        .and_then(|()| std::fs::set_permissions(folder, Permissions::from_mode(folder_mode)))
        .or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(format!(
                "cannot make the folder {}: {error}",
                folder.display()
            )),
        })
}

/// Whoever may change the folder may put a socket of their own in place of ours.
fn check_folder(folder: &Path) -> Result<(), String> {
    let folder = nonempty(folder);
    let shown = folder.display();
    let metadata = folder
        .metadata()
        .map_err(|error| format!("cannot look at the folder {shown}: {error}"))?;
    if !metadata.is_dir() {
        return Err(format!("{shown} is not a folder"));
    }
    let owner = metadata.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(format!(
            "the folder {shown} belongs to uid {owner}, who could replace the socket: use a folder of root or of this program's user"
        ));
    }
    let (for_all, sticky) = (0o002, 0o1000);
    if metadata.mode() & for_all != 0 && metadata.mode() & sticky == 0 {
        return Err(format!(
            "everybody may write to the folder {shown} and so replace the socket: chmod it to 755"
        ));
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<Flock<File>, String> {
    let folder = nonempty(folder);
    let shown = folder.display();
    let mut file =
        File::open(folder).map_err(|error| format!("cannot open the folder {shown}: {error}"))?;
    // Another start holds the lock for a moment only; whoever holds it for longer must not stop this one in silence.
    for _ in 0..LOCK_TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((again, Errno::EWOULDBLOCK)) => file = again,
            Err((_, error)) => return Err(format!("cannot lock the folder {shown}: {error}")),
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(format!(
        "another process holds a lock on the folder {shown}: `lsof {shown}` tells which; end it or use another folder"
    ))
}

fn remove_stale(path: &Path) -> Result<(), String> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if !metadata.file_type().is_socket() {
        return Err(
            "something that is not a socket is already there: remove it or use another path"
                .to_owned(),
        );
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
                .map_err(|error| format!("cannot remove the stale socket: {error}"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(
            "in use: another process listens on it; stop that one first or use another path"
                .to_owned(),
        ),
        Err(error) => Err(format!(
            "a socket is already there and cannot be tried: {error}"
        )),
    }
}

fn nonempty(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    }
}
