//! `signet agent …`

mod api;
mod run;

use anyhow::Result;

use super::healthcheck;
use crate::program;
use crate::socket::AgentSocket;

/// Commands of and to the agent.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the agent
    Run(Box<run::Run>),
    /// Check a configuration file
    Validate(run::Validate),
    /// Ask whether the agent is healthy
    Healthcheck(Healthcheck),
    /// The Workload API, asked as this process
    #[command(subcommand)]
    Api(api::Command),
}

impl Command {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Run(run) => run.run(),
            Self::Validate(validate) => validate.run(),
            Self::Healthcheck(healthcheck) => program::block_on(healthcheck.run()),
            Self::Api(command) => program::block_on(command.run()),
        }
    }
}

/// `healthcheck`
#[derive(clap::Args, Debug)]
pub(crate) struct Healthcheck {
    #[command(flatten)]
    socket: AgentSocket,
    #[command(flatten)]
    manner: healthcheck::Manner,
}

impl Healthcheck {
    async fn run(self) -> Result<()> {
        healthcheck::check("Agent", &self.socket.path()?, &self.manner).await
    }
}
