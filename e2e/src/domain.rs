//! A whole trust domain in one folder: a server, an agent, and the command line to steer them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::Process;
use crate::wait::{self, PATIENCE};
use crate::{binaries, ports};

/// What differs between one domain and another.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The trust domain's name.
    pub trust_domain: String,
    /// `ca_ttl`; one tenth of it must still be longer than an SVID.
    pub ca_ttl: Duration,
    /// `default_x509_svid_ttl`.
    pub x509_svid_ttl: Duration,
    /// How often the agent asks the server for changes.
    pub sync_interval: Duration,
    /// More lines for the `server { }` block.
    pub server_extra: String,
    /// More lines for the `agent { }` block.
    pub agent_extra: String,
    /// More blocks for the server's `plugins { }`.
    pub server_plugins: String,
    /// More blocks beside `agent { }`.
    pub agent_blocks: String,
    /// More of the environment of both programs.
    pub environment: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_domain: "example.org".to_owned(),
            ca_ttl: Duration::from_secs(24 * 3600),
            x509_svid_ttl: Duration::from_secs(3600),
            sync_interval: Duration::from_secs(1),
            server_extra: String::new(),
            agent_extra: String::new(),
            server_plugins: String::new(),
            agent_blocks: String::new(),
            environment: Vec::new(),
        }
    }
}

/// A running trust domain. Everything it started ends with it.
#[derive(Debug)]
pub struct Domain {
    settings: Settings,
    folder: TempDir,
    signet: PathBuf,
    server_port: u16,
    server: Option<Process>,
    agent: Option<Process>,
}

impl Domain {
    /// A folder with configurations; nothing runs yet.
    ///
    /// # Errors
    /// When the folder cannot be made, or `signet` was not built.
    pub fn new(settings: Settings) -> Result<Self> {
        // Short, since a socket's path may hold 107 bytes.
        let folder = tempfile::Builder::new().prefix("sg").tempdir_in("/tmp")?;
        let domain = Self {
            signet: binaries::signet()?,
            server_port: ports::free()?,
            folder,
            settings,
            server: None,
            agent: None,
        };
        domain.write("server.conf", &domain.server_config())?;
        domain.write("agent.conf", &domain.agent_config())?;
        Ok(domain)
    }

    /// A domain with a healthy server and a healthy agent.
    ///
    /// # Errors
    /// When either does not become healthy in time.
    pub async fn start(settings: Settings) -> Result<Self> {
        let mut domain = Self::new(settings)?;
        domain.start_server().await?;
        domain.start_agent_with_token().await?;
        Ok(domain)
    }

    /// Starts the server and waits for it.
    ///
    /// # Errors
    /// When it does not become healthy in time.
    pub async fn start_server(&mut self) -> Result<()> {
        self.spawn_server()?;
        self.healthy("server").await
    }

