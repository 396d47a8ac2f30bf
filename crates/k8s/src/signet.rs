//! The way to the server: gRPC over its private unix socket, where the caller is an administrator.

mod batch;
mod bundles;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use identity::{Bundle, KeyError, KeyType, PrivateKey, SpiffeId, X509Svid};
use proto::convert::FieldError;
use proto::spire::api::server::bundle::v1::GetBundleRequest;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::svid::v1::MintX509svidRequest;
use proto::spire::api::server::svid::v1::svid_client::SvidClient;
use proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub use batch::{Outcome, PAGE};

/// How long a call may take; a page of entries is the longest.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A page of entries may be larger than gRPC's usual 4 MiB.
const MAX_ANSWER: usize = 64 << 20;

/// Why the server did not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignetError {
    /// Nobody is there, or the call took too long: worth another try.
    #[error("the server at {socket} does not answer: {status}", socket = .socket.display(), status = .status.message())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// What gRPC says.
        status: Box<Status>,
    },
    /// The server refused.
    #[error("the server refused {call}: {} ({:?})", .status.message(), .status.code())]
    Refused {
        /// The method, or the item of a batch.
        call: &'static str,
        /// Its answer.
        status: Box<Status>,
    },
    /// The answer breaks a rule.
    #[error("the server's answer to {call} cannot be used: {source}")]
    Answer {
        /// The method.
        call: &'static str,
        /// Which field, and why.
        source: FieldError,
    },
    /// The answer has too few or too many results, or none.
    #[error("the server's answer to {call} holds {got} results instead of {expected}")]
    Results {
        /// The method.
        call: &'static str,
        /// How many came.
        got: usize,
        /// How many were due.
        expected: usize,
    },
    /// No key for a certificate.
    #[error("no key for the certificate: {0}")]
    Key(#[from] KeyError),
}

impl SignetError {
    /// Whether the server may answer a later try.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// A server, by its private socket. Connects at the first call and again after a loss; cheap to clone.
#[derive(Clone, Debug)]
pub struct Signet {
    socket: Arc<Path>,
    channel: Channel,
}

impl Signet {
    /// The server whose private socket is at `socket`; there need not be one yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let socket: Arc<Path> = socket.into();
        Self {
            channel: unix_channel(&socket, Some(TIMEOUT)),
            socket,
        }
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Registration entries.
    #[must_use]
    pub fn entries(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Federation relationships.
    #[must_use]
    pub fn trust_domains(&self) -> TrustDomainClient<Channel> {
        TrustDomainClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Bundles.
    #[must_use]
    pub fn bundles(&self) -> BundleClient<Channel> {
        BundleClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Issuing.
    #[must_use]
    pub fn svids(&self) -> SvidClient<Channel> {
        SvidClient::new(self.channel.clone())
    }

    /// The bundle of the server's own trust domain.
    ///
    /// # Errors
    /// When the server does not answer, or with no bundle.
    pub async fn bundle(&self) -> Result<Bundle, SignetError> {
        const CALL: &str = "GetBundle";
        let answer = self.bundles().get_bundle(GetBundleRequest::default()).await;
        let wire = answer.map_err(|status| self.failed(CALL, status))?;
        proto::convert::bundle(&wire.into_inner())
            .map_err(|source| SignetError::Answer { call: CALL, source })
    }

    /// An SVID of this ID with these DNS names, for a new key. The server shortens `ttl` to its authority's life.
    ///
    /// # Errors
    /// When the server does not answer, or refuses the ID or a name.
    pub async fn mint_x509_svid(
        &self,
        id: &SpiffeId,
        dns_names: &[String],
        ttl: Duration,
    ) -> Result<X509Svid, SignetError> {
        const CALL: &str = "MintX509SVID";
        let key = PrivateKey::generate(KeyType::EcP256)?;
        let request = MintX509svidRequest {
            csr: key.csr(Some(id), dns_names)?.into(),
            ttl: proto::convert::wire_ttl(Some(ttl)),
        };
        let answer = self.svids().mint_x509svid(request).await;
        let answer = answer.map_err(|status| self.failed(CALL, status))?;
        let svid = answer.into_inner().svid.unwrap_or_default();
        proto::convert::x509_svid(&svid, key)
            .map_err(|source| SignetError::Answer { call: CALL, source })
    }

    fn failed(&self, call: &'static str, status: Status) -> SignetError {
        let status = Box::new(status);
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                SignetError::Unreachable {
                    socket: self.socket.to_path_buf(),
                    status,
                }
            }
            _ => SignetError::Refused { call, status },
        }
    }
}

/// A channel over the unix socket at `socket`, which connects at the first call; each call may take `timeout`.
pub(crate) fn unix_channel(socket: &Path, timeout: Option<Duration>) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // Nothing reads the authority on a unix socket; it only has to be one.
    let endpoint = Endpoint::from_static("http://localhost").user_agent("signet-k8s");
    let endpoint = endpoint.unwrap_or_else(|_| Endpoint::from_static("http://localhost"));
    let endpoint = match timeout {
        Some(timeout) => endpoint.timeout(timeout),
        None => endpoint,
    };
    endpoint.connect_with_connector_lazy(connector)
}
