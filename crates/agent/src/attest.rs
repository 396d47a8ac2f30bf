//! Node attestors: how the agent proves to the server which node it is on, and the agent SVID that
//! comes of it.

pub mod bootstrap;
pub mod keeper;
pub mod proof;
pub mod store;

use std::{sync::Arc, time::Duration};

use identity::{Certificate, KeyError, PrivateKey, SpiffeId, TrustDomain, X509Error, X509Svid};
use proto::spire::api::{
    server::agent::v1::{
        AgentX509svidParams, AttestAgentRequest, AttestAgentResponse, agent_client::AgentClient,
        attest_agent_request, attest_agent_response,
    },
    types,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

use self::proof::{Proof, ProofError};

/// Below this path are the agents' SPIFFE IDs.
const AGENT_PATH: &str = "/spire/agent/";

/// How long an attestation may take, challenges included.
const ATTEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How many challenges an attestation may hold.
const MAX_CHALLENGES: usize = 8;

/// The agent's own identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSvid {
    /// Certificates and key.
    pub svid: Arc<X509Svid>,
    /// Whether the node may attest again at any time.
    pub reattestable: bool,
}

/// Why there is no agent SVID.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The proof could not be made.
    #[error("preparing the node attestation: {0}")]
    Proof(#[from] ProofError),
    /// The key or CSR could not be made.
    #[error("making the agent's key: {0}")]
    Key(#[from] KeyError),
    /// The server takes no such join token.
    #[error(
        "the server does not accept the join token ({0}). A token works once and for a short time: make a new one with \
         `signet server token generate` and start the agent with `-joinToken <token>`"
    )]
    Token(String),
    /// The server does not want this agent.
    #[error("the server refuses this agent: {0}")]
    Refused(String),
    /// The server cannot be reached, or did not answer as it should.
    #[error("attesting to the server: {}", describe(.0))]
    Rpc(Box<Status>),
    /// The conversation ended early.
    #[error("attesting to the server: {0}")]
    Conversation(&'static str),
    /// What the server issued is no agent SVID.
    #[error("the server's answer is no agent SVID: {0}")]
    Svid(#[from] X509Error),
    /// The SVID is somebody else's.
    #[error("the server issued {0}, which is no agent's SPIFFE ID in the trust domain {1}")]
    NotAnAgent(SpiffeId, TrustDomain),
}

impl AttestError {
    /// Whether trying again cannot help.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Token(_) | Self::Refused(_))
    }

    fn from_status(status: Status, kind: &str) -> Self {
        match status.code() {
            Code::PermissionDenied => Self::Refused(status.message().to_owned()),
            Code::InvalidArgument if kind == proof::JOIN_TOKEN => {
                Self::Token(status.message().to_owned())
            }
            _ => Self::Rpc(Box::new(status)),
        }
    }
}

/// What a status says, with the causes that tonic keeps behind it.
pub(crate) fn describe(status: &Status) -> String {
    let mut text = match status.code() {
        Code::Unknown | Code::Unavailable => status.message().to_owned(),
        code => format!("{:?}: {}", code, status.message()),
    };
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Attests over a channel on which the agent is nameless.
///
/// # Errors
/// See [`AttestError`]; [`AttestError::is_final`] tells whether to try again.
pub async fn attest(
    channel: Channel,
    proof: &Proof,
    key: PrivateKey,
    trust_domain: &TrustDomain,
) -> Result<AgentSvid, AttestError> {
    let conversation = converse(channel, proof, &key);
    let result = tokio::time::timeout(ATTEST_TIMEOUT, conversation)
        .await
        .map_err(|_| AttestError::Conversation("the server did not answer in time"))??;
    let svid = result.svid.unwrap_or_default();
    Ok(AgentSvid {
        svid: Arc::new(agent_svid(&svid.cert_chain, key, trust_domain)?),
        reattestable: result.reattestable,
    })
}

/// Joins the agent's key and the chain that the server sent for it.
fn agent_svid<C: AsRef<[u8]>>(
    chain: &[C],
    key: PrivateKey,
    trust_domain: &TrustDomain,
) -> Result<X509Svid, AttestError> {
    let chain = chain
        .iter()
        .map(|der| Certificate::from_der(der.as_ref()))
        .collect::<Result<_, _>>()?;
    let svid = X509Svid::new(chain, key)?;
    let id = svid.id();
    if !id.is_member_of(trust_domain) || !id.path().starts_with(AGENT_PATH) {
        return Err(AttestError::NotAnAgent(id.clone(), trust_domain.clone()));
    }
    Ok(svid)
}

async fn converse(
    channel: Channel,
    proof: &Proof,
    key: &PrivateKey,
) -> Result<attest_agent_response::Result, AttestError> {
    use attest_agent_response::Step;

    let refused = |status| AttestError::from_status(status, proof.kind());
    let (sender, requests) = mpsc::channel(1);
    let first = params(proof.kind(), proof.payload()?, key.csr(None, &[])?);
    // The channel holds one message, and nothing else is in it.
    let _ = sender.try_send(first);
    let mut answers = AgentClient::new(channel)
        .attest_agent(ReceiverStream::new(requests))
        .await
        .map_err(refused)?
        .into_inner();
    for _ in 0..=MAX_CHALLENGES {
        let answer = answers.message().await.map_err(refused)?;
        match answer.and_then(|AttestAgentResponse { step }| step) {
            Some(Step::Result(result)) => return Ok(result),
            Some(Step::Challenge(challenge)) => {
                let response = proof.respond(&challenge)?;
                let step = attest_agent_request::Step::ChallengeResponse(response.into());
                // When the server hung up, its answer says why.
                let _ = sender.send(AttestAgentRequest { step: Some(step) }).await;
            }
            None => {
                return Err(AttestError::Conversation(
                    "the server ended the conversation early",
                ));
            }
        }
    }
    Err(AttestError::Conversation(
        "the server sent challenge after challenge",
    ))
}

fn params(kind: &str, payload: Vec<u8>, csr: Vec<u8>) -> AttestAgentRequest {
    let params = attest_agent_request::Params {
        data: Some(types::AttestationData {
            r#type: kind.to_owned(),
            payload: payload.into(),
        }),
        params: Some(AgentX509svidParams { csr: csr.into() }),
    };
    AttestAgentRequest {
        step: Some(attest_agent_request::Step::Params(params)),
    }
}
