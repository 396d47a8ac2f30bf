//! `signet server …`

mod agent;
mod bundle;
mod entry;
mod jwt;
mod run;
mod token;
mod x509;

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
    /// Join tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Registration entries
    #[command(subcommand)]
    Entry(entry::Command),
    /// Attested agents
    #[command(subcommand)]
    Agent(agent::Command),
    /// Trust bundles
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// X.509-SVIDs without an entry
    #[command(subcommand)]
    X509(x509::Command),
    /// JWT-SVIDs without an entry
    #[command(subcommand)]
    Jwt(jwt::Command),
}

impl Command {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Run(run) => run.run(),
            Self::Validate(validate) => validate.run(),
            Self::Healthcheck(healthcheck) => program::block_on(healthcheck.run()),
            Self::Token(command) => program::block_on(command.run()),
            Self::Entry(command) => program::block_on(command.run()),
            Self::Agent(command) => program::block_on(command.run()),
            Self::Bundle(command) => program::block_on(command.run()),
            Self::X509(command) => program::block_on(command.run()),
            Self::Jwt(command) => program::block_on(command.run()),
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
