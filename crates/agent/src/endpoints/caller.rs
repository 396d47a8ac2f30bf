//! Who calls: the same for every service on the public socket.

mod meter;

use std::{sync::Arc, time::Duration};

use identity::Selectors;
use runtime::{Metrics, Peer};
use tokio::{sync::Mutex, time::Instant};
use tonic::{Code, Status};
use tracing::{debug, warn};

use self::meter::Meter;
use crate::workload::{AttestError, Attestors, Found};

/// What a caller hears who cannot be attested. It may try again.
pub const ATTESTATION_FAILED: &str = "workload attestation failed";

/// How old an attestation may be when another stream is opened on the same connection: an Envoy opens one for each secret,
/// all at once.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// How old one may be that is made again for a stream that goes on.
const AGAIN_FRESH_FOR: Duration = Duration::from_millis(500);

/// Attests callers.
#[derive(Clone, Debug)]
pub struct Callers {
    attestors: Arc<Attestors>,
    meter: Arc<Meter>,
    metrics: Metrics,
}

/// An attested caller: a process, and its selectors when it asked.
#[derive(Clone, Debug)]
pub struct Caller {
    peer: Peer,
    selectors: Selectors,
}

/// The last attestation of a connection's peer. Who comes while one is under way waits for it.
#[derive(Debug, Default)]
struct Last(Mutex<Option<Attested>>);

#[derive(Debug)]
struct Attested {
    at: Instant,
    /// `None`: it failed.
    found: Option<Found>,
}

impl Callers {
    /// Attests by `attestors`.
    #[must_use]
    pub fn new(attestors: Attestors, metrics: Metrics) -> Self {
        Self {
            attestors: Arc::new(attestors.counted(metrics.clone())),
            meter: Arc::new(Meter::new(&metrics)),
            metrics,
        }
    }

    /// Attests the peer of the connection that a request came by. Call it once for each stream or unary call.
    ///
    /// # Errors
    /// Unavailable, when the peer cannot be attested; resource exhausted, when it calls too often. The reason is logged.
    pub async fn attest(&self, extensions: &http::Extensions) -> Result<Caller, Status> {
        let Some(peer) = extensions.get::<Peer>() else {
            warn!("a request came without a peer: the listener is no unix socket");
            return Err(Status::unavailable(ATTESTATION_FAILED));
        };
        self.meter.admit(peer.pid())?;
        let Found { selectors, .. } = self.attest_peer(peer, FRESH_FOR).await?;
        Ok(Caller {
            peer: peer.clone(),
            selectors,
        })
    }

    /// Attests a caller once more: what it is may have become visible since, or have changed.
    ///
    /// # Errors
    /// As [`Callers::attest`].
    pub async fn attest_again(&self, caller: &Caller) -> Result<Caller, Status> {
        let peer = &caller.peer;
        let Found {
            mut selectors,
            complete,
        } = self.attest_peer(peer, AGAIN_FRESH_FOR).await?;
        if !complete {
            // An attestor that fails for a moment takes nothing away.
            selectors = selectors.iter().chain(&caller.selectors).cloned().collect();
        }
        Ok(Caller {
            peer: peer.clone(),
            selectors,
        })
    }

    /// Attests a peer, unless that was done less than `fresh_for` ago or while we waited for our turn.
    async fn attest_peer(&self, peer: &Peer, fresh_for: Duration) -> Result<Found, Status> {
        let came = Instant::now();
        let own = Last::default();
        let mut last = peer.kept().unwrap_or(&own).0.lock().await;
        match &*last {
            Some(Attested { at, found: None }) if *at >= came => {
                return Err(Status::unavailable(ATTESTATION_FAILED));
            }
            Some(Attested {
                at,
                found: Some(found),
            }) if *at >= came || at.elapsed() < fresh_for => {
                return Ok(found.clone());
            }
            _ => {}
        }
        let answer = self.ask(peer).await;
        *last = Some(Attested {
            at: Instant::now(),
            found: answer.as_ref().ok().cloned(),
        });
        answer
    }

    async fn ask(&self, peer: &Peer) -> Result<Found, Status> {
        let call = self.metrics.call("workload_api_workload_attestation", &[]);
        match self.attestors.look(peer).await {
            Ok(found) => {
                call.finish(Code::Ok);
                let selectors = &found.selectors;
                #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
                let count = selectors.len() as f64;
                self.metrics
                    .sample("workload_api_discovered_selectors", &[], count);
                debug!(caller = peer.pid(), ?selectors, "workload attested");
                Ok(found)
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

#[cfg(test)]
mod tests;
