//! A client of the Workload API (SPIFFE_Workload_API.md): what a workload may have, kept up to date over the agent's socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use identity::{
    Bundle, BundleSet, Certificate, IdError, KeyError, PrivateKey, SpiffeId, TrustDomain,
    X509Authority, X509Error, X509Svid,
};
use proto::workload::X509svidRequest;
use proto::workload::X509svidResponse;
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use runtime::backoff::Backoff;
use runtime::{BoxError, Shutdown, Tasks};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use zeroize::Zeroize as _;

use crate::signet::unix_channel;

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(15);
/// How often the same trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// A message with many federated bundles may be larger than gRPC's usual 4 MiB.
const MAX_ANSWER: usize = 64 << 20;

/// The bare client; each call carries the security header.
pub type WorkloadClient = SpiffeWorkloadApiClient<InterceptedService<Channel, SecurityHeader>>;

/// What the Workload API gives in one message: a new one replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Context {
    /// The identities; never empty, the first is the default.
    pub svids: Vec<WorkloadSvid>,
    /// The authorities of the own trust domains and of federated ones.
    pub bundles: BundleSet,
}

impl X509Context {
    /// The identity to use when nothing else is said (SPIFFE_Workload_API.md §5.3).
    #[must_use]
    pub fn default_svid(&self) -> &WorkloadSvid {
        &self.svids[0]
    }
}

/// One identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadSvid {
    /// Chain and key.
    pub svid: X509Svid,
    /// Tells it from the others; may be empty.
    pub hint: String,
}

/// Why a message is not used.
#[derive(Debug, Error)]
enum AnswerError {
    #[error("the message holds no SVID")]
    Empty,
    #[error("SVID {number}: {source}")]
    Svid { number: usize, source: SvidError },
    #[error("the bundle of {trust_domain:?}: {source}")]
    Bundle {
        trust_domain: String,
        source: SvidError,
    },
}

#[derive(Debug, Error)]
enum SvidError {
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    X509(#[from] X509Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("says {said}, but the certificate is for {is}")]
    Mismatch { said: SpiffeId, is: SpiffeId },
    #[error("holds no certificate")]
    NoAuthority,
}

/// Keeps the X.509 context of this process, from the agent's `socket`, until shutdown; `None` until the first answer.
///
/// The last context stays when the agent is away or has no identity for the caller any more: look at
/// [`X509Svid::expires_at`].
#[must_use]
pub fn watch_x509(socket: &Path, tasks: &Tasks) -> watch::Receiver<Option<Arc<X509Context>>> {
    let (contexts, receiver) = watch::channel(None);
    let stream = Stream {
        socket: socket.to_owned(),
        contexts,
        complained: None,
    };
    tasks.spawn("workload api client", stream.run(tasks.shutdown()));
    receiver
}

/// A client of the Workload API on `socket`; connects at the first call.
#[must_use]
pub fn client(socket: &Path) -> WorkloadClient {
    let channel = unix_channel(socket, None);
    SpiffeWorkloadApiClient::with_interceptor(channel, SecurityHeader)
        .max_decoding_message_size(MAX_ANSWER)
}

/// Adds `workload.spiffe.io: true`, which a server-side request forgery cannot (SPIFFE_Workload_Endpoint.md §6).
#[derive(Clone, Copy, Debug)]
pub struct SecurityHeader;

impl Interceptor for SecurityHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("workload.spiffe.io", MetadataValue::from_static("true"));
        Ok(request)
    }
}

struct Stream {
    socket: PathBuf,
    contexts: watch::Sender<Option<Arc<X509Context>>>,
    complained: Option<Instant>,
}

impl Stream {
    async fn run(mut self, shutdown: Shutdown) -> Result<(), BoxError> {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let ended = tokio::select! {
                ended = self.receive(&mut backoff) => ended,
                () = shutdown.cancelled() => return Ok(()),
            };
            if ended.code() == Code::InvalidArgument {
                // Not to be tried again (SPIFFE_Workload_API.md §4.5): the answer would be the same.
                let socket = self.socket.display();
                let message = ended.message();
                return Err(format!("the Workload API at {socket} refuses: {message}").into());
            }
            self.complain(&ended);
            tokio::select! {
                () = sleep(backoff.fail()) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Takes contexts off one stream until it ends.
    async fn receive(&self, backoff: &mut Backoff) -> Status {
        let mut client = client(&self.socket);
        let mut answers = match client.fetch_x509svid(X509svidRequest {}).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return status,
        };
        loop {
            let answer = match answers.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return Status::unavailable("the agent ended the stream"),
                Err(status) => return status,
            };
            match context(answer) {
                Ok(context) => {
                    backoff.reset();
                    self.publish(context);
                }
                // The one before stays; the next may be better.
                Err(error) => tracing::error!(%error, "the agent's answer is not used"),
            }
        }
    }

