//! Who calls: the same for every service on the public socket.

use std::sync::Arc;

use identity::Selectors;
use runtime::{Metrics, Peer};
use tonic::{Code, Status};
use tracing::{debug, warn};

use crate::workload::{AttestError, Attestors};

/// What a caller hears who cannot be attested. It may try again.
pub const ATTESTATION_FAILED: &str = "workload attestation failed";

/// Attests callers.
#[derive(Clone, Debug)]
pub struct Callers {
    attestors: Arc<Attestors>,
    metrics: Metrics,
}

/// An attested caller: a process, and its selectors when it asked.
#[derive(Clone, Debug)]
pub struct Caller {
    peer: Peer,
    selectors: Selectors,
}

impl Callers {
    /// Attests by `attestors`.
    #[must_use]
    pub fn new(attestors: Attestors, metrics: Metrics) -> Self {
        Self {
            attestors: Arc::new(attestors.counted(metrics.clone())),
            metrics,
        }
    }

    /// Attests the peer of the connection that a request came by. Call it once for each stream or unary call.
    ///
    /// # Errors
    /// Unavailable, when the peer cannot be attested; the reason is logged.
    pub async fn attest(&self, extensions: &http::Extensions) -> Result<Caller, Status> {
        let Some(peer) = extensions.get::<Peer>() else {
            warn!("a request came without a peer: the listener is no unix socket");
            return Err(Status::unavailable(ATTESTATION_FAILED));
        };
        self.attest_peer(peer).await
    }

    /// Attests a caller once more: what it is may have become visible since.
    ///
    /// # Errors
    /// As [`Callers::attest`].
    pub async fn attest_again(&self, caller: &Caller) -> Result<Caller, Status> {
        self.attest_peer(&caller.peer).await
    }

    async fn attest_peer(&self, peer: &Peer) -> Result<Caller, Status> {
        let call = self.metrics.call("workload_api_workload_attestation", &[]);
        match self.attestors.attest(peer).await {
            Ok(selectors) => {
                call.finish(Code::Ok);
                #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
                let found = selectors.len() as f64;
                self.metrics
                    .sample("workload_api_discovered_selectors", &[], found);
                debug!(caller = peer.pid(), ?selectors, "workload attested");
                Ok(Caller {
                    peer: peer.clone(),
                    selectors,
                })
            }
            Err(error) => {
                call.finish(Code::Unavailable);
                Err(refuse(peer, &error))
            }
        }
    }
}

impl Caller {
    /// What it is, as far as attestors can tell.
    #[must_use]
    pub fn selectors(&self) -> &Selectors {
        &self.selectors
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.peer.pid()
    }

    /// Its effective user ID.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.peer.uid()
    }

    /// Whether the process that was attested still lives. Ask before handing anything out: another process may hold
    /// the connection by now.
    ///
    /// # Errors
    /// Unavailable, when it does not.
    pub fn check_alive(&self) -> Result<(), Status> {
        if self.peer.is_alive() {
            return Ok(());
        }
        let pid = self.peer.pid().unwrap_or_default();
        Err(refuse(&self.peer, &AttestError::Gone { pid }))
    }
}

fn refuse(peer: &Peer, error: &AttestError) -> Status {
    warn!(caller = peer.pid(), uid = peer.uid(), %error, "{ATTESTATION_FAILED}");
    Status::unavailable(ATTESTATION_FAILED)
}
