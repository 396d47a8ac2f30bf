//! `server run` and `server validate`.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use identity::TrustDomain;
use runtime::Clock;
use runtime::log::{Format, Level};
use server::{Config, Overrides, Server};

use crate::program;

const CONFIG: &str = "conf/server/server.conf";

/// `run`
#[derive(clap::Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    file: Validate,
    /// Address to listen on
    #[arg(long = "bindAddress", value_name = "IP")]
    bind_address: Option<IpAddr>,
    /// Port to listen on
    #[arg(long = "serverPort", value_name = "PORT")]
    server_port: Option<u16>,
    /// Path of the private socket
    #[arg(long = "socketPath", value_name = "PATH")]
    socket_path: Option<PathBuf>,
    /// The trust domain to issue for
    #[arg(long = "trustDomain", value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
    /// Folder for what the server keeps
    #[arg(long = "dataDir", value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// File to log to
    #[arg(long = "logFile", value_name = "PATH")]
    log_file: Option<PathBuf>,
    /// text or json
    #[arg(long = "logFormat", value_name = "FORMAT")]
    log_format: Option<Format>,
    /// error, warn, info, debug or trace
    #[arg(long = "logLevel", value_name = "LEVEL")]
    log_level: Option<Level>,
}

impl Run {
    pub(crate) fn run(self) -> Result<()> {
        let overrides = Overrides {
            bind_address: self.bind_address,
            bind_port: self.server_port,
            socket_path: self.socket_path,
            trust_domain: self.trust_domain,
            data_dir: self.data_dir,
            log_file: self.log_file,
            log_format: self.log_format,
            log_level: self.log_level,
        };
        let config = self.file.read(overrides)?;
        let log = runtime::log::init(config.log.clone())?;
        program::run(&log.clone(), async |tasks| {
            let server = Server::build(config, Clock::system(), log).await?;
            server.run(&tasks);
            Ok(())
        })
    }
}

/// `validate`
#[derive(clap::Args, Debug)]
pub(crate) struct Validate {
    /// Path of the configuration file
    #[arg(long = "config", value_name = "PATH", default_value = CONFIG)]
    config: PathBuf,
    /// Put environment variables for $NAME and ${NAME} in the file
    #[arg(long = "expandEnv")]
    expand_env: bool,
}

impl Validate {
    pub(crate) fn run(self) -> Result<()> {
        let config = self.read(Overrides::default())?;
        for warning in &config.warnings {
            eprintln!("warning: {warning}");
        }
        println!("SPIRE server configuration file is valid.");
        Ok(())
    }

    fn read(&self, overrides: Overrides) -> Result<Config> {
        program::read_config(&self.config, self.expand_env, |text, environment| {
            Config::parse(text, environment, overrides)
        })
    }
}
