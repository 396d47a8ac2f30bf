//! `k8s injector`.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use k8s::injector::{self, Options, config};
use runtime::log::{Format, Level};
use runtime::{Clock, Metrics, Readiness};

use crate::program::{self, parsed};

/// `injector`
#[derive(clap::Args, Debug)]
pub(crate) struct Injector {
    /// Path of the configuration file, YAML or JSON
    #[arg(long, value_name = "PATH")]
    config: PathBuf,
    /// Put environment variables for $NAME and ${NAME} in the file
    #[arg(long = "expandEnv")]
    expand_env: bool,
    /// Path of a kubeconfig; the pod's service account when absent
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// Check the configuration file and end
    #[arg(long)]
    validate: bool,
}

impl Injector {
    pub(crate) fn run(self) -> Result<()> {
        let config = program::read_config(&self.config, self.expand_env, config::read)?;
        if self.validate {
            println!("Injector configuration file is valid.");
            return Ok(());
        }
        let log = runtime::log::init(runtime::log::Options {
            level: parsed::<Level>("log_level", config.log_level.as_deref(), "info")?,
            format: parsed::<Format>("log_format", config.log_format.as_deref(), "text")?,
            file: None,
        })?;
        program::run(&log, async |tasks| {
            let options = Options {
                config,
                client: program::api_server(self.kubeconfig.as_deref()).await?,
                identity: program::replica(injector::NAME),
                metrics: Metrics::new("signet_injector"),
                readiness: Readiness::new(),
                clock: Clock::system(),
            };
            let started = injector::start(options, &tasks).await;
            started.map_err(|error| anyhow!(error))?;
            Ok(())
        })
    }
}
