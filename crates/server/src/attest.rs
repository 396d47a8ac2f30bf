//! Node attestation: how an agent proves on which node it runs.

mod join_token;
mod k8s_psat;
mod pss;
mod template;
mod x509pop;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use identity::{Bundle, Selectors, SpiffeId, TrustDomain};
use store::Store;
use thiserror::Error;
use tokio::sync::watch;

use crate::config::NodeAttestors;
use crate::rpc::RpcError;
use k8s_psat::K8sPsat;
use x509pop::X509pop;

pub(crate) use join_token::agent_id as token_agent_id;

/// Why a node attestor cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttestorError {
    /// A CA file cannot be read.
    #[error("NodeAttestor \"x509pop\": cannot read {path}: {source}")]
    ReadCa {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A CA file holds no sound certificates.
    #[error("NodeAttestor \"x509pop\": {path}: {reason}")]
    BadCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The template of the agents' paths is not understood.
    #[error("NodeAttestor \"x509pop\": agent_path_template: {0}")]
    Template(String),
    /// A cluster's credentials will not do.
    #[error("NodeAttestor \"k8s_psat\": cluster {cluster:?}: {reason}")]
    Cluster {
        /// Its name.
        cluster: String,
        /// What is wrong with them.
        reason: String,
    },
}

/// What an attestor found out about a node.
#[derive(Debug)]
pub(crate) struct Attested {
    /// Who the agent becomes.
    pub(crate) id: SpiffeId,
    /// Facts about the node.
    pub(crate) selectors: Selectors,
    /// Whether the same proof will be good again.
    pub(crate) can_reattest: bool,
}

/// How far an attestation has come.
pub(crate) enum Progress {
    /// The node is known.
    Attested(Attested),
    /// The agent has to answer this first.
    Challenge(Vec<u8>, Pending),
}

/// An attestation that waits for the answer to its challenge.
pub(crate) struct Pending(x509pop::Challenge);

impl Pending {
    /// Takes the agent's answer.
    ///
    /// # Errors
    /// When it is not the right one.
    pub(crate) fn answer(self, response: &[u8]) -> Result<Attested, RpcError> {
        self.0.verify(response)
    }
}

/// The node attestors that are switched on.
pub(crate) struct Attestors {
    trust_domain: TrustDomain,
    store: Store,
    bundle: watch::Receiver<Arc<Bundle>>,
    join_token: bool,
    x509pop: Option<X509pop>,
    k8s_psat: Option<K8sPsat>,
}

impl Attestors {
    /// Reads what the attestors need. `bundle` is the server's own, as it changes.
    ///
    /// # Errors
    /// When a file is missing or wrong, or a template is.
    pub(crate) async fn build(
        config: &NodeAttestors,
        trust_domain: &TrustDomain,
        store: Store,
        bundle: watch::Receiver<Arc<Bundle>>,
    ) -> Result<Self, AttestorError> {
        let x509pop = config.x509pop.as_ref();
        let x509pop = x509pop.map(|config| X509pop::build(config, trust_domain));
        let k8s_psat = match &config.k8s_psat {
            Some(config) => Some(K8sPsat::build(config, trust_domain).await?),
            None => None,
        };
        Ok(Self {
            trust_domain: trust_domain.clone(),
            store,
            bundle,
            join_token: config.join_token,
            x509pop: x509pop.transpose()?,
            k8s_psat,
        })
    }

    /// Takes an agent's first message.
    ///
    /// # Errors
    /// When there is no such attestor, or its proof is none.
    pub(crate) async fn begin(
        &self,
        kind: &str,
        payload: &[u8],
        now: SystemTime,
    ) -> Result<Progress, RpcError> {
        match kind {
            "join_token" if self.join_token => {
                let attested =
                    join_token::attest(&self.store, &self.trust_domain, payload, now).await?;
                Ok(Progress::Attested(attested))
            }
            x509pop::NAME if let Some(x509pop) = &self.x509pop => {
                let bundle = Arc::clone(&self.bundle.borrow());
                let (challenge, pending) = x509pop.challenge(payload, &bundle, now)?;
                Ok(Progress::Challenge(challenge, Pending(pending)))
            }
            k8s_psat::NAME if let Some(k8s_psat) = &self.k8s_psat => {
                Ok(Progress::Attested(k8s_psat.attest(payload).await?))
            }
            _ => Err(RpcError::FailedPrecondition(format!(
                "error getting node attestor: could not find node attestor type {kind:?}"
            ))),
        }
    }
}
