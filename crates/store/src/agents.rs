//! Agents: the attested nodes.

mod row;
mod write;

use std::time::SystemTime;

use identity::{Selectors, SpiffeId};
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Row as _, Sqlite};
use thiserror::Error;

pub(crate) use row::AgentRow;

use crate::sets::{Index, Members as _};
use crate::time::seconds;
use crate::{AgentFilter, Listing, Page, Store, StoreError};

const SELECTORS: Index = Index {
    table: "agent_selectors",
    whole: "selectors",
    count: "selector_count",
};

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
    /// Another node attestor admitted the agent of this ID.
    #[error(
        "the agent {id} is known by the node attestor {known}; evict it before it attests by another"
    )]
    OtherAttestor {
        /// The agent.
        id: SpiffeId,
        /// The node attestor that admitted it.
        known: String,
    },
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
    /// When the agent is banned, another node attestor admitted it, or the write failed.
    pub async fn attest_agent(&self, agent: Agent) -> Result<(), AttestError> {
        self.write("node_create", move |transaction| {
            Box::pin(write::attest(transaction, agent))
        })
        .await?
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
        let current = current.to_owned();
        self.edit_agent(id, move |agent| {
            if agent.banned || agent.svid.serial != current {
                return Edit::Refuse;
            }
            agent.renewed = Some(svid);
            Edit::Write
        })
        .await
    }

    /// Makes the renewed SVID of serial `serial` the one in use; the old one is void from then on. Does nothing when it is in
    /// use already.
    ///
    /// # Errors
    /// When the agent, or a renewal of that serial, is not there, or the write failed.
    pub async fn activate_agent_svid(&self, id: &SpiffeId, serial: &str) -> Result<(), AgentError> {
        let serial = serial.to_owned();
        self.edit_agent(id, move |agent| {
            if agent.banned {
                return Edit::Refuse;
            }
            match agent.renewed.take_if(|svid| svid.serial == serial) {
                Some(svid) => {
                    agent.svid = svid;
                    Edit::Write
                }
                None if agent.svid.serial == serial => Edit::Keep,
                None => Edit::Refuse,
            }
        })
        .await
    }

    /// Records the version an agent told.
    ///
    /// # Errors
    /// When there is no such agent, or the write failed.
    pub async fn set_agent_version(&self, id: &SpiffeId, version: &str) -> Result<(), AgentError> {
        let version = version.to_owned();
        self.edit_agent(id, move |agent| {
            if agent.version == version {
                return Edit::Keep;
            }
            agent.version = version;
            Edit::Write
        })
        .await
    }

    /// Bans an agent: its SVIDs are void and it may not attest again. It stays in the list.
    ///
    /// # Errors
    /// When there is no such agent, or the write failed.
    pub async fn ban_agent(&self, id: &SpiffeId) -> Result<(), AgentError> {
        self.edit_agent(id, |agent| {
            agent.banned = true;
            agent.svid.serial.clear();
            agent.renewed = None;
            Edit::Write
        })
        .await
    }

    async fn edit_agent<F>(&self, id: &SpiffeId, edit: F) -> Result<(), AgentError>
    where
        F: FnOnce(&mut Agent) -> Edit + Send + 'static,
    {
        let id = id.clone();
        self.write("node_update", move |transaction| {
            Box::pin(write::edit(transaction, id, edit))
        })
        .await?
    }

    /// Evicts an agent, together with the alias entry that its join token made, if any.
    ///
    /// # Errors
    /// When there is no such agent, or the write failed.
    pub async fn delete_agent(&self, id: &SpiffeId) -> Result<(), AgentError> {
        let id = id.clone();
        self.write("node_delete", move |transaction| {
            Box::pin(write::delete(transaction, id))
        })
        .await?
    }

    /// Deletes at most `limit` agents whose SVIDs expired before `expired_before`, but for banned ones; without
    /// `non_reattestable`, only those that may attest again. Tells their IDs.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn prune_agents(
        &self,
        expired_before: SystemTime,
        non_reattestable: bool,
        limit: u32,
    ) -> Result<Vec<SpiffeId>, StoreError> {
        self.write("node_prune", move |transaction| {
            Box::pin(write::prune(
                transaction,
                expired_before,
                non_reattestable,
                limit,
            ))
        })
        .await
    }

    /// The agent of this SPIFFE ID.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn agent(&self, id: &SpiffeId) -> Result<Option<Agent>, StoreError> {
        self.observe("node_fetch", async {
            let found = by_id(&mut *self.reader().await?, id.as_str()).await?;
            Ok(found.map(|row| row.agent))
        })
        .await
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
        self.observe("node_list", async {
            let mut query = QueryBuilder::new(row::SELECT);
            push_filter(&mut query, filter);
            page.push_to(&mut query);
            let rows = query.build().fetch_all(&mut *self.reader().await?).await?;
            let rows: Vec<AgentRow> = rows.iter().map(row::read).collect::<Result<_, _>>()?;
            let next = page.next(rows.last().map(|row| row.id));
            let items = rows.into_iter().map(|row| row.agent).collect();
            Ok(Listing { items, next })
        })
        .await
    }

    /// How many agents the filter means.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn count_agents(&self, filter: &AgentFilter) -> Result<u64, StoreError> {
        self.observe("node_count", async {
            let mut query = QueryBuilder::new("SELECT COUNT(*) FROM agents WHERE TRUE");
            push_filter(&mut query, filter);
            let row = query.build().fetch_one(&mut *self.reader().await?).await?;
            Ok(row.try_get::<i64, _>(0)?.cast_unsigned())
        })
        .await
    }
}

/// What an edit of an agent comes to.
enum Edit {
    Write,
    Keep,
    Refuse,
}

fn push_filter(query: &mut QueryBuilder<Sqlite>, filter: &AgentFilter) {
    let AgentFilter {
        attestation_type,
        selectors,
        banned,
        can_reattest,
        expires_before,
    } = filter;
    if let Some(attestation_type) = attestation_type {
        query
            .push(" AND attestation_type = ")
            .push_bind(attestation_type.as_str());
    }
    if let Some(banned) = banned {
        query.push(" AND banned = ").push_bind(banned);
    }
    if let Some(can_reattest) = can_reattest {
        query.push(" AND can_reattest = ").push_bind(can_reattest);
    }
    if let Some(expires_before) = expires_before {
        query
            .push(" AND expires_at < ")
            .push_bind(seconds(*expires_before));
    }
    if let Some((how, wanted)) = selectors {
        SELECTORS.push_condition(query, *how, &wanted.members());
    }
}

/// All agents, in the order of their first attestation.
pub(crate) async fn all(connection: &mut SqliteConnection) -> Result<Vec<Agent>, StoreError> {
    let rows = sqlx::query(row::SELECT_ALL).fetch_all(connection).await?;
    rows.iter()
        .map(|row| row::read(row).map(|row| row.agent))
        .collect()
}

pub(crate) async fn by_id(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<Option<AgentRow>, StoreError> {
    let row = sqlx::query(row::SELECT_BY_ID)
        .bind(id)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(row::read).transpose()
}
