//! Sockets and addresses in other network namespaces. A socket belongs to the namespace it was made in, so a thread that
//! enters the namespace, makes the socket and ends is enough; the socket is then used from here.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const CONNECT_BOUND: Duration = Duration::from_secs(5);

/// A network namespace, held by a process; none is the machine's own.
#[derive(Clone, Debug)]
pub(crate) struct NetNs(Option<PathBuf>);

impl NetNs {
    pub(crate) fn of(pid: u32) -> Self {
        Self(Some(PathBuf::from(format!("/proc/{pid}/ns/net"))))
    }

    pub(crate) fn machine() -> Self {
        Self(None)
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// A connection from inside.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        let stream = self
            .inside(move || {
                let stream = StdStream::connect_timeout(&address, CONNECT_BOUND)?;
                stream.set_nonblocking(true)?;
                Ok(stream)
            })
            .await
            .with_context(|| format!("connect to {address} in a pod"))?;
        Ok(TcpStream::from_std(stream)?)
    }

    /// A listener inside.
    pub(crate) async fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        let listener = self
            .inside(move || {
                let listener = StdListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            })
            .await
            .with_context(|| format!("listen on {address}"))?;
        Ok(TcpListener::from_std(listener)?)
    }

    /// `ip` with these lines of its batch form.
    pub(crate) async fn ip(&self, lines: Vec<String>) -> Result<()> {
        for line in lines {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let output = self
                .inside(move || Command::new("ip").args(words).stdin(Stdio::null()).output())
                .await?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "ip {line}: {said}");
        }
        Ok(())
    }

    async fn inside<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let path = self.0.clone();
        let (answer, result) = oneshot::channel();
        thread::spawn(move || {
            let _ = answer.send(enter(path.as_deref()).and_then(|()| work()));
        });
        Ok(result.await.context("the thread answers")??)
    }
}

fn enter(path: Option<&Path>) -> io::Result<()> {
    if let Some(path) = path {
        setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
    }
    Ok(())
}
