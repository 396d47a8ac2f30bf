//! `api fetch`, with `x509` when nothing is said.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proto::workload::{X509svidRequest, X509svidResponse};
use tokio::time::Instant;
use tonic::Response;

use super::x509::{self, Received};
use super::{Asking, jwt, request};
use crate::files::{write_private, write_public};
use crate::output::{Output, Report, say};

/// `api fetch`
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Fetch {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    x509: X509,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Fetch X.509-SVIDs
    X509(X509),
    /// Fetch JWT-SVIDs
    Jwt(jwt::Fetch),
}

/// `api fetch x509`
#[derive(clap::Args, Debug)]
struct X509 {
    /// Print nothing but errors and the names of written files
    #[arg(long = "silent")]
    silent: bool,
    /// A folder for the SVIDs, their keys and the bundles; with text output only
    #[arg(long = "write", value_name = "FOLDER")]
    write: Option<PathBuf>,
    /// Authorities, as PEM, that the SVIDs must be signed by; beside the bundle that comes with them
    #[arg(long = "bundle", value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    output: Output,
}

impl Fetch {
    pub(super) async fn run(self) -> Result<()> {
        match self.what {
            None => self.x509.run().await,
            Some(What::X509(x509)) => x509.run().await,
            Some(What::Jwt(jwt)) => jwt.run().await,
        }
    }
}

impl X509 {
    async fn run(self) -> Result<()> {
        let mut client = self.asking.client().await?;
        let start = Instant::now();
        let answer = self
            .asking
            .answer(async {
                let mut stream = client
                    .fetch_x509svid(request(X509svidRequest {}))
                    .await?
                    .into_inner();
                stream.message().await.map(Response::new)
            })
            .await?
            .context("the agent ended the stream without an SVID")?;
        let took = start.elapsed();
        let now = runtime::Clock::system().now();
        if let Some(file) = &self.bundle {
            x509::read(&answer)?.verify_by(file, now)?;
        }
        if self.output.is_json() {
            return self
                .output
                .print(&answer, |_: &X509svidResponse| Report::default());
        }
        let received = x509::read(&answer)?;
        received.verify(now)?;
        if !self.silent {
            say(&received.told(took).into())?;
        }
        match &self.write {
            Some(folder) => write(folder, &received),
            None => Ok(()),
        }
    }
}

/// Writes everything, under the names that SPIRE gives.
fn write(folder: &Path, received: &Received) -> Result<()> {
    for (number, one) in received.svids.iter().enumerate() {
        let path = folder.join(format!("svid.{number}.pem"));
        say(&format!("Writing SVID #{number} to file {}.\n", path.display()).into())?;
        write_public(&path, &one.svid.chain_pem())?;

        let path = folder.join(format!("svid.{number}.key"));
        say(&format!("Writing key #{number} to file {}.\n", path.display()).into())?;
        write_private(&path, &one.svid.key().to_pem())?;

        let path = folder.join(format!("bundle.{number}.pem"));
        say(&format!("Writing bundle #{number} to file {}.\n", path.display()).into())?;
        write_public(&path, &one.bundle.to_pem())?;

        for (other, bundle) in received.federated.iter().enumerate() {
            let path = folder.join(format!("federated_bundle.{number}.{other}.pem"));
            let (domain, file) = (&bundle.trust_domain, path.display());
            let text = format!(
                "Writing federated bundle #{other} for trust domain {domain} to file {file}.\n"
            );
            say(&text.into())?;
            write_public(&path, &bundle.to_pem())?;
        }
    }
    Ok(())
}
