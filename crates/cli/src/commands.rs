//! The tree of commands.

mod agent;
mod healthcheck;
mod k8s;
mod server;

use anyhow::Result;

/// Workload identity for Envoy meshes: SPIFFE IDs, SVIDs and SDS.
#[derive(clap::Parser, Debug)]
#[command(name = "signet", version, disable_help_subcommand = true)]
pub(crate) enum Signet {
    /// The issuing server, and commands to it
    #[command(subcommand)]
    Server(server::Command),
    /// The node agent, and commands to it
    #[command(subcommand)]
    Agent(agent::Command),
    /// The Kubernetes programs, and commands for manifests
    #[command(subcommand)]
    K8s(k8s::Command),
}

impl Signet {
    /// Does what was asked.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Server(command) => command.run(),
            Self::Agent(command) => command.run(),
            Self::K8s(command) => command.run(),
        }
    }
}
