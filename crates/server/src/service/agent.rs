//! spire.api.server.agent.v1

mod attestation;
mod filter;
mod token;

use std::sync::Arc;
use std::time::Duration;

use ca::{IssuedX509, LeafSpec, PublicKey};
use futures_util::stream;
use identity::{SpiffeId, TrustDomain};
use proto::convert::{self, mask_agent, wire_selectors, wire_time};
use proto::spire::api::server::agent::v1::agent_server;
use proto::spire::api::server::agent::v1::{
    AttestAgentRequest, AttestAgentResponse, BanAgentRequest, CountAgentsRequest,
    CountAgentsResponse, CreateJoinTokenRequest, DeleteAgentRequest, GetAgentRequest,
    ListAgentsRequest, ListAgentsResponse, PostStatusRequest, PostStatusResponse,
    RenewAgentRequest, RenewAgentResponse,
};
use proto::spire::api::types;
use runtime::{Clock, Shutdown};
use store::{Agent, AgentError, AgentSvid, Store};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::attest::Attestors;
use crate::authority::Authorities;
use crate::caller::Caller;
use crate::endpoints::limits::{self, Work};
use crate::entries::Entries;
use crate::rpc::{DenyReason, RpcError};
use crate::service::list;
use attestation::Attestation;

/// The longest version an agent may tell, in bytes.
const MAX_VERSION_LEN: usize = 255;

/// Admits agents, renews their SVIDs, and lets operators see and remove them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AgentService(Arc<Parts>);

/// What the service works with.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) entries: Entries,
    pub(crate) authorities: Authorities,
    pub(crate) attestors: Arc<Attestors>,
    pub(crate) trust_domain: TrustDomain,
    /// Life of agents' SVIDs.
    pub(crate) agent_ttl: Duration,
    pub(crate) clock: Clock,
    /// Ends calls that wait for their client.
    pub(crate) shutdown: Shutdown,
}

impl AgentService {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    async fn count(&self, request: CountAgentsRequest) -> Result<CountAgentsResponse, RpcError> {
        let filter = filter::of_count(request.filter.as_ref())?;
        let count = self.0.store.count_agents(&filter).await?;
        Ok(CountAgentsResponse {
            count: i32::try_from(count).unwrap_or(i32::MAX),
        })
    }

    async fn list(&self, request: ListAgentsRequest) -> Result<ListAgentsResponse, RpcError> {
        let filter = filter::of_list(request.filter.as_ref())?;
        let page = list::page(request.page_size, &request.page_token)?;
        let listing = self.0.store.list_agents(&filter, page).await?;
        let mask = request.output_mask.as_ref();
        Ok(ListAgentsResponse {
            agents: listing
                .items
                .iter()
                .map(|agent| wire(agent, mask))
                .collect(),
            next_page_token: list::token(listing.next),
        })
    }

    async fn get(&self, request: GetAgentRequest) -> Result<types::Agent, RpcError> {
        let id = self.agent_id(request.id.as_ref())?;
        let agent = self.0.store.agent(&id).await?;
        let agent = agent.ok_or_else(|| RpcError::NotFound("agent not found".into()))?;
        Ok(wire(&agent, request.output_mask.as_ref()))
    }

    async fn delete(&self, request: DeleteAgentRequest) -> Result<(), RpcError> {
        let id = self.agent_id(request.id.as_ref())?;
        self.0.store.delete_agent(&id).await.map_err(agent_error)?;
        self.0.entries.catch_up().await?;
        tracing::info!(agent_id = %id, "Agent deleted");
        Ok(())
    }

    async fn ban(&self, request: BanAgentRequest) -> Result<(), RpcError> {
        let id = self.agent_id(request.id.as_ref())?;
        self.0.store.ban_agent(&id).await.map_err(agent_error)?;
        self.0.entries.catch_up().await?;
        tracing::info!(agent_id = %id, "Agent banned");
        Ok(())
    }

    async fn renew(
        &self,
        id: &SpiffeId,
        serial: &str,
        csr: &[u8],
    ) -> Result<types::X509svid, RpcError> {
        let agent = self.0.entries.agent(id).ok_or_else(|| RpcError::Denied {
            text: "agent is not attested".into(),
            reason: DenyReason::AgentNotAttested,
        })?;
        if agent.can_reattest {
            return Err(RpcError::Denied {
                text: "agent must reattest instead of renew".into(),
                reason: DenyReason::AgentMustReattest,
            });
        }
        let key = public_key(csr)?;
        let issued = self.sign(id, &key)?;
        let svid = AgentSvid {
            serial: issued.serial_decimal(),
            expires_at: issued.not_after,
        };
        let renewed = self.0.store.renew_agent(id, serial, svid).await;
        renewed.map_err(|error| match error {
            AgentError::Store(error) => error.into(),
            // Banned, evicted or renewed between the gate and here.
            _ => RpcError::Denied {
                text: "agent is not active".into(),
                reason: DenyReason::AgentNotActive,
            },
        })?;
        self.0.entries.catch_up().await?;
        tracing::info!(agent_id = %id, "Agent SVID renewed");
        Ok(wire_svid(id, &issued))
    }