    fn publish(&self, context: X509Context) {
        self.contexts.send_if_modified(|current| {
            let is_new = current.as_deref() != Some(&context);
            if is_new {
                *current = Some(Arc::new(context));
            }
            is_new
        });
    }

    fn complain(&mut self, ended: &Status) {
        let now = Instant::now();
        if self.complained.is_some_and(|last| now - last < LOG_EVERY) {
            return;
        }
        self.complained = Some(now);
        let socket = self.socket.display();
        let (code, message) = (ended.code(), ended.message());
        match code {
            Code::PermissionDenied => tracing::warn!(
                %socket, message,
                "the agent has no identity for this process; register it, this goes on asking"
            ),
            _ => {
                tracing::warn!(%socket, ?code, message, "the Workload API does not answer; trying again")
            }
        }
    }
}

/// Reads a message; the key bytes it came with are wiped.
fn context(answer: X509svidResponse) -> Result<X509Context, AnswerError> {
    let mut svids = Vec::with_capacity(answer.svids.len());
    let mut bundles = BundleSet::new();
    for (number, mut wire) in answer.svids.into_iter().enumerate() {
        let svid = wire_svid(&wire);
        wipe(&mut wire.x509_svid_key);
        let svid = svid.map_err(|source| AnswerError::Svid { number, source })?;
        let trust_domain = svid.id().trust_domain();
        let bundle = bundle(trust_domain, &wire.bundle)
            .map_err(|source| AnswerError::Svid { number, source })?;
        bundles.insert(Arc::new(bundle));
        let hint = wire.hint;
        svids.push(WorkloadSvid { svid, hint });
    }
    if svids.is_empty() {
        return Err(AnswerError::Empty);
    }
    for (name, der) in answer.federated_bundles {
        let federated = federated(&name, &der).map_err(|source| AnswerError::Bundle {
            trust_domain: name,
            source,
        })?;
        // The own domain's authorities come with the SVID, never as a foreign domain's.
        if bundles.get(&federated.trust_domain).is_none() {
            bundles.insert(Arc::new(federated));
        }
    }
    Ok(X509Context { svids, bundles })
}

fn wire_svid(wire: &proto::workload::X509svid) -> Result<X509Svid, SvidError> {
    let said = SpiffeId::parse(&wire.spiffe_id)?;
    let chain = Certificate::chain_from_der(&wire.x509_svid)?;
    let key = PrivateKey::from_pkcs8_der(&wire.x509_svid_key)?;
    let svid = X509Svid::new(chain, key)?;
    if *svid.id() != said {
        let is = svid.id().clone();
        return Err(SvidError::Mismatch { said, is });
    }
    Ok(svid)
}

/// `name` is a trust domain's ID (`spiffe://example.org`), or its bare name.
fn federated(name: &str, der: &[u8]) -> Result<Bundle, SvidError> {
    bundle(&TrustDomain::parse(name)?, der)
}

fn bundle(trust_domain: &TrustDomain, der: &[u8]) -> Result<Bundle, SvidError> {
    let authorities = Certificate::chain_from_der(der)?;
    if authorities.is_empty() {
        return Err(SvidError::NoAuthority);
    }
    let mut bundle = Bundle::empty(trust_domain.clone());
    bundle.x509_authorities = authorities.into_iter().map(X509Authority::new).collect();
    Ok(bundle)
}

/// Wipes bytes that nobody else holds; of shared ones only the handle goes.
fn wipe(bytes: &mut bytes::Bytes) {
    if let Ok(mut alone) = std::mem::take(bytes).try_into_mut() {
        alone.as_mut().zeroize();
    }
}

#[cfg(test)]
mod tests;
