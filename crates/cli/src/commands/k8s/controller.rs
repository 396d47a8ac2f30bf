//! `k8s controller`.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use k8s::controller::config::{self, Config};
use k8s::controller::run;
use runtime::log::{Format, Level};
use runtime::{Clock, Metrics, Readiness};

use crate::{environment, program};

/// `controller`
#[derive(clap::Args, Debug)]
pub(crate) struct Controller {
    /// Path of the configuration file, a ControllerManagerConfig
    #[arg(long, value_name = "PATH")]
    config: PathBuf,
    /// Put environment variables for $NAME and ${NAME} in the file
    #[arg(long = "expandEnv")]
    expand_env: bool,
    /// Path of a kubeconfig; the pod's service account when absent
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// text or json
    #[arg(long = "logFormat", value_name = "FORMAT", default_value = "text")]
    log_format: Format,
    /// Check the configuration file and end
    #[arg(long)]
    validate: bool,
}

impl Controller {
    pub(crate) fn run(self) -> Result<()> {
        let config = program::read_config(&self.config, self.expand_env, config::read)?;
        if self.validate {
            println!("Controller configuration file is valid.");
            return Ok(());
        }
        let log = runtime::log::init(runtime::log::Options {
            level: level(&config)?,
            format: self.log_format,
            file: None,
        })?;
        program::run(&log, async |tasks| {
            let client = run::client(self.kubeconfig.as_deref()).await;
            let client = client
                .map_err(|error| anyhow!(error))
                .context("cannot reach a Kubernetes API server")?;
            let host =
                environment::variable("POD_NAME").or_else(|| environment::variable("HOSTNAME"));
            let options = run::Options {
                config,
                client,
                identity: run::identity(host.as_deref().unwrap_or("signet-controller")),
                metrics: Metrics::new("signet_controller"),
                readiness: Readiness::new(),
                clock: Clock::system(),
            };
            run::start(options, &tasks)
                .await
                .map_err(|error| anyhow!(error))?;
            Ok(())
        })
    }
}

fn level(config: &Config) -> Result<Level> {
    let text = config.log_level.as_deref().unwrap_or("info");
    text.parse()
        .map_err(|error| anyhow!("logLevel: {text:?}: {error}"))
}
