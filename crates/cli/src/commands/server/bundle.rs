//! `signet server bundle …`

use anyhow::{Context, Result};
use proto::convert;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::bundle::v1::{CountBundlesRequest, GetBundleRequest};
use serde::Serialize as _;
use serde_json::ser::PrettyFormatter;
use serde_json::{Serializer, Value};

use crate::client::{MAX_ANSWER, refused};
use crate::output::{Output, counted};
use crate::socket::ServerSocket;

/// Trust bundles.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Show the server's own bundle
    Show(Show),
    /// Count the bundles, the server's own included
    Count(Count),
}

/// `bundle show`
#[derive(clap::Args, Debug)]
pub(crate) struct Show {
    /// CA certificates in PEM, or a SPIFFE bundle with all authorities
    #[arg(
        long = "format",
        value_name = "FORMAT",
        value_enum,
        ignore_case = true,
        default_value = "pem"
    )]
    format: Format,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Format {
    Pem,
    Spiffe,
}

/// `bundle count`
#[derive(clap::Args, Debug)]
pub(crate) struct Count {
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

impl Command {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Show(show) => show.run().await,
            Self::Count(count) => count.run().await,
        }
    }
}

impl Show {
    async fn run(self) -> Result<()> {
        let answer = BundleClient::new(self.socket.connect().await?)
            .max_decoding_message_size(MAX_ANSWER)
            .get_bundle(GetBundleRequest { output_mask: None })
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        let bundle = convert::bundle(&answer).context("the server's bundle is malformed")?;
        self.output.print(&answer, |_| {
            match self.format {
                Format::Pem => bundle.to_pem(),
                Format::Spiffe => indented(&bundle.to_spiffe_json()),
            }
            .into()
        })
    }
}

impl Count {
    async fn run(self) -> Result<()> {
        let count = BundleClient::new(self.socket.connect().await?)
            .count_bundles(CountBundlesRequest {})
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        self.output.print(&count, |count| {
            format!("{}\n", counted(count.count.into(), "bundle", "bundles")).into()
        })
    }
}

/// The document as SPIRE prints it: four spaces a level.
fn indented(json: &str) -> String {
    let mut text = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"    ");
    let mut out = Serializer::with_formatter(&mut text, formatter);
    let document: serde_json::Result<Value> = serde_json::from_str(json);
    match document.and_then(|document| document.serialize(&mut out)) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned() + "\n",
        Err(_) => format!("{json}\n"),
    }
}
