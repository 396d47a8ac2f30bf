//! `agent run` and `agent validate`.

use std::convert::Infallible;
use std::path::PathBuf;

use agent::config::{Config, JoinToken, Overrides};
use anyhow::Result;
use identity::TrustDomain;
use runtime::Clock;
use runtime::log::{Format, Level};

use crate::{environment, program};

const CONFIG: &str = "conf/agent/agent.conf";

/// `run`
#[derive(clap::Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    file: Validate,
    /// Folder for what the agent keeps
    #[arg(long = "dataDir", value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Name or IP address of the server
    #[arg(long = "serverAddress", value_name = "HOST")]
    server_address: Option<String>,
    /// Port of the server
    #[arg(long = "serverPort", value_name = "PORT")]
    server_port: Option<u16>,
    /// The agent's trust domain
    #[arg(long = "trustDomain", value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
    /// File with the server's bundle, the first trust in it
    #[arg(long = "trustBundle", value_name = "PATH")]
    trust_bundle: Option<PathBuf>,
    /// https URL of the server's bundle
    #[arg(long = "trustBundleUrl", value_name = "URL")]
    trust_bundle_url: Option<String>,
    /// Trust whatever server answers first
    #[arg(long = "insecureBootstrap")]
    insecure_bootstrap: bool,
    /// Token to attest with
    #[arg(long = "joinToken", value_name = "TOKEN", value_parser = token)]
    join_token: Option<JoinToken>,
    /// File with the token to attest with
    #[arg(long = "joinTokenFile", value_name = "PATH")]
    join_token_file: Option<PathBuf>,
    /// Path of the public socket
    #[arg(long = "socketPath", value_name = "PATH")]
    socket_path: Option<PathBuf>,
    /// Let callers without an identity fetch bundles
    #[arg(long = "allowUnauthenticatedVerifiers")]
    allow_unauthenticated_verifiers: bool,
    /// Serve no SDS
    #[arg(long = "disableSDSAPI")]
    disable_sds_api: bool,
    /// Serve no Workload API
    #[arg(long = "disableWorkloadAPI")]
    disable_workload_api: bool,
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

/// A type of its own from the start, so that no debug print of the arguments shows it.
fn token(text: &str) -> Result<JoinToken, Infallible> {
    Ok(JoinToken::new(text.to_owned()))
}

impl Run {
    pub(crate) fn run(self) -> Result<()> {
        let overrides = Overrides {
            server_address: self.server_address,
            server_port: self.server_port,
            socket_path: self.socket_path,
            trust_domain: self.trust_domain,
            trust_bundle_path: self.trust_bundle,
            trust_bundle_url: self.trust_bundle_url,
            trust_bundle_format: None,
            insecure_bootstrap: self.insecure_bootstrap.then_some(true),
            join_token: self.join_token,
            join_token_file: self.join_token_file,
            data_dir: self.data_dir,
            log_file: self.log_file,
            log_format: self.log_format,
            log_level: self.log_level,
        };
        let mut config = self.file.read(overrides)?;
        config.workload_api.allow_unauthenticated_verifiers |= self.allow_unauthenticated_verifiers;
        config.workload_api.enabled &= !self.disable_workload_api;
        config.sds.enabled &= !self.disable_sds_api;
        if let Some(k8s) = &mut config.workload_attestors.k8s
            && k8s.node_name.is_none()
        {
            k8s.node_name = environment::variable(&k8s.node_name_env);
        }
        let log = runtime::log::init(config.log.clone())?;
        program::run(&log, async |tasks| {
            let agent = agent::Agent::build(config, Clock::system()).await?;
            Ok(agent.run(&tasks)?)
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
        println!("SPIRE agent configuration file is valid.");
        Ok(())
    }

    fn read(&self, overrides: Overrides) -> Result<Config> {
        program::read_config(&self.config, self.expand_env, |text, environment| {
            Config::parse(text, environment, overrides)
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    #[test]
    fn s_3_the_join_token_is_not_printed() {
        let command = Run::augment_args(clap::Command::new("run"));
        let matches = command.get_matches_from(["run", "--joinToken", "secret-of-one-node"]);
        let run = Run::from_arg_matches(&matches).unwrap();
        let token = run.join_token.as_ref().unwrap();
        assert_eq!(token.secret(), "secret-of-one-node");
        let printed = format!("{run:?}");
        assert!(
            printed.contains("<redacted>") && !printed.contains("secret-of"),
            "{printed}"
        );
    }
}
