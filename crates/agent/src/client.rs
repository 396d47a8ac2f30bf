//! The mTLS channel to the server.
//!
//! A connection shows the agent SVID of the moment it was made. When the agent SVID changes, new
//! calls go over a new connection, and the former one ends with its last call.

mod connect;
mod tls;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use identity::{BundleSet, SpiffeId, TrustDomain, X509Svid};
use proto::spire::api::server::{
    agent::v1::agent_client::AgentClient, bundle::v1::bundle_client::BundleClient,
    entry::v1::entry_client::EntryClient, svid::v1::svid_client::SvidClient,
};
use runtime::Clock;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use crate::config::ServerAddress;

pub use self::{
    connect::ConnectError,
    tls::{ServerTrust, Shown},
};

/// The path of every server's SPIFFE ID.
pub const SERVER_PATH: &str = "/spire/server";

/// How long a TCP and TLS handshake may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call may take unless it says otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer read; SPIRE's servers send all bundles and entries of a page in one.
const MAX_ANSWER: usize = 64 << 20;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls the server as this agent. Clones are the same.
#[derive(Clone)]
pub struct ServerClient(Arc<Inner>);

struct Inner {
    address: ServerAddress,
    trust_domain: TrustDomain,
    clock: Clock,
    bundles: watch::Receiver<Arc<BundleSet>>,
    svid: watch::Receiver<Option<Arc<X509Svid>>>,
    current: Mutex<Option<Current>>,
}

/// A channel, and the SVID that it shows.
type Current = (Option<Arc<X509Svid>>, Channel);

impl ServerClient {
    /// Connects when first used, as `svid` says and to whom `bundles` proves, both at that moment.
    #[must_use]
    pub fn new(
        address: ServerAddress,
        trust_domain: TrustDomain,
        bundles: watch::Receiver<Arc<BundleSet>>,
        svid: watch::Receiver<Option<Arc<X509Svid>>>,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Inner {
            address,
            trust_domain,
            clock,
            bundles,
            svid,
            current: Mutex::new(None),
        }))
    }

    /// Agents: renew, post the status.
    #[must_use]
    pub fn agent(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel())
    }

    /// The own bundle and foreign ones.
    #[must_use]
    pub fn bundle(&self) -> BundleClient<Channel> {
        BundleClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The entries this agent may have.
    #[must_use]
    pub fn entry(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER)
    }

    /// SVIDs of those entries.
    #[must_use]
    pub fn svid(&self) -> SvidClient<Channel> {
        SvidClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Drops the connection, so that the next call makes a new one.
    pub fn disconnect(&self) {
        self.lock().take();
    }

    fn channel(&self) -> Channel {
        let svid = self.0.svid.borrow().clone();
        let mut current = self.lock();
        if let Some((shown, channel)) = &*current
            && same(shown.as_ref(), svid.as_ref())
        {
            return channel.clone();
        }
        let trust = ServerTrust::Bundle(self.0.bundles.clone());
        let channel = open(
            &self.0.address,
            &self.0.trust_domain,
            trust,
            svid.clone(),
            self.0.clock.clone(),
        );
        *current = Some((svid, channel.clone()));
        channel
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ServerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerClient")
            .field("address", &self.0.address)
            .finish_non_exhaustive()
    }
}

fn same(one: Option<&Arc<X509Svid>>, other: Option<&Arc<X509Svid>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// A channel to the server, connected when first used; without an SVID the agent stays nameless, as
/// for attestation.
#[must_use]
pub fn open(
    address: &ServerAddress,
    trust_domain: &TrustDomain,
    trust: ServerTrust,
    svid: Option<Arc<X509Svid>>,
    clock: Clock,
) -> Channel {
    let connector = connect::Connector {
        address: address.clone(),
        server_id: server_id(trust_domain),
        trust,
        svid,
        clock,
    };
    // The connector knows where to go; the URI only gives the requests an authority.
    Endpoint::from_static("http://spire-server")
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .user_agent(concat!("signet-agent/", env!("CARGO_PKG_VERSION")))
        .expect("a constant user agent must be a header value")
        .connect_with_connector_lazy(connector)
}

/// The SPIFFE ID that the servers of a trust domain have.
#[must_use]
pub fn server_id(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId::new(trust_domain, SERVER_PATH).expect("the server's path must be a path")
}
