//! The stock SPIFFE clients, unmodified, each in a small program of the same words (e2e/go, e2e/python, src/bin/stock.rs).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::binaries;
use crate::wait::PATIENCE;

/// One of the programs.
#[derive(Clone, Debug)]
pub struct Stock {
    /// `go`, `python` or `rust`.
    pub language: &'static str,
    /// What runs, as the `unix:path` selector sees it.
    pub program: PathBuf,
    script: Option<PathBuf>,
}

impl Stock {
    /// go-spiffe, built into `folder`.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn go(folder: &Path) -> Result<Self> {
        let program = folder.join("stock-go");
        let build = Command::new("go")
            .arg("build")
            .arg("-C")
            .arg(binaries::repository("e2e/go"))
            .args(["-trimpath", "-o"])
            .arg(&program)
            .arg(".")
            .output()
            .await
            .context("run go: install Go 1.26 or newer (Debian: apt-get install golang)")?;
        ensure!(
            build.status.success(),
            "building e2e/go: {}",
            String::from_utf8_lossy(&build.stderr)
        );
        Ok(Self {
            language: "go",
            program: fs::canonicalize(program)?,
            script: None,
        })
    }

    /// py-spiffe, from `e2e/tools/fetch-clients`.
    ///
    /// # Errors
    /// When it has not been fetched.
    pub fn python() -> Result<Self> {
        Ok(Self {
            language: "python",
            program: fs::canonicalize(binaries::python()?)?,
            script: Some(binaries::repository("e2e/python/stock.py")),
        })
    }

    /// rust-spiffe, built beside the tests; `path` is where Cargo says it is.
    ///
    /// # Errors
    /// When it is not there.
    pub fn rust(path: &str) -> Result<Self> {
        Ok(Self {
            language: "rust",
            program: fs::canonicalize(path).with_context(|| path.to_owned())?,
            script: None,
        })
    }

    /// Runs it with these words and gives what it prints.
    ///
    /// # Errors
    /// When it fails; with what it printed.
    pub async fn run(&self, socket: &Path, words: &[&str]) -> Result<String> {
        let output = self.output(socket, words).await?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        let language = self.language;
        ensure!(
            output.status.success(),
            "{language} {}: {}\n{out}{err}",
            words.join(" "),
            output.status
        );
        Ok(out.trim_end().to_owned())
    }

    /// Runs it with these words, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started, or hangs.
    pub async fn output(&self, socket: &Path, words: &[&str]) -> Result<Output> {
        let output = self.command(socket, words)?.output();
        let output = timeout(2 * PATIENCE, output).await;
        output
            .with_context(|| format!("{} {} hangs", self.language, words.join(" ")))?
            .with_context(|| format!("start {}", self.program.display()))
    }

    /// Starts it with these words; it ends when dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, socket: &Path, words: &[&str]) -> Result<Child> {
        let mut command = self.command(socket, words)?;
        command
            .stdout(Stdio::piped())
            .spawn()
            .context(self.language)
    }

    fn command(&self, socket: &Path, words: &[&str]) -> Result<Command> {
        // A virtual environment is known by the path of its Python, not by the program behind it.
        let program = match &self.script {
            Some(_) => binaries::python()?,
            None => self.program.clone(),
        };
        let mut command = Command::new(program);
        let endpoint: OsString = format!("unix://{}", socket.display()).into();
        command
            .args(&self.script)
            .args(words)
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .env("SPIFFE_ENDPOINT_SOCKET", endpoint)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }
}
