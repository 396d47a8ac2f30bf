//! Agents: the attested nodes.

use std::time::SystemTime;

use identity::{Selectors, SpiffeId};
use thiserror::Error;

use crate::{AgentFilter, Listing, Page, Store, StoreError};

/// An agent's SVID, as far as the server remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSvid {
    /// The certificate's serial number, decimal.
    pub serial: String,
    /// When the certificate expires.
    pub expires_at: SystemTime,
}

/// An attested agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// The node attestor that admitted it.
    pub attestation_type: String,
    /// What the attestor found out about the node.
    pub selectors: Selectors,
    /// The SVID in use. A banned agent's serial is empty.
    pub svid: AgentSvid,
    /// The SVID of a renewal that the agent has not used yet: until it does, either is good.
    pub renewed: Option<AgentSvid>,
    /// Whether it may attest again by the same means.
    pub can_reattest: bool,
    /// Whether it is refused for good.
    pub banned: bool,
    /// The version it last told; empty before.
    pub version: String,
}

/// Why an attestation is not recorded.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttestError {
    /// The agent is banned.
    #[error("the agent {0} is banned")]
    Banned(SpiffeId),
    /// The write failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an agent is not changed.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentError {
    /// No such agent.
    #[error("agent not found")]
    NotFound,
    /// The write failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Records an attestation: a new agent, or a known one's fresh selectors and SVID. A version that is known stays; a
    /// renewal that was under way is forgotten.
    ///
    /// # Errors
    /// When the agent is banned, or the write failed.
    pub async fn attest_agent(&self, agent: Agent) -> Result<(), AttestError> {
        let _ = agent;
        todo!()
    }

    /// Records a renewal: `svid` is good beside the one in use until the agent uses it ([`Store::activate_agent_svid`]).
    /// Also refused, as not found, to an agent whose SVID in use is not `current` any more.
    ///
    /// # Errors
    /// When there is no such agent, it is banned, or the write failed.
    pub async fn renew_agent(
        &self,
        id: &SpiffeId,
        current: &str,
        svid: AgentSvid,
    ) -> Result<(), AgentError> {
        let _ = (id, current, svid);
        todo!()
    }

    /// Makes the renewed SVID of serial `serial` the one in use; the old one is void from then on. Does nothing when it is in
    /// use already.
    ///
    /// # Errors
    /// When the agent, or a renewal of that serial, is not there, or the write failed.
    pub async fn activate_agent_svid(&self, id: &SpiffeId, serial: &str) -> Result<(), AgentError> {
        let _ = (id, serial);
        todo!()
    }

    /// Records the version an agent told.
    ///
    /// # Errors
    /// When there is no such agent, or the write failed.
    pub async fn set_agent_version(&self, id: &SpiffeId, version: &str) -> Result<(), AgentError> {
        let _ = (id, version);
        todo!()
    }

    /// Bans an agent: its SVIDs are void and it may not attest again. It stays in the list.
    ///
    /// # Errors
    /// When there is no such agent, or the write failed.
    pub async fn ban_agent(&self, id: &SpiffeId) -> Result<(), AgentError> {
        let _ = id;
        todo!()
    }

    /// Evicts an agent, together with the alias entry that its join token made, if any.
    ///
    /// # Errors
    /// When there is no such agent, or the write failed.
    pub async fn delete_agent(&self, id: &SpiffeId) -> Result<(), AgentError> {
        let _ = id;
        todo!()
    }

    /// Deletes agents whose SVIDs expired before `expired_before`, but for banned ones; without `non_reattestable`, only those
    /// that may attest again. Tells their IDs.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn prune_agents(
        &self,
        expired_before: SystemTime,
        non_reattestable: bool,
    ) -> Result<Vec<SpiffeId>, StoreError> {
        let _ = (expired_before, non_reattestable);
        todo!()
    }

    /// The agent of this SPIFFE ID.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn agent(&self, id: &SpiffeId) -> Result<Option<Agent>, StoreError> {
        let _ = id;
        todo!()
    }

    /// One page of the agents the filter means.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn list_agents(
        &self,
        filter: &AgentFilter,
        page: Page,
    ) -> Result<Listing<Agent>, StoreError> {
        let _ = (filter, page);
        todo!()
    }

    /// How many agents the filter means.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn count_agents(&self, filter: &AgentFilter) -> Result<u64, StoreError> {
        let _ = filter;
        todo!()
    }
}
