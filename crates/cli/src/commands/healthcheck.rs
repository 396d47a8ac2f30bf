//! Asks a program whether it is healthy.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::socket;

/// What an answer may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// How to ask.
#[derive(clap::Args, Debug)]
pub(crate) struct Manner {
    /// Ask only whether the program answers
    #[arg(long = "shallow")]
    shallow: bool,
    /// Say what is being done
    #[arg(long = "verbose")]
    verbose: bool,
}

/// Prints and tells whether the program behind the socket at `path` is healthy.
pub(crate) async fn check(name: &str, path: &Path, manner: &Manner) -> Result<()> {
    if manner.verbose {
        println!("Checking {name} health...");
    }
    let asked = tokio::time::timeout(PATIENCE, ask(path)).await;
    match asked.context("no answer in time").and_then(|asked| asked) {
        Ok(status) if manner.shallow || status == ServingStatus::Serving => {
            println!("{name} is healthy.");
            Ok(())
        }
        Ok(status) => bail!(
            "{name} is unhealthy: its status is {}",
            status.as_str_name()
        ),
        Err(error) => {
            Err(error.context(format!("{name} is unhealthy: unable to determine health")))
        }
    }
}

async fn ask(path: &Path) -> Result<ServingStatus> {
    let channel = socket::connect(path).await?;
    let request = HealthCheckRequest::default();
    let response = HealthClient::new(channel).check(request).await;
    let response = response.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    Ok(response.into_inner().status())
}
