//! The task that owns the agent SVID: attests, renews at half-life, re-attests when told.

use std::{sync::Arc, time::Duration};

use identity::{Bundle, BundleSet, KeyType, PrivateKey, TrustDomain, X509Svid};
use proto::spire::api::{
    server::agent::v1::{AgentX509svidParams, RenewAgentRequest},
    types::permission_denied_details::Reason,
};
use runtime::{BoxError, Clock, Metrics, Shutdown, files::FileError};
use tokio::sync::{mpsc, watch};
use tonic::{Code, Status};

use super::{
    AgentSvid, AttestError, agent_svid, attest,
    bootstrap::{self, BootstrapError, Progress},
    describe,
    proof::{Proof, ProofError},
    store::AgentStore,
};
use crate::{
    backoff::Backoff,
    cache::is_tainted,
    client::{self, ServerClient, ServerTrust},
    config::{Bootstrap, NodeAttestor, ServerAddress},
    disk::Disk,
    svid::Rotation,
};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(20);

/// How long the keeper sleeps at most without a look at the clock.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// How long the answer to a renewal may take.
const RENEW_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The server does not want this agent.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The agent was banned.
    #[error(
        "this agent was banned: its SVID was deleted. To let the node in again, delete the agent with \
         `signet server agent evict` and attest anew"
    )]
    Banned,
    /// The agent must attest anew and cannot.
    #[error(
        "the server no longer knows this agent ({reason}), and {attestor} proves a node only once. Make a new join token \
         with `signet server token generate` and start the agent with `-joinToken <token>`"
    )]
    CannotReattest {
        /// Why it must.
        reason: String,
        /// Its node attestor.
        attestor: &'static str,
    },
}

/// What others must do to have the keeper's attention.
#[derive(Debug, Clone)]
pub struct Orders(mpsc::Sender<Order>);

#[derive(Debug)]
enum Order {
    /// The server answered with this.
    Denied(Reason, String),
    /// The bundle changed; the SVID may be under a tainted authority.
    Bundle(Arc<Bundle>),
}

impl Orders {
    /// Tells the keeper what the server said, if it is about the agent itself.
    pub fn report(&self, status: &Status) {
        if status.code() == Code::PermissionDenied {
            // Without a reason it is about the call, not about the agent.
            let Some(reason) = proto::convert::denied_reason(status) else {
                return;
            };
            // When the queue is full, the keeper looks at its SVID anyway.
            let _ = self
                .0
                .try_send(Order::Denied(reason, status.message().to_owned()));
        }
    }

    /// Tells the keeper of a new bundle.
    pub fn bundle(&self, bundle: Arc<Bundle>) {
        let _ = self.0.try_send(Order::Bundle(bundle));
    }
}

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

/// The task, before it runs.
#[derive(Debug)]
pub struct Keeper {
    setup: Setup,
    svid: watch::Sender<Option<Arc<X509Svid>>>,
    orders: mpsc::Receiver<Order>,
    current: Option<AgentSvid>,
    bootstrap: Progress,
}

impl Keeper {
    /// A keeper that publishes to `svid`, starting from what the disk had.
    #[must_use]
    pub fn new(
        setup: Setup,
        stored: Option<AgentSvid>,
        svid: watch::Sender<Option<Arc<X509Svid>>>,
    ) -> (Self, Orders) {
        let (sender, orders) = mpsc::channel(8);
        svid.send_replace(stored.as_ref().map(|stored| stored.svid.clone()));
        let keeper = Self {
            bootstrap: Progress::new(&setup.metrics, stored.is_some()),
            setup,
            svid,
            orders,
            current: stored,
        };
        (keeper, Orders(sender))
    }

