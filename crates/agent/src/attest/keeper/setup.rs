use std::sync::Arc;

use identity::{BundleSet, TrustDomain};
use runtime::{Clock, Metrics};
use tokio::sync::watch;

use crate::{
    attest::store::AgentStore,
    client::ServerClient,
    config::{Bootstrap, NodeAttestor, ServerAddress},
    disk::Disk,
    svid::Rotation,
};

/// What the keeper needs.
#[derive(Debug)]
pub struct Setup {
    /// Where the server is.
    pub server: ServerAddress,
    /// Whose agent this is.
    pub trust_domain: TrustDomain,
    /// The first trust.
    pub bootstrap: Bootstrap,
    /// How the node is proven.
    pub node_attestor: NodeAttestor,
    /// When the SVID is renewed.
    pub rotation: Rotation,
    /// The disk.
    pub store: Arc<AgentStore>,
    /// The connection, which shows what the keeper publishes.
    pub client: ServerClient,
    /// The trust in the server; filled at the first attestation.
    pub bundles: watch::Sender<Arc<BundleSet>>,
    /// The copy of workloads' SVIDs, which goes with the agent.
    pub disk: Option<Disk>,
    /// The clock.
    pub clock: Clock,
    /// Where figures go.
    pub metrics: Metrics,
}
