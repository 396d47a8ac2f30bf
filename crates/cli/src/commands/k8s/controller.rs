//! `k8s controller`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use k8s::controller::dry_run::DryRun;
use k8s::controller::{config, manifests, run};
use runtime::log::Format;
use runtime::{Clock, Metrics, Readiness, Tasks};

use crate::environment;
use crate::program::{self, parsed};

/// How long a dry run may take.
const MOST: Duration = Duration::from_secs(120);

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
    /// Print what would be written to the server, and end; nothing is written
    #[arg(long, conflicts_with = "validate")]
    dry_run: bool,
    /// Check the configuration file and end
    #[arg(long)]
    validate: bool,
}

impl Controller {
    pub(crate) fn run(self) -> Result<()> {
        let mut config = program::read_config(&self.config, self.expand_env, config::read)?;
        if self.validate {
            println!("Controller configuration file is valid.");
            return Ok(());
        }
        config.dry_run |= self.dry_run;
        let log = runtime::log::init(runtime::log::Options {
            level: parsed("logLevel", config.log_level.as_deref(), "info")?,
            format: self.log_format,
            file: None,
        })?;
        program::run(&log, async |tasks| {
            let metrics = Metrics::new("signet_controller");
            if let Some(folder) = config.manifests.clone() {
                let environment = environment::all();
                let started = manifests::start(config, &folder, environment, metrics, &tasks).await;
                let dry_run = started.map_err(|error| anyhow!(error))?;
                return self.report(dry_run, &tasks).await;
            }
            let options = run::Options {
                config,
                client: program::api_server(self.kubeconfig.as_deref()).await?,
                identity: program::replica("signet-controller"),
                metrics,
                readiness: Readiness::new(),
                clock: Clock::system(),
                // As in SPIRE's controller manager.
                webhooks: environment::variable("ENABLE_WEBHOOKS").as_deref() != Some("false"),
            };
            let started = run::start(options, &tasks).await;
            let running = started.map_err(|error| anyhow!(error))?;
            self.report(running.dry_run, &tasks).await
        })
    }

    /// With `--dry-run`, prints what was found, and ends.
    async fn report(&self, dry_run: Option<DryRun>, tasks: &Tasks) -> Result<()> {
        if let Some(dry_run) = dry_run.filter(|_| self.dry_run) {
            print!("{}", dry_run.report(MOST).await?);
            tasks.stop();
        }
        Ok(())
    }
}