    async fn post_status(&self, id: &SpiffeId, request: PostStatusRequest) -> Result<(), RpcError> {
        if request.agent_version.len() > MAX_VERSION_LEN {
            return Err(RpcError::InvalidArgument(format!(
                "the agent version is longer than {MAX_VERSION_LEN} bytes"
            )));
        }
        let set = self
            .0
            .store
            .set_agent_version(id, &request.agent_version)
            .await;
        set.map_err(agent_error)?;
        self.0.entries.catch_up().await?;
        Ok(())
    }

    fn sign(&self, id: &SpiffeId, key: &PublicKey) -> Result<IssuedX509, RpcError> {
        self.0.authorities.sign_x509(&LeafSpec {
            id,
            public_key: key,
            dns_names: &[],
            ttl: self.0.agent_ttl,
            subject: None,
        })
    }

    /// An ID that an agent of ours may have.
    fn agent_id(&self, id: Option<&types::Spiffeid>) -> Result<SpiffeId, RpcError> {
        let invalid = |reason: &dyn std::fmt::Display| {
            RpcError::InvalidArgument(format!("invalid agent ID: {reason}"))
        };
        let id = convert::spiffe_id("id", id).map_err(|error| invalid(&error))?;
        if !id.is_member_of(&self.0.trust_domain) {
            return Err(invalid(&format_args!(
                "{id} is not in the trust domain {}",
                self.0.trust_domain
            )));
        }
        if !id.path().starts_with("/spire/agent/") {
            return Err(invalid(&format_args!("{id} is not below /spire/agent/")));
        }
        Ok(id)
    }
}

#[tonic::async_trait]
impl agent_server::Agent for AgentService {
    async fn count_agents(
        &self,
        request: Request<CountAgentsRequest>,
    ) -> Result<Response<CountAgentsResponse>, Status> {
        Ok(Response::new(self.count(request.into_inner()).await?))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn get_agent(
        &self,
        request: Request<GetAgentRequest>,
    ) -> Result<Response<types::Agent>, Status> {
        Ok(Response::new(self.get(request.into_inner()).await?))
    }

    async fn delete_agent(
        &self,
        request: Request<DeleteAgentRequest>,
    ) -> Result<Response<()>, Status> {
        Ok(Response::new(self.delete(request.into_inner()).await?))
    }

    async fn ban_agent(&self, request: Request<BanAgentRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(self.ban(request.into_inner()).await?))
    }

    async fn attest_agent(
        &self,
        request: Request<Streaming<AttestAgentRequest>>,
    ) -> Result<Response<BoxStream<AttestAgentResponse>>, Status> {
        limits::take(&request, Work::Attest, 1).await?;
        let attestation = Attestation::new(self.clone(), request.into_inner());
        let answers = stream::try_unfold(attestation, Attestation::next);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn renew_agent(
        &self,
        request: Request<RenewAgentRequest>,
    ) -> Result<Response<RenewAgentResponse>, Status> {
        limits::take(&request, Work::Renew, 1).await?;
        let Caller::Agent { id, serial } = Caller::of(&request)?.clone() else {
            return Err(
                RpcError::PermissionDenied("only an agent may call this method".into()).into(),
            );
        };
        let params = request.into_inner().params.unwrap_or_default();
        let svid = self.renew(&id, &serial, &params.csr).await?;
        Ok(Response::new(RenewAgentResponse { svid: Some(svid) }))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        Ok(Response::new(
            self.create_token(request.into_inner()).await?,
        ))
    }

    async fn post_status(
        &self,
        request: Request<PostStatusRequest>,
    ) -> Result<Response<PostStatusResponse>, Status> {
        limits::take(&request, Work::PostStatus, 1).await?;
        let id = Caller::agent(&request)?.clone();
        self.post_status(&id, request.into_inner()).await?;
        Ok(Response::new(PostStatusResponse {}))
    }
}

/// An agent as the caller wants to see it.
fn wire(agent: &Agent, mask: Option<&types::AgentMask>) -> types::Agent {
    let mut out = types::Agent {
        id: Some((&agent.id).into()),
        attestation_type: agent.attestation_type.clone(),
        x509svid_serial_number: agent.svid.serial.clone(),
        x509svid_expires_at: wire_time(agent.svid.expires_at),
        selectors: wire_selectors(&agent.selectors),
        banned: agent.banned,
        can_reattest: agent.can_reattest,
        agent_version: agent.version.clone(),
    };
    mask_agent(&mut out, mask);
    out
}

fn wire_svid(id: &SpiffeId, issued: &IssuedX509) -> types::X509svid {
    types::X509svid {
        cert_chain: vec![issued.der.clone().into()],
        id: Some(id.into()),
        expires_at: wire_time(issued.not_after),
        hint: String::new(),
    }
}

/// The public key of an agent's CSR; nothing else of it counts.
fn public_key(csr: &[u8]) -> Result<PublicKey, RpcError> {
    if csr.is_empty() {
        return Err(RpcError::InvalidArgument(
            "malformed param: missing CSR".into(),
        ));
    }
    ca::csr::parse(csr)
        .map_err(|error| RpcError::InvalidArgument(format!("malformed param: {error}")))
}

fn agent_error(error: AgentError) -> RpcError {
    match error {
        AgentError::Store(error) => error.into(),
        _ => RpcError::NotFound("agent not found".into()),
    }
}
