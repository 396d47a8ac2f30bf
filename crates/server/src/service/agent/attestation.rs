//! AttestAgent: parameters up, perhaps a challenge down and its answer up, the result down.

use ca::PublicKey;
use proto::spire::api::server::agent::v1::attest_agent_request::{self, Params};
use proto::spire::api::server::agent::v1::attest_agent_response::{self, Result as Verdict};
use proto::spire::api::server::agent::v1::{AttestAgentRequest, AttestAgentResponse};
use store::{Agent, AgentSvid, AttestError};
use tonic::{Status, Streaming};

use super::{AgentService, public_key, wire_svid};
use crate::attest::{Attested, Pending, Progress};
use crate::rpc::{DenyReason, RpcError};
use crate::service::incoming::Incoming;

/// One agent that attests.
pub(super) struct Attestation {
    service: AgentService,
    requests: Incoming<Streaming<AttestAgentRequest>>,
    state: State,
}

enum State {
    New,
    Challenged {
        pending: Box<Pending>,
        kind: String,
        key: PublicKey,
    },
    Over,
}

type Step = Option<(AttestAgentResponse, Attestation)>;

impl Attestation {
    pub(super) fn new(service: AgentService, requests: Streaming<AttestAgentRequest>) -> Self {
        let shutdown = service.0.shutdown.clone();
        Self {
            service,
            requests: Incoming::new(requests, shutdown),
            state: State::New,
        }
    }

    /// The next message to the agent.
    pub(super) async fn next(mut self) -> Result<Step, Status> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::New => {
                let (kind, payload, key) = read_params(self.message().await?)?;
                let now = self.service.0.clock.now();
                match self.service.0.attestors.begin(&kind, &payload, now).await? {
                    Progress::Attested(attested) => self.admit(attested, kind, &key).await,
                    Progress::Challenge(challenge, pending) => {
                        let pending = Box::new(pending);
                        self.state = State::Challenged { pending, kind, key };
                        Ok(Some((challenge_message(challenge), self)))
                    }
                }
            }
            State::Challenged { pending, kind, key } => {
                let Some(attest_agent_request::Step::ChallengeResponse(response)) =
                    self.message().await?
                else {
                    return Err(
                        RpcError::InvalidArgument("expected a challenge response".into()).into(),
                    );
                };
                let attested = pending.answer(&response)?;
                self.admit(attested, kind, &key).await
            }
            State::Over => Ok(None),
        }
    }

    async fn message(&mut self) -> Result<Option<attest_agent_request::Step>, Status> {
        let message = self.requests.message().await?;
        Ok(message.and_then(|message| message.step))
    }

    /// Issues the SVID, records the agent, and answers.
    async fn admit(
        self,
        attested: Attested,
        kind: String,
        key: &PublicKey,
    ) -> Result<Step, Status> {
        let Attested {
            id,
            selectors,
            can_reattest,
        } = attested;
        let parts = &self.service.0;
        if parts.entries.agent(&id).is_some_and(|agent| agent.banned) {
            return Err(banned().into());
        }
        let issued = self.service.sign(&id, key)?;
        let agent = Agent {
            id: id.clone(),
            attestation_type: kind,
            selectors,
            svid: AgentSvid {
                serial: issued.serial_decimal(),
                expires_at: issued.not_after,
            },
            renewed: None,
            can_reattest,
            banned: false,
            version: String::new(),
        };
        let attestation_type = agent.attestation_type.clone();
        parts
            .store
            .attest_agent(agent)
            .await
            .map_err(|error| match error {
                AttestError::Store(error) => error.into(),
                AttestError::Banned(_) => banned(),
                error => RpcError::PermissionDenied(format!("failed to attest: {error}")),
            })?;
        parts.entries.catch_up().await.map_err(RpcError::from)?;
        tracing::info!(agent_id = %id, attestation_type, "Agent attestation request completed");
        let verdict = Verdict {
            svid: Some(wire_svid(&id, &issued)),
            reattestable: can_reattest,
        };
        let answer = AttestAgentResponse {
            step: Some(attest_agent_response::Step::Result(verdict)),
        };
        Ok(Some((answer, self)))
    }
}

/// The attestor's name, its payload, and the key to certify.
fn read_params(
    step: Option<attest_agent_request::Step>,
) -> Result<(String, Vec<u8>, PublicKey), RpcError> {
    let missing =
        |what: &str| RpcError::InvalidArgument(format!("malformed param: missing {what}"));
    let Some(attest_agent_request::Step::Params(Params { data, params })) = step else {
        return Err(missing("params"));
    };
    let data = data.ok_or_else(|| missing("attestation data"))?;
    if data.r#type.is_empty() {
        return Err(missing("attestation data type"));
    }
    if data.payload.is_empty() {
        return Err(missing("attestation data payload"));
    }
    let params = params.ok_or_else(|| missing("X509-SVID parameters"))?;
    let key = public_key(&params.csr)?;
    Ok((data.r#type, data.payload.into(), key))
}

fn challenge_message(challenge: Vec<u8>) -> AttestAgentResponse {
    AttestAgentResponse {
        step: Some(attest_agent_response::Step::Challenge(challenge.into())),
    }
}

fn banned() -> RpcError {
    RpcError::Denied {
        text: "failed to attest: agent has been banned".into(),
        reason: DenyReason::AgentBanned,
    }
}
