//! A child that the kernel kills when this process ends, however it ends: the shared control plane is never dropped.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binaries;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Tethered {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Tethered {
    /// Starts `program` through `shim tether`, with its output in `log`.
    ///
    /// # Errors
    /// When the log cannot be created or the program not started.
    pub fn start<I, S>(name: &str, program: &Path, args: I, log: &Path) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let mut all: Vec<OsString> = vec!["tether".into(), program.into()];
        all.extend(args.into_iter().map(Into::into));
        Self::shim(name, all, log)
    }

    /// Starts `shim` with these arguments; the part it plays ties itself to this process.
    ///
    /// # Errors
    /// When the log cannot be opened or the shim not started.
    pub fn shim<I, S>(name: &str, args: I, log: &Path) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new(binaries::shim()?);
        command
            .args(args.into_iter().map(Into::into))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Ok(Self {
            name: name.to_owned(),
            child: spawn(command).with_context(|| format!("start {name}"))?,
            log: log.to_owned(),
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails, with the log's end, when the process is no longer running.
    ///
    /// # Errors
    /// As said.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            let log = std::fs::read(&self.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            bail!(
                "{} ended with {status}; the end of {}:\n{}",
                self.name,
                self.log.display(),
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
        Ok(())
    }

    /// Sends `signal`.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            bail!("{} has ended", self.name);
        }
        let pid = i32::try_from(self.pid())?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to {}", self.name))
    }
}

impl Drop for Tethered {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes `folder` once this process has ended.
///
/// # Errors
/// When the shim cannot be started.
pub(crate) fn remove_at_end(folder: &Path) -> Result<()> {
    static OPEN: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    let mut command = Command::new(binaries::shim()?);
    command
        .arg("remove-at-end")
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = spawn(command).context("start the shim that removes folders")?;
    // Holds the writing end of its input open until this process ends.
    OPEN.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(child);
    Ok(())
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts children from one thread that lives as long as the process: the kernel's "parent has died" means the thread that
/// started the child, and a test's thread ends with the test.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = mpsc::channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .ok()
        .context("the thread that starts children is alive")?;
    Ok(child.recv().context("an answer")??)
}