    /// Runs until shutdown, or until the agent cannot go on.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), BoxError> {
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = self.keep() => ended.map_err(BoxError::from),
        }
    }

    async fn keep(&mut self) -> Result<(), KeepError> {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let step = match &self.current {
                None => self.attest_anew().await,
                Some(current) => {
                    let due = self.setup.rotation.due(current.svid.leaf());
                    let pause = due
                        .duration_since(self.setup.clock.now())
                        .unwrap_or_default();
                    // A machine that sleeps, or a clock set forward, must not carry the SVID past its end.
                    let look = pause.min(LONGEST_LOOK).max(backoff.pause());
                    tokio::select! {
                        () = tokio::time::sleep(look) => {
                            if self.setup.clock.now() < due {
                                continue;
                            }
                            self.renew().await
                        }
                        Some(order) = self.orders.recv() => self.obey(order).await,
                    }
                }
            };
            match step {
                Ok(()) => backoff.reset(),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error)) => {
                    let pause = backoff.fail();
                    tracing::warn!(error, retry_in_ms = pause.as_millis(), "no new agent SVID");
                    if self.current.is_none() {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
            self.drop_expired()?;
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), Failure> {
        match order {
            Order::Bundle(bundle) => {
                let tainted = |current: &AgentSvid| is_tainted(&bundle, &current.svid);
                if self.current.as_ref().is_some_and(tainted) {
                    tracing::info!("the agent SVID is under a tainted authority; replacing it");
                    return self.renew().await;
                }
                Ok(())
            }
            Order::Denied(Reason::AgentBanned, text) => {
                self.denied(Reason::AgentBanned, text).await
            }
            // It may be about an SVID that was replaced meanwhile: the server's word on the current one decides.
            Order::Denied(_, reason) => {
                tracing::info!(
                    reason,
                    "the server denied a call; asking it for a new agent SVID"
                );
                self.renew().await
            }
        }
    }

    /// What the server said of the current SVID.
    async fn denied(&mut self, reason: Reason, text: String) -> Result<(), Failure> {
        match reason {
            Reason::AgentBanned => {
                self.forget();
                Err(Failure::Final(KeepError::Banned))
            }
            Reason::AgentMustReattest => self.attest_anew().await,
            Reason::AgentExpired | Reason::AgentNotAttested | Reason::AgentNotActive => {
                self.start_over(text).await
            }
            Reason::Unknown => Ok(()),
        }
    }

    /// The server does not take the SVID any more.
    async fn start_over(&mut self, reason: String) -> Result<(), Failure> {
        tracing::warn!(
            reason,
            "the server does not take the agent SVID any more; attesting anew"
        );
        match self.attest_anew().await {
            Err(Failure::Final(KeepError::Attest(
                AttestError::Token(_) | AttestError::Proof(ProofError::NoToken),
            ))) => {
                self.forget();
                Err(Failure::Final(KeepError::CannotReattest {
                    reason,
                    attestor: super::proof::JOIN_TOKEN,
                }))
            }
            other => other,
        }
    }

    async fn renew(&mut self) -> Result<(), Failure> {
        let Some(current) = self.current.clone() else {
            return self.attest_anew().await;
        };
        if current.reattestable {
            return self.attest_anew().await;
        }
        let call = self.setup.metrics.call("agent_svid_rotate", &[]);
        let key = self.new_key().await?;
        let csr = key.csr(None, &[]).map_err(AttestError::from)?;
        let request = RenewAgentRequest {
            params: Some(AgentX509svidParams { csr: csr.into() }),
        };
        let mut agent = self.setup.client.agent();
        let renewed = tokio::time::timeout(RENEW_TIMEOUT, agent.renew_agent(request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("it did not answer in time")));
        let answer = match call.record(renewed) {
            Ok(answer) => answer.into_inner(),
            Err(status) => return self.refused(status).await,
        };
        let chain = answer.svid.unwrap_or_default().cert_chain;
        let svid = agent_svid(&chain, key, &self.setup.trust_domain)?;
        self.publish(AgentSvid {
            svid: svid.into(),
            reattestable: false,
        })
        .await;
        Ok(())
    }

    async fn refused(&mut self, status: Status) -> Result<(), Failure> {
        if status.code() == Code::PermissionDenied
            && let Some(reason) = proto::convert::denied_reason(&status)
        {
            return self.denied(reason, status.message().to_owned()).await;
        }
        Err(Failure::Passing(format!(
            "renewing the agent SVID: {}",
            describe(&status)
        )))
    }

    async fn attest_anew(&mut self) -> Result<(), Failure> {
        self.bootstrap.attempt();
        self.ensure_trust().await?;
        let call = self.setup.metrics.call("node_attest", &[]);
        let attested = self.attest().await;
        call.finish(code(&attested));
        match attested {
            Ok(svid) => {
                self.bootstrap.succeeded();
                tracing::info!(agent_id = %svid.svid.id(), reattestable = svid.reattestable, "node attested");
                self.publish(svid).await;
                Ok(())
            }
            Err(error) => {
                self.mistrust().await;
                Err(error.into())
            }
        }
    }

    async fn attest(&self) -> Result<AgentSvid, AttestError> {
        let proof = Proof::load(&self.setup.node_attestor)?;
        let key = self.new_key().await?;
        let trust = ServerTrust::Bundle(self.setup.bundles.subscribe());
        let (server, domain) = (&self.setup.server, &self.setup.trust_domain);
        let channel = client::open(server, domain, trust, None, self.setup.clock.clone());
        let labels = [("attestor", proof.kind())];
        let call = self.setup.metrics.call("node_attestor_new_svid", &labels);
        let attested = attest(channel, &proof, key, domain).await;
        call.finish(code(&attested));
        attested
    }

    /// Sees to it that there is a bundle to know the server by.
    async fn ensure_trust(&self) -> Result<(), Failure> {
        let domain = &self.setup.trust_domain;
        if self.setup.bundles.borrow().get(domain).is_some() {
            return Ok(());
        }
        let bundle = self.first_bundle().await?;
        tracing::info!(
            trust_domain = %domain,
            authorities = bundle.x509_authorities.len(),
            "trusting the server by its bundle"
        );
        self.save(|store| store.save_bundle(&bundle));
        let bundles = std::iter::once(Arc::new(bundle)).collect();
        self.setup.bundles.send_replace(Arc::new(bundles));
        Ok(())
    }

    /// After a failure: a bundle that the operator gives may be newer than the one that was kept, as
    /// after a long time without the server.
    async fn mistrust(&self) {
        if self.setup.bootstrap == Bootstrap::Insecure {
            return;
        }
        let Ok(given) = self.first_bundle().await else {
            return;
        };
        let domain = &self.setup.trust_domain;
        self.setup.bundles.send_if_modified(|bundles| {
            let mut kept = bundles
                .get(domain)
                .map_or_else(|| Bundle::empty(domain.clone()), |kept| (**kept).clone());
            let known = kept.x509_authorities.len();
            for authority in given.x509_authorities {
                let same = |one: &identity::X509Authority| one.certificate == authority.certificate;
                if !kept.x509_authorities.iter().any(same) {
                    kept.x509_authorities.push(authority);
                }
            }
            let grown = kept.x509_authorities.len() > known;
            if grown {
                tracing::info!(trust_domain = %domain, "taking new authorities from the configured trust bundle");
                Arc::make_mut(bundles).insert(kept.into());
            }
            grown
        });
    }

    async fn first_bundle(&self) -> Result<Bundle, BootstrapError> {
        let Setup {
            bootstrap,
            server,
            trust_domain,
            clock,
            ..
        } = &self.setup;
        bootstrap::first_bundle(bootstrap, server, trust_domain, clock).await
    }

    async fn new_key(&self) -> Result<PrivateKey, AttestError> {
        let call = self
            .setup
            .metrics
            .call("agent_key_manager_generate_key", &[]);
        let key = tokio::task::spawn_blocking(|| PrivateKey::generate(KeyType::EcP256))
            .await
            .map_err(|_| AttestError::Conversation("making a key was interrupted"))??;
        let saved = self.save(|store| store.save_key(&key));
        call.finish(if saved { Code::Ok } else { Code::Internal });
        Ok(key)
    }

    async fn publish(&mut self, svid: AgentSvid) {
        self.save(|store| store.save_svid(&svid));
        self.svid.send_replace(Some(svid.svid.clone()));
        self.current = Some(svid);
    }

    /// The server does not want this agent any more, so nothing of it may be served again.
    fn forget(&mut self) {
        self.save(AgentStore::forget_svid);
        if let Some(Err(error)) = self.setup.disk.as_ref().map(Disk::remove) {
            tracing::error!(%error, "delete it by hand");
        }
        self.current = None;
        self.svid.send_replace(None);
    }

    fn drop_expired(&mut self) -> Result<(), KeepError> {
        let now = self.setup.clock.now();
        let expired = |current: &AgentSvid| current.svid.expires_at() <= now;
        if !self.current.as_ref().is_some_and(expired) {
            return Ok(());
        }
        tracing::warn!("the agent SVID has expired; attesting anew");
        self.current = None;
        self.svid.send_replace(None);
        Ok(())
    }

    /// Writes to the disk. A disk that takes nothing does not stop the agent: it goes on with what
    /// it has in memory, and attests anew after a restart.
    fn save(&self, write: impl FnOnce(&AgentStore) -> Result<(), FileError>) -> bool {
        let written = write(&self.setup.store);
        if let Err(error) = &written {
            tracing::error!(%error, "going on without; after a restart the agent will have to attest anew");
        }
        written.is_ok()
    }
}

/// As what an attestation counts.
fn code(attested: &Result<AgentSvid, AttestError>) -> Code {
    match attested {
        Ok(_) => Code::Ok,
        Err(AttestError::Rpc(status)) => status.code(),
        Err(AttestError::Refused(_)) => Code::PermissionDenied,
        Err(AttestError::Token(_)) => Code::InvalidArgument,
        Err(_) => Code::Unknown,
    }
}

/// How a step failed.
#[derive(Debug)]
enum Failure {
    /// Trying again may help.
    Passing(String),
    /// It cannot.
    Final(KeepError),
}

impl From<AttestError> for Failure {
    fn from(error: AttestError) -> Self {
        if error.is_final() {
            Self::Final(error.into())
        } else {
            Self::Passing(error.to_string())
        }
    }
}

impl From<BootstrapError> for Failure {
    fn from(error: BootstrapError) -> Self {
        Self::Passing(error.to_string())
    }
}
