//! `k8s controller`.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use k8s::controller::config;
use k8s::controller::run;
use runtime::log::Format;
use runtime::{Clock, Metrics, Readiness};

use crate::environment;
use crate::program::{self, parsed};

/// `controller`
#[derive(clap::Args, Debug)]
pub(crate) struct Controller {
    /// Path of the configuration file, a ControllerManagerConfig
    #[arg(long, value_name = "PATH")]
    config: PathBuf,
    /// Put environment variables for $NAME and ${NAME} in the file
    #[arg(long = "expandEnv", alias = "expand-env")]
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
            level: parsed("logLevel", config.log_level.as_deref(), "info")?,
            format: self.log_format,
            file: None,
        })?;
        program::run(&log, async |tasks| {
            let options = run::Options {
                config,
                client: program::api_server(self.kubeconfig.as_deref()).await?,
                identity: program::replica("signet-controller"),
                metrics: Metrics::new("signet_controller"),
                readiness: Readiness::new(),
                clock: Clock::system(),
                // As in SPIRE's controller manager.
                webhooks: environment::variable("ENABLE_WEBHOOKS").as_deref() != Some("false"),
            };
            run::start(options, &tasks)
                .await
                .map_err(|error| anyhow!(error))?;
            Ok(())
        })
    }
}
