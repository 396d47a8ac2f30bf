//! `signet server jwt …`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use identity::SpiffeId;
use proto::convert;
use proto::spire::api::server::svid::v1::MintJwtsvidRequest;
use proto::spire::api::server::svid::v1::svid_client::SvidClient;

use crate::client::{duration, refused, ttl_seconds, wire_id};
use crate::files::write_private;
use crate::output::{Output, capped, say};
use crate::socket::ServerSocket;

/// JWT-SVIDs without an entry.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a JWT-SVID
    Mint(Mint),
}

/// `jwt mint`
#[derive(clap::Args, Debug)]
pub(crate) struct Mint {
    /// The SVID's SPIFFE ID
    #[arg(long = "spiffeID", value_name = "ID", required = true)]
    spiffe_id: SpiffeId,
    /// For whom the SVID is; may be given again
    #[arg(long = "audience", value_name = "AUDIENCE", required = true)]
    audience: Vec<String>,
    /// The SVID's lifetime, such as 5m [default: the server's]
    #[arg(long = "ttl", value_name = "TTL", value_parser = duration)]
    ttl: Option<Duration>,
    /// A file for the token, instead of printing it
    #[arg(long = "write", value_name = "FILE")]
    write: Option<PathBuf>,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

impl Command {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Mint(mint) => mint.run().await,
        }
    }
}

impl Mint {
    async fn run(self) -> Result<()> {
        let request = MintJwtsvidRequest {
            id: Some(wire_id(&self.spiffe_id)),
            audience: self.audience.clone(),
            ttl: ttl_seconds(self.ttl),
        };
        let answer = SvidClient::new(self.socket.connect().await?)
            .mint_jwtsvid(request)
            .await
            .map_err(|status| refused(&status))
            .context("unable to mint SVID")?
            .into_inner();
        let Some(minted) = &answer.svid else {
            bail!("server response missing token");
        };
        let svid = convert::jwt_svid(minted).context("the server's SVID is not right")?;
        say(&capped("JWT-SVID", self.ttl, svid.expires_at))?;
        match &self.write {
            Some(file) => {
                write_private(file, svid.token()).context("unable to write token")?;
                say(&format!("JWT-SVID written to {}\n", file.display()).into())
            }
            None => self
                .output
                .print(&answer, |_| format!("{}\n", svid.token()).into()),
        }
    }
}