    /// Starts the server and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_server(&mut self) -> Result<()> {
        let config = self.path("server.conf");
        let args = [
            OsStr::new("server"),
            OsStr::new("run"),
            OsStr::new("-config"),
            config.as_os_str(),
        ];
        self.server = Some(self.process("server", &args)?);
        Ok(())
    }

    /// Makes a join token, starts the agent with it, and waits for it.
    ///
    /// # Errors
    /// When it does not become healthy in time.
    pub async fn start_agent_with_token(&mut self) -> Result<()> {
        let agent_id = self.agent_id();
        let token = self
            .server_cli(&["token", "generate", "-spiffeID", &agent_id])
            .await?;
        let token = token
            .trim()
            .strip_prefix("Token: ")
            .context("`token generate` prints `Token: …`")?
            .to_owned();
        self.start_agent(&["-joinToken", &token]).await
    }

    /// Starts the agent with more arguments and waits for it.
    ///
    /// # Errors
    /// When it does not become healthy in time.
    pub async fn start_agent(&mut self, extra: &[&str]) -> Result<()> {
        self.spawn_agent(extra)?;
        self.healthy("agent").await
    }

    /// Starts the agent and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_agent(&mut self, extra: &[&str]) -> Result<()> {
        let config = self.path("agent.conf");
        let mut args = vec![
            OsStr::new("agent"),
            OsStr::new("run"),
            OsStr::new("-config"),
            config.as_os_str(),
        ];
        args.extend(extra.iter().map(OsStr::new));
        self.agent = Some(self.process("agent", &args)?);
        Ok(())
    }

    fn process(&self, name: &str, args: &[&OsStr]) -> Result<Process> {
        let (log, more) = (self.next_log(name), &self.settings.environment);
        Process::start_in(more, name, &self.signet, args, &log)
    }

    /// The server's process.
    ///
    /// # Errors
    /// When it was not started.
    pub fn server(&mut self) -> Result<&mut Process> {
        self.server.as_mut().context("the server is running")
    }

    /// The agent's process.
    ///
    /// # Errors
    /// When it was not started.
    pub fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().context("the agent is running")
    }

    /// The alias under which the agent's entries hang: every join token gives it.
    #[must_use]
    pub fn agent_id(&self) -> String {
        self.id("/node")
    }

    /// Its name.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.settings.trust_domain
    }

    /// `spiffe://{trust domain}{path}`.
    #[must_use]
    pub fn id(&self, path: &str) -> String {
        format!("spiffe://{}{path}", self.settings.trust_domain)
    }

    /// Registers `path` for the program at `program`; tells the entry's ID.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn register(&self, path: &str, program: &Path) -> Result<String> {
        let selector = format!("unix:path:{}", program.display());
        let (id, parent) = (self.id(path), self.agent_id());
        let args = [
            "entry",
            "create",
            "-parentID",
            &parent,
            "-spiffeID",
            &id,
            "-selector",
            &selector,
            "-output",
            "json",
        ];
        let created: Value = serde_json::from_str(&self.server_cli(&args).await?)?;
        let id = created
            .pointer("/results/0/entry/id")
            .and_then(Value::as_str);
        Ok(id
            .with_context(|| format!("an entry ID in {created}"))?
            .to_owned())
    }

    /// `signet server …` on this server's socket.
    ///
    /// # Errors
    /// When the command fails; with what it printed.
    pub async fn server_cli(&self, args: &[&str]) -> Result<String> {
        self.cli("server", args, &self.server_socket()).await
    }

    /// `signet agent …` on this agent's socket.
    ///
    /// # Errors
    /// When the command fails; with what it printed.
    pub async fn agent_cli(&self, args: &[&str]) -> Result<String> {
        self.cli("agent", args, &self.agent_socket()).await
    }

    /// The server's private socket.
    #[must_use]
    pub fn server_socket(&self) -> PathBuf {
        self.path("server/api.sock")
    }

    /// The agent's public socket.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.path("agent/api.sock")
    }

    /// A path in the domain's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The domain's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder in place when the domain is dropped.
    pub fn keep_folder(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// The `signet` in use.
    #[must_use]
    pub fn signet(&self) -> &Path {
        &self.signet
    }

    /// The server's TCP port.
    #[must_use]
    pub fn server_port(&self) -> u16 {
        self.server_port
    }

    /// How often agents ask the server for changes.
    #[must_use]
    pub fn sync_interval(&self) -> Duration {
        self.settings.sync_interval
    }

    /// A file in the domain's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Waits until `signet server|agent healthcheck` succeeds.
    ///
    /// # Errors
    /// When it does not in time, or the process has ended.
    pub async fn healthy(&mut self, program: &str) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let socket = if program == "server" {
                self.server_socket()
            } else {
                self.agent_socket()
            };
            let answer = self.cli(program, &["healthcheck"], &socket).await;
            if answer.is_ok() {
                return Ok(());
            }
            let process = if program == "server" {
                self.server()?
            } else {
                self.agent()?
            };
            process.check_running()?;
            if tokio::time::Instant::now() >= deadline {
                answer.with_context(|| {
                    format!(
                        "{program} did not become healthy; log {}",
                        process.log_path().display()
                    )
                })?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn cli(&self, program: &str, args: &[&str], socket: &Path) -> Result<String> {
        let output = self.run(program, args, socket).await?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(
            output.status.success(),
            "signet {program} {}: {}\n{out}{err}",
            args.join(" "),
            output.status
        );
        Ok(out.into_owned())
    }

    /// Runs a command and tells how it went, whatever it says.
    ///
    /// # Errors
    /// When it cannot be started or hangs.
    pub async fn run(&self, program: &str, args: &[&str], socket: &Path) -> Result<Output> {
        let mut command = Command::new(&self.signet);
        command
            .arg(program)
            .args(args)
            .arg("-socketPath")
            .arg(socket)
            .kill_on_drop(true);
        tokio::time::timeout(wait::PATIENCE, command.output())
            .await
            .with_context(|| format!("signet {program} {} hangs", args.join(" ")))?
            .with_context(|| format!("start {}", self.signet.display()))
    }

    /// A new log file for each start, numbered.
    fn next_log(&self, name: &str) -> PathBuf {
        let mut number = 1;
        loop {
            let path = self.path(&format!("{name}-{number}.log"));
            if !path.exists() {
                return path;
            }
            number += 1;
        }
    }

    fn server_config(&self) -> String {
        let Settings {
            trust_domain,
            ca_ttl,
            x509_svid_ttl,
            server_extra,
            server_plugins,
            ..
        } = &self.settings;
        let folder = self.folder.path().display();
        format!(
            r#"server {{
  trust_domain = "{trust_domain}"
  bind_address = "127.0.0.1"
  bind_port = {port}
  socket_path = "{folder}/server/api.sock"
  data_dir = "{folder}/server"
  log_level = "DEBUG"
  ca_ttl = "{ca}s"
  default_x509_svid_ttl = "{svid}s"
  {server_extra}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{folder}/server/datastore.sqlite3"
    }}
  }}
  KeyManager "disk" {{
    plugin_data {{
      keys_path = "{folder}/server/keys.json"
    }}
  }}
  NodeAttestor "join_token" {{
    plugin_data {{}}
  }}
  {server_plugins}
}}
"#,
            port = self.server_port,
            ca = ca_ttl.as_secs(),
            svid = x509_svid_ttl.as_secs(),
        )
    }

    fn agent_config(&self) -> String {
        let Settings {
            trust_domain,
            sync_interval,
            agent_extra,
            agent_blocks,
            ..
        } = &self.settings;
        let folder = self.folder.path().display();
        format!(
            r#"agent {{
  trust_domain = "{trust_domain}"
  server_address = "127.0.0.1"
  server_port = {port}
  socket_path = "{folder}/agent/api.sock"
  data_dir = "{folder}/agent"
  log_level = "DEBUG"
  insecure_bootstrap = true
  {agent_extra}
  experimental {{
    sync_interval = "{sync}ms"
  }}
}}
plugins {{
  NodeAttestor "join_token" {{
    plugin_data {{}}
  }}
  KeyManager "disk" {{
    plugin_data {{
      directory = "{folder}/agent"
    }}
  }}
  WorkloadAttestor "unix" {{
    plugin_data {{
      discover_workload_path = true
    }}
  }}
}}
{agent_blocks}
"#,
            port = self.server_port,
            sync = sync_interval.as_millis(),
        )
    }
}
