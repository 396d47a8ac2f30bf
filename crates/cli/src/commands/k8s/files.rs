//! `signet k8s files`

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use k8s::files::{self, Config, Names};
use runtime::Clock;
use runtime::log::{Format, Level, Options};

use crate::{environment, program};

/// Names the socket, as a workload finds it (SPIFFE_Workload_Endpoint.md).
const SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";

/// `k8s files`
#[derive(clap::Args, Debug)]
pub(crate) struct Files {
    /// The folder of the files
    #[arg(long, value_name = "PATH", default_value = "/run/signet/files")]
    dir: PathBuf,
    /// Path of the agent's socket [default: that of SPIFFE_ENDPOINT_SOCKET]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Name of the file with the certificate and its chain
    #[arg(long, value_name = "NAME", default_value = "svid.pem")]
    svid_file_name: String,
    /// Name of the file with the key
    #[arg(long, value_name = "NAME", default_value = "key.pem")]
    key_file_name: String,
    /// Name of the file with the trust domain's authorities
    #[arg(long, value_name = "NAME", default_value = "bundle.pem")]
    bundle_file_name: String,
    /// Mode of the key's file, in octal
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = mode)]
    key_mode: u32,
    /// Tell whether the files are there and hold, and end
    #[arg(long)]
    check: bool,
    /// Where health is told over HTTP: /live, /ready
    #[arg(long, value_name = "ADDRESS")]
    health_address: Option<SocketAddr>,
    /// error, warn, info, debug or trace
    #[arg(long = "logLevel", value_name = "LEVEL", default_value = "info")]
    log_level: Level,
    /// text or json
    #[arg(long = "logFormat", value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

impl Files {
    pub(crate) fn run(self) -> Result<()> {
        let socket = self.socket.or_else(|| {
            let address = environment::variable(SOCKET)?;
            let path = address.strip_prefix("unix://")?;
            path.starts_with('/').then(|| PathBuf::from(path))
        });
        let config = Config {
            dir: self.dir,
            socket: socket.clone().unwrap_or_default(),
            names: Names {
                svid: self.svid_file_name,
                key: self.key_file_name,
                bundle: self.bundle_file_name,
            },
            key_mode: self.key_mode,
            health: self.health_address,
        };
        if self.check {
            return Ok(files::check(&config, Clock::system().now())?);
        }
        socket.with_context(|| {
            format!("no socket: give --socket, or set {SOCKET} to unix:// and its absolute path")
        })?;
        let log = runtime::log::init(Options {
            level: self.log_level,
            format: self.log_format,
            file: None,
        })?;
        program::run(&log, async |tasks| {
            Ok(files::start(config, Clock::system(), &tasks).await?)
        })
    }
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & !0o644 == 0 && mode & 0o400 != 0 => Ok(mode),
        _ => Err("give 0600, 0640 or, where nobody else can reach the folder, 0644".to_owned()),
    }
}
