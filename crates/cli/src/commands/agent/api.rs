//! `signet agent api …`: what a workload would get.

mod fetch;
mod jwt;
mod watch;
mod x509;

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::client::{MAX_ANSWER, duration, refused};
use crate::socket::AgentSocket;

/// The Workload API, asked as this process.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Fetch SVIDs
    Fetch(Box<fetch::Fetch>),
    /// Validate SVIDs
    #[command(subcommand)]
    Validate(jwt::ValidateCommand),
    /// Print X.509-SVIDs whenever they change
    Watch(watch::Watch),
}

/// How to ask.
#[derive(clap::Args, Debug)]
struct Asking {
    /// How long to wait for an answer
    #[arg(long = "timeout", value_name = "DURATION", value_parser = duration, default_value = "1s")]
    timeout: Duration,
    #[command(flatten)]
    socket: AgentSocket,
}

impl Command {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Fetch(fetch) => fetch.run().await,
            Self::Validate(jwt::ValidateCommand::Jwt(validate)) => validate.run().await,
            Self::Watch(watch) => watch.run().await,
        }
    }
}

impl Asking {
    async fn client(&self) -> Result<SpiffeWorkloadApiClient<Channel>> {
        client(&self.socket).await
    }

    /// Waits for an answer, as long as the user will.
    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(refused(&status)),
            Err(_) => bail!(
                "no answer from the agent within {:?}; wait longer with -timeout",
                self.timeout
            ),
        }
    }
}

async fn client(socket: &AgentSocket) -> Result<SpiffeWorkloadApiClient<Channel>> {
    let channel = socket.connect().await?;
    Ok(SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(MAX_ANSWER))
}

/// A request with the header that the Workload API demands (SPIFFE_Workload_Endpoint.md §5).
fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::from_static("true");
    request.metadata_mut().insert("workload.spiffe.io", value);
    request
}
