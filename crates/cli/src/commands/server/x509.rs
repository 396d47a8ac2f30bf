//! `signet server x509 …`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::{Bundle, KeyType, PrivateKey, SpiffeId, X509Svid};
use proto::convert;
use proto::spire::api::server::bundle::v1::GetBundleRequest;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::svid::v1::MintX509svidRequest;
use proto::spire::api::server::svid::v1::svid_client::SvidClient;
use serde::Serialize;

use crate::client::{duration, refused, ttl_seconds};
use crate::files::{write_private, write_public};
use crate::output::{Output, Report, capped, say};
use crate::socket::ServerSocket;

/// X.509-SVIDs without an entry.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a key, and an X.509-SVID for it
    Mint(Mint),
}

/// `x509 mint`
#[derive(clap::Args, Debug)]
pub(crate) struct Mint {
    /// The SVID's SPIFFE ID
    #[arg(long = "spiffeID", value_name = "ID", required = true)]
    spiffe_id: SpiffeId,
    /// The SVID's lifetime, such as 1h [default: the server's]
    #[arg(long = "ttl", value_name = "TTL", value_parser = duration)]
    ttl: Option<Duration>,
    /// A DNS name in the SVID; may be given again
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<String>,
    /// A folder for svid.pem, key.pem and bundle.pem, instead of printing them
    #[arg(long = "write", value_name = "FOLDER")]
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
        let key = PrivateKey::generate(KeyType::EcP256)?;
        let request = MintX509svidRequest {
            csr: key.csr(Some(&self.spiffe_id), &self.dns_names)?.into(),
            ttl: ttl_seconds(self.ttl),
        };
        let channel = self.socket.connect().await?;
        let minted = SvidClient::new(channel.clone())
            .mint_x509svid(request)
            .await;
        let minted = minted
            .map_err(|status| refused(&status))
            .context("unable to mint SVID")?
            .into_inner();
        let Some(minted) = minted.svid else {
            bail!("server response missing SVID chain");
        };
        let svid = convert::x509_svid(&minted, key).context("the server's SVID is not right")?;

        let bundle = BundleClient::new(channel)
            .get_bundle(GetBundleRequest { output_mask: None })
            .await;
        let bundle = bundle
            .map_err(|status| refused(&status))
            .context("unable to get bundle")?;
        let bundle =
            convert::bundle(bundle.get_ref()).context("the server's bundle is malformed")?;
        if bundle.x509_authorities.is_empty() {
            bail!("server response missing X509 Authorities");
        }
        say(&capped("X509-SVID", self.ttl, svid.expires_at()))?;
        match &self.write {
            Some(folder) => written(folder, &svid, &bundle),
            None => {
                let json = Minted::new(&svid, &bundle);
                self.output.print_value(&json, || printed(&svid, &bundle))
            }
        }
    }
}

/// The shape of SPIRE's JSON, DER in base64.
#[derive(Serialize)]
struct Minted {
    x509_svid: Vec<String>,
    private_key: String,
    root_cas: Vec<String>,
}

impl Minted {
    fn new(svid: &X509Svid, bundle: &Bundle) -> Self {
        let chain = svid.chain().iter();
        let roots = bundle.x509_authorities.iter();
        Self {
            x509_svid: chain.map(|one| STANDARD.encode(one.der())).collect(),
            private_key: STANDARD.encode(svid.key().as_pkcs8_der()),
            root_cas: roots
                .map(|root| STANDARD.encode(root.certificate.der()))
                .collect(),
        }
    }
}

fn printed(svid: &X509Svid, bundle: &Bundle) -> Report {
    format!(
        "X509-SVID:\n{}\nPrivate key:\n{}\nRoot CAs:\n{}\n",
        svid.chain_pem(),
        svid.key().to_pem().as_str(),
        bundle.to_pem(),
    )
    .into()
}

fn written(folder: &Path, svid: &X509Svid, bundle: &Bundle) -> Result<()> {
    let (chain, key, roots) = (
        folder.join("svid.pem"),
        folder.join("key.pem"),
        folder.join("bundle.pem"),
    );
    write_public(&chain, &svid.chain_pem()).context("unable to write SVID")?;
    write_private(&key, &svid.key().to_pem()).context("unable to write key")?;
    write_public(&roots, &bundle.to_pem()).context("unable to write bundle")?;
    let text = format!(
        "X509-SVID written to {}\nPrivate key written to {}\nRoot CAs written to {}\n",
        chain.display(),
        key.display(),
        roots.display(),
    );
    say(&text.into())
}
