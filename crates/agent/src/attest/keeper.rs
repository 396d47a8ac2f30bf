//! The task that owns the agent SVID: attests, renews at half-life, re-attests when told.

mod orders;
mod setup;
mod trust;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{KeyType, PrivateKey, X509Svid};
use proto::spire::api::{
    server::agent::v1::{AgentX509svidParams, RenewAgentRequest},
    types::permission_denied_details::Reason,
};
use runtime::{BoxError, Shutdown, files::FileError};
use tokio::sync::{mpsc, watch};
use tonic::{Code, Status};

pub use self::{orders::Orders, setup::Setup};

use self::orders::Order;
use super::{
    AgentSvid, AttestError, agent_svid, attest,
    bootstrap::{BootstrapError, Progress},
    describe,
    proof::{Proof, ProofError},
    store::AgentStore,
};
use crate::{
    backoff::Backoff,
    cache::is_tainted,
    client::{self, ServerTrust},
    clock_watch::{ClockSet, ClockWatch},
    disk::Disk,
};

/// Until a node has attested, everything on it waits, so a server that comes up is soon asked.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

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

/// The task, before it runs.
#[derive(Debug)]
pub struct Keeper {
    setup: Setup,
    svid: watch::Sender<Option<Arc<X509Svid>>>,
    orders: mpsc::Receiver<Order>,
    current: Option<AgentSvid>,
    bootstrap: Progress,
    /// One that had expired by a clock which may be wrong.
    expired: Option<AgentSvid>,
    watch: ClockWatch,
    /// To be renewed as soon as can be.
    overdue: bool,
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
            watch: ClockWatch::new(setup.clock.clone()),
            setup,
            svid,
            orders,
            current: stored,
            expired: None,
            overdue: false,
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
            self.tell_time();
            let step = match self.due() {
                None => self.attest_anew().await,
                Some(due) => {
                    let pause = due
                        .duration_since(self.setup.clock.now())
                        .unwrap_or_default();
                    // A machine that sleeps, or a clock set forward, must not carry the SVID past its end.
                    let look = pause.min(LONGEST_LOOK).max(backoff.pause());
                    tokio::select! {
                        () = tokio::time::sleep(look) => {
                            self.tell_time();
                            if self.due().is_some_and(|due| self.setup.clock.now() < due) {
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
                Err(Failure::Final(error)) => {
                    // By a clock that was set right meanwhile, it need not have attested anew.
                    let lost = self.current.is_none();
                    self.tell_time();
                    if !lost || self.current.is_none() {
                        return Err(error);
                    }
                }
                Err(Failure::Passing(error)) => {
                    let pause = backoff.fail();
                    tracing::warn!(error, retry_in_ms = pause.as_millis(), "no new agent SVID");
                    if self.current.is_none() {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    }

    /// When the SVID is to be renewed; `None` without one.
    fn due(&self) -> Option<SystemTime> {
        let current = self.current.as_ref()?;
        if self.overdue {
            return Some(SystemTime::UNIX_EPOCH);
        }
        Some(self.setup.rotation.due(current.svid.leaf()))
    }

    /// Drops the SVID once it has expired, and takes it up again once it has not, after all.
    fn tell_time(&mut self) {
        if let Some(ClockSet::Back(by)) = self.watch.look() {
            tracing::warn!(
                by_s = by.as_secs(),
                "the clock was set back; renewing the agent SVID"
            );
            // It ends when it ends, whatever this clock shows.
            self.overdue = true;
        }
        let now = self.setup.clock.now();
        let expired = |one: &mut AgentSvid| one.svid.expires_at() <= now;
        if let Some(expired) = self.current.take_if(expired) {
            tracing::warn!("the agent SVID has expired; attesting anew");
            self.svid.send_replace(None);
            self.expired = Some(expired);
        }
        if self.current.is_none()
            && let Some(good) = self.expired.take_if(|one| !expired(one))
        {
            tracing::info!(agent_id = %good.svid.id(), "by this clock the agent SVID is good again");
            self.svid.send_replace(Some(good.svid.clone()));
            self.current = Some(good);
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
        self.expired = None;
        self.overdue = false;
    }

    /// The server does not want this agent any more, so nothing of it may be served again.
    fn forget(&mut self) {
        self.save(AgentStore::forget_svid);
        if let Some(Err(error)) = self.setup.disk.as_ref().map(Disk::remove) {
            tracing::error!(%error, "delete it by hand");
        }
        self.current = None;
        self.expired = None;
        self.svid.send_replace(None);
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

#[cfg(test)]
mod tests;
