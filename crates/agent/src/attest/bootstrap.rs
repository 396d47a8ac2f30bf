//! The first trust: where the bundle comes from by which the agent knows its server.

use std::{path::PathBuf, time::Duration};

use identity::{Bundle, BundleError, BundleSet, TrustDomain, X509Error, verify_x509_svid};
use proto::spire::api::server::bundle::v1::{GetBundleRequest, bundle_client::BundleClient};
use runtime::{Clock, Gauge, Metrics};
use tokio::time::Instant;
use tonic::Status;

use super::describe;
use crate::{
    client::{self, ServerTrust, Shown},
    config::{Bootstrap, BundleFormat, ServerAddress},
};

/// How long the first bundle may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why there is no first bundle.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("reading the trust bundle {}: {source}", .path.display())]
    File {
        /// `trust_bundle_path`.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was read is no bundle.
    #[error("{origin} is no trust bundle in the format {format}: {source}")]
    Bundle {
        /// The file or URL.
        origin: String,
        /// `pem` or `spiffe`.
        format: &'static str,
        /// What is wrong with it.
        source: BundleError,
    },
    /// The URL did not give it.
    #[error("fetching the trust bundle from {url}: {reason}")]
    Url {
        /// `trust_bundle_url`.
        url: String,
        /// What failed.
        reason: String,
    },
    /// The server did not send its bundle.
    #[error("asking the server for its bundle: {}", describe(.0))]
    Server(Box<Status>),
    /// The server's bundle cannot be read.
    #[error("the server's bundle cannot be read: {0}")]
    Conversion(String),
    /// The server is not of the bundle it sends.
    #[error("the server does not belong to the bundle it sends: {0}")]
    NotItsOwn(X509Error),
}

/// SPIRE's figures of an agent on its way to its first SVID: how long, how many attempts, whether it has arrived.
#[derive(Debug)]
pub(super) struct Progress {
    done: bool,
    began: Instant,
    arrived: Gauge,
    attempts: Gauge,
    seconds: Gauge,
}

impl Progress {
    /// An agent that has `done` it in an earlier run is there already.
    pub(super) fn new(metrics: &Metrics, done: bool) -> Self {
        let mode = [("mode", "bootstrap")];
        let arrived = metrics.gauge("bootstrapped", &[]);
        arrived.set(if done { 1.0 } else { 0.0 });
        Self {
            done,
            began: Instant::now(),
            arrived,
            attempts: metrics.gauge("bootstrap_attempts", &mode),
            seconds: metrics.gauge("bootstrap_seconds", &mode),
        }
    }

    /// It tries.
    pub(super) fn attempt(&self) {
        if !self.done {
            self.attempts.add(1.0);
            self.show_time();
        }
    }

    /// It has its first SVID.
    pub(super) fn succeeded(&mut self) {
        if !self.done {
            self.done = true;
            self.arrived.set(1.0);
            self.show_time();
        }
    }

    fn show_time(&self) {
        self.seconds.set(self.began.elapsed().as_secs_f64());
    }
}

/// Fetches the first bundle.
///
/// # Errors
/// See [`BootstrapError`].
pub async fn first_bundle(
    bootstrap: &Bootstrap,
    server: &ServerAddress,
    trust_domain: &TrustDomain,
    clock: &Clock,
) -> Result<Bundle, BootstrapError> {
    match bootstrap {
        Bootstrap::File { path, format } => {
            let bytes = tokio::fs::read(path)
                .await
                .map_err(|source| BootstrapError::File {
                    path: path.clone(),
                    source,
                })?;
            parse(trust_domain, &bytes, *format, &path.display().to_string())
        }
        Bootstrap::Url { url, format } => {
            let fetched = tokio::time::timeout(TIMEOUT, crate::fetch::get(url))
                .await
                .map_err(|_| "it did not answer in time".to_owned())
                .and_then(|fetched| fetched.map_err(|error| error.to_string()));
            let bytes = fetched.map_err(|reason| BootstrapError::Url {
                url: url.clone(),
                reason,
            })?;
            parse(trust_domain, &bytes, *format, url)
        }
        Bootstrap::Insecure => from_whoever_answers(server, trust_domain, clock).await,
    }
}

fn parse(
    trust_domain: &TrustDomain,
    bytes: &[u8],
    format: BundleFormat,
    origin: &str,
) -> Result<Bundle, BootstrapError> {
    let (read, name) = match format {
        BundleFormat::Pem => (
            Bundle::from_pem(trust_domain, &String::from_utf8_lossy(bytes)),
            "pem",
        ),
        BundleFormat::Spiffe => (Bundle::from_spiffe_json(trust_domain, bytes), "spiffe"),
    };
    read.map_err(|source| BootstrapError::Bundle {
        origin: origin.to_owned(),
        format: name,
        source,
    })
}

/// Takes the bundle of a server that nothing vouches for, and holds the server to it.
async fn from_whoever_answers(
    server: &ServerAddress,
    trust_domain: &TrustDomain,
    clock: &Clock,
) -> Result<Bundle, BootstrapError> {
    tracing::warn!(
        %server,
        "trusting the server unseen (insecure_bootstrap); whoever answers there now is trusted from now on"
    );
    let shown = Shown::default();
    let trust = ServerTrust::Anybody(shown.clone());
    let channel = client::open(server, trust_domain, trust, None, clock.clone());
    let request = GetBundleRequest { output_mask: None };
    let answer = tokio::time::timeout(TIMEOUT, BundleClient::new(channel).get_bundle(request))
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("it did not answer in time")))
        .map_err(|status| BootstrapError::Server(Box::new(status)))?;
    let bundle = proto::convert::bundle(answer.get_ref())
        .map_err(|error| BootstrapError::Conversion(error.to_string()))?;
    let bundles: BundleSet = std::iter::once(bundle.clone().into()).collect();
    verify_x509_svid(&shown.chain(), &bundles, clock.now()).map_err(BootstrapError::NotItsOwn)?;
    Ok(bundle)
}
