//! `signet server …`

mod run;

use anyhow::Result;

use super::healthcheck;
use crate::program;
use crate::socket::ServerSocket;

/// Commands of and to the server.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the server
    Run(Box<run::Run>),
    /// Check a configuration file
    Validate(run::Validate),
    /// Ask whether the server is healthy
    Healthcheck(Healthcheck),
}

impl Command {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Run(run) => run.run(),
            Self::Validate(validate) => validate.run(),
            Self::Healthcheck(healthcheck) => program::block_on(healthcheck.run()),
        }
    }
}

/// `healthcheck`
#[derive(clap::Args, Debug)]
pub(crate) struct Healthcheck {
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    manner: healthcheck::Manner,
}

impl Healthcheck {
    async fn run(self) -> Result<()> {
        healthcheck::check("Server", &self.socket.path()?, &self.manner).await
    }
}
