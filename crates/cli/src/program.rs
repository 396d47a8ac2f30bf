//! What every long-running program does around its own work.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use k8s::api_server::{self, Client};
use runtime::config::Problems;
use runtime::log::Log;
use runtime::{Supervisor, Tasks};

use crate::environment;

/// How long a program has to drain after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// Reads the file at `path` by `parse`, which gets its text and, when asked, the environment to put into it.
pub(crate) fn read_config<C>(
    path: &Path,
    expand_env: bool,
    parse: impl FnOnce(&str, Option<&BTreeMap<String, String>>) -> Result<C, Problems>,
) -> Result<C> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
    let environment = expand_env.then(environment::all);
    parse(&text, environment.as_ref()).map_err(|problems| {
        let count = problems.0.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        let lines = problems.to_string().replace('\n', "\n  ");
        anyhow::anyhow!("{count} {noun} in {}:\n  {lines}", path.display())
    })
}

/// Runs a program until it is asked to end: `start` builds it and starts its tasks.
pub(crate) fn run<F>(log: &Log, start: impl FnOnce(Tasks) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    runtime::process::harden();
    let started = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let tokio = started.context("cannot start the async runtime")?;
    tokio.block_on(async {
        let (supervisor, tasks) = Supervisor::new();
        log.reopen_on_signal(&tasks);
        if let Err(error) = start(tasks).await {
            tracing::error!(error = told(&error), "cannot start");
            return Err(error);
        }
        supervisor.run(GRACE).await?;
        tracing::info!("ended");
        Ok(())
    })
}

/// A value of a configuration file as what it stands for, or as `default`.
pub(crate) fn parsed<T>(key: &str, text: Option<&str>, default: &str) -> Result<T>
where
    T: FromStr,
    T::Err: Display,
{
    let text = text.unwrap_or(default);
    text.parse()
        .map_err(|error| anyhow!("{key}: {text:?}: {error}"))
}

/// The Kubernetes API server: by a kubeconfig file, or as the process finds it.
pub(crate) async fn api_server(kubeconfig: Option<&Path>) -> Result<Client> {
    let client = api_server::client(kubeconfig).await;
    client
        .map_err(|error| anyhow!(error))
        .context("cannot reach a Kubernetes API server")
}

/// This process among its replicas: by the pod's name, the host's, or else `name`.
pub(crate) fn replica(name: &str) -> String {
    let host = environment::variable("POD_NAME").or_else(|| environment::variable("HOSTNAME"));
    api_server::identity(host.as_deref().unwrap_or(name))
}

/// An error and its causes on one line, each said once: many errors tell their cause themselves.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Runs a client command.
pub(crate) fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    let started = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    started
        .context("cannot start the async runtime")?
        .block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = anyhow::anyhow!("no room");
        let error = cause
            .context("cannot write: no room")
            .context("cannot start");
        assert_eq!(told(&error), "cannot start: cannot write: no room");
        let other = anyhow::anyhow!("no room").context("cannot write");
        assert_eq!(told(&other), "cannot write: no room");
    }
}
