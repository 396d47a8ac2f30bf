//! `signet server token …`

use std::time::Duration;

use anyhow::Result;
use identity::SpiffeId;
use proto::spire::api::server::agent::v1::CreateJoinTokenRequest;
use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::types::JoinToken;

use crate::client::{duration, refused, ttl_seconds, wire_id};
use crate::output::{Output, Report};
use crate::socket::ServerSocket;

/// Join tokens.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a token with which one agent attests, once
    Generate(Generate),
}

/// `token generate`
#[derive(clap::Args, Debug)]
pub(crate) struct Generate {
    /// A SPIFFE ID that stands for the agent, under which entries can be created
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    /// How long the token may be used: seconds, or a duration such as 10m
    #[arg(long = "ttl", value_name = "TTL", value_parser = ttl, default_value = "600")]
    ttl: Duration,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

impl Command {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Generate(generate) => generate.run().await,
        }
    }
}

impl Generate {
    async fn run(self) -> Result<()> {
        let request = CreateJoinTokenRequest {
            ttl: ttl_seconds(Some(self.ttl)),
            token: String::new(),
            agent_id: self.spiffe_id.as_ref().map(wire_id),
        };
        let token = AgentClient::new(self.socket.connect().await?)
            .create_join_token(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        self.output
            .print(&token, |token| told(token, self.spiffe_id.is_some()))
    }
}

fn told(token: &JoinToken, named: bool) -> Report {
    let mut text = format!("Token: {}\n", token.value);
    if !named {
        text.push_str("Warning: Missing SPIFFE ID.\n");
    }
    text.into()
}

/// SPIRE's flag takes seconds here, and durations elsewhere.
fn ttl(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .or_else(|_| duration(text))
}
