//! A child process with its log in a file; ended when dropped.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output in `log`.
    ///
    /// # Errors
    /// When the log cannot be created or the program not started.
    pub fn start<I, S>(name: &str, program: &Path, args: I, log: &Path) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        Self::start_in(&[], name, program, args, log)
    }

    /// As [`Process::start`], with `more` in its environment.
    ///
    /// # Errors
    /// As said there.
    pub fn start_in<I, S>(
        more: &[(String, String)],
        name: &str,
        program: &Path,
        args: I,
        log: &Path,
    ) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = Command::new(program)
            .args(args)
            .envs(more.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}: {}", program.display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// The process id.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pid(&self) -> Result<u32> {
        self.child
            .id()
            .with_context(|| format!("{} has ended; its log: {}", self.name, self.log.display()))
    }

    /// Its log so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes =
            std::fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where its log is.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Fails, with the log's end, when the process is no longer running.
    ///
    /// # Errors
    /// As said.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended with {status}; the end of {}:\n{}",
                self.name,
                self.log.display(),
                self.tail()
            );
        }
        Ok(())
    }

    /// Sends `signal`.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()?)?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait().await
    }

    /// `kill -9`, then reaps it.
    ///
    /// # Errors
    /// When it had ended already.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait().await?;
        Ok(())
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let bound: Duration = PATIENCE;
        if let Ok(status) = timeout(bound, self.child.wait()).await {
            return Ok(status?);
        }
        self.child.kill().await?;
        bail!(
            "{} did not end within {bound:?}; the end of its log:\n{}",
            self.name,
            self.tail()
        )
    }

    fn tail(&self) -> String {
        const LINES: usize = 20;
        let log = self
            .log()
            .unwrap_or_else(|error| format!("(no log: {error})"));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}
