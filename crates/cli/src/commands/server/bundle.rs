//! `signet server bundle …`

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use identity::{Bundle, TrustDomain};
use proto::convert;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::bundle::v1::{
    BatchSetFederatedBundleRequest, CountBundlesRequest, GetBundleRequest,
};
use serde::Serialize as _;
use serde_json::ser::PrettyFormatter;
use serde_json::{Serializer, Value};

use crate::client::{MAX_ANSWER, refused};
use crate::files::read_text;
use crate::output::{Output, counted};
use crate::socket::ServerSocket;

/// Trust bundles.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Show the server's own bundle
    Show(Show),
    /// Set the bundle of another trust domain, with which entries may federate then
    Set(Set),
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

/// `bundle set`
#[derive(clap::Args, Debug)]
pub(crate) struct Set {
    /// The trust domain, as spiffe://partner.example
    #[arg(long = "id", value_name = "ID", required = true)]
    id: String,
    /// The bundle's file; `-` is standard input
    #[arg(long = "path", value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// What the file holds [default: told by its beginning]
    #[arg(long = "format", value_name = "FORMAT", value_enum, ignore_case = true)]
    format: Option<Format>,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
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
            Self::Set(set) => set.run().await,
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

impl Set {
    async fn run(self) -> Result<()> {
        let name = self.id.strip_prefix("spiffe://").unwrap_or(&self.id);
        let trust_domain: TrustDomain = name.parse().with_context(|| format!("-id {}", self.id))?;
        let text = read_text(&self.file)?;
        let bundle = match self.format.unwrap_or_else(|| Format::of(&text)) {
            Format::Pem => Bundle::from_pem(&trust_domain, &text),
            Format::Spiffe => Bundle::from_spiffe_json(&trust_domain, text.as_bytes()),
        };
        let bundle = bundle.with_context(|| format!("the bundle in {}", self.file.display()))?;
        let request = BatchSetFederatedBundleRequest {
            bundle: vec![(&bundle).into()],
            output_mask: None,
        };
        let answer = BundleClient::new(self.socket.connect().await?)
            .max_decoding_message_size(MAX_ANSWER)
            .batch_set_federated_bundle(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        let status = answer.results.first().and_then(|one| one.status.as_ref());
        match status {
            Some(status) if status.code == 0 => self
                .output
                .print(&answer, |_| "bundle set.\n".to_owned().into()),
            Some(status) => bail!("the bundle was not set: {}", status.message),
            None => bail!("the server's answer holds no result"),
        }
    }
}

impl Format {
    fn of(text: &str) -> Self {
        let json = text.trim_start().starts_with('{');
        if json { Self::Spiffe } else { Self::Pem }
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
