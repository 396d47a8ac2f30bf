//! The loop that rotates: authorities, the server's own SVID, the bundle's old authorities.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use identity::X509Svid;
use runtime::{BoxError, Clock, Gauge, Metrics, Shutdown};
use tokio::sync::watch;
use tonic::Code;

use super::bundle::prune_at;
use super::keeper::Keeper;
use super::{AuthorityError, Signers, own_svid};

/// The longest sleep: the machine's clock may be set, or stand still while the machine is suspended.
const MAX_SLEEP: Duration = Duration::from_secs(10);

/// Waits after a failure: doubled each time, up to [`MAX_SLEEP`].
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Owns the authorities and keeps them fresh.
pub(crate) struct Rotator {
    keeper: Keeper,
    clock: Clock,
    metrics: Metrics,
    signers: watch::Sender<Arc<Signers>>,
    svid: watch::Sender<Arc<X509Svid>>,
    /// When the server's own SVID has lived half its life.
    renew_svid_at: SystemTime,
    failures: Arc<AtomicU32>,
    ca_expiration: Gauge,
    ca_ttl: Gauge,
}

impl Rotator {
    /// Takes the first steps, without which there is no server.
    pub(super) async fn start(
        mut keeper: Keeper,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, AuthorityError> {
        let now = clock.now();
        keeper.advance(now).await?;
        let signers = keeper.signers()?;
        let svid = own_svid(&signers.x509, &keeper.settings, now).await?;
        let trust_domain = keeper.settings.trust_domain.id();
        let labels = [("trust_domain_id", trust_domain.as_str())];
        let rotator = Self {
            renew_svid_at: half_life(&svid, now),
            signers: watch::Sender::new(Arc::new(signers)),
            svid: watch::Sender::new(Arc::new(svid)),
            failures: Arc::default(),
            ca_expiration: metrics.gauge("manager_x509_ca_rotate_expiration", &labels),
            ca_ttl: metrics.gauge("manager_x509_ca_rotate_ttl", &labels),
            keeper,
            clock,
            metrics,
        };
        rotator.show(now);
        Ok(rotator)
    }

    pub(super) fn signers(&self) -> watch::Receiver<Arc<Signers>> {
        self.signers.subscribe()
    }

    pub(super) fn server_svid(&self) -> watch::Receiver<Arc<X509Svid>> {
        self.svid.subscribe()
    }

    pub(super) fn failures(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.failures)
    }

    /// Rotates until the program ends. Failures are logged and tried again.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), BoxError> {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.wait()) => {}
            }
            let failures = match self.tick().await {
                Ok(()) => 0,
                Err(error) => {
                    let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
                    tracing::error!(%error, failures, "rotating the authorities failed; trying again");
                    failures
                }
            };
            self.failures.store(failures, Ordering::Relaxed);
        }
    }

    fn wait(&self) -> Duration {
        let failures = self.failures.load(Ordering::Relaxed);
        if failures > 0 {
            let doubled = FIRST_RETRY.saturating_mul(1 << (failures - 1).min(8));
            return doubled.min(MAX_SLEEP);
        }
        let until = self.next_due().duration_since(self.clock.now());
        until.unwrap_or_default().min(MAX_SLEEP)
    }

    /// When there is next something to do.
    pub(super) fn next_due(&self) -> SystemTime {
        let due = [
            self.keeper.next_due(),
            prune_at(&self.keeper.publisher.latest()),
        ];
        due.into_iter()
            .flatten()
            .fold(self.renew_svid_at, SystemTime::min)
    }

    /// Does all that is due now; what fails does not hold up the rest.
    pub(super) async fn tick(&mut self) -> Result<(), AuthorityError> {
        let now = self.clock.now();
        let advanced = self.keeper.advance(now).await;
        let published = self.publish_signers();
        self.show(now);
        let renewed = if now >= self.renew_svid_at {
            self.renew_svid(now).await
        } else {
            Ok(())
        };
        let pruned = match prune_at(&self.keeper.publisher.latest()) {
            Some(at) if now >= at => self.prune(now).await,
            _ => Ok(()),
        };
        advanced.and(published).and(renewed).and(pruned)
    }

    fn publish_signers(&self) -> Result<(), AuthorityError> {
        let signers = self.keeper.signers()?;
        self.signers.send_if_modified(|former| {
            let changed = !same(former, &signers);
            if changed {
                *former = Arc::new(signers);
            }
            changed
        });
        Ok(())
    }

    async fn renew_svid(&mut self, now: SystemTime) -> Result<(), AuthorityError> {
        let call = self.metrics.call("svid_rotate", &[]);
        let authority = Arc::clone(&self.signers.borrow().x509);
        let renewed = own_svid(&authority, &self.keeper.settings, now).await;
        call.finish(renewed.as_ref().map_or(Code::Internal, |_| Code::Ok));
        let svid = renewed?;
        self.renew_svid_at = half_life(&svid, now);
        tracing::debug!(spiffe_id = %svid.id(), expires_at = ?svid.expires_at(), "own SVID renewed");
        self.svid.send_replace(Arc::new(svid));
        Ok(())
    }

    async fn prune(&self, now: SystemTime) -> Result<(), AuthorityError> {
        let call = self.metrics.call("ca_manager_bundle_prune", &[]);
        let pruned = self.keeper.publisher.prune(now).await;
        call.finish(pruned.as_ref().map_or(Code::Internal, |()| Code::Ok));
        pruned?;
        self.metrics
            .counter("ca_manager_bundle_pruned", &[])
            .increment();
        tracing::info!("expired authorities taken out of the bundle");
        Ok(())
    }

    fn show(&self, now: SystemTime) {
        let end = self.signers.borrow().x509.not_after();
        let seconds = |from| end.duration_since(from).unwrap_or_default().as_secs_f64();
        self.ca_ttl.set(seconds(now));
        self.ca_expiration.set(seconds(SystemTime::UNIX_EPOCH));
    }
}

fn half_life(svid: &X509Svid, now: SystemTime) -> SystemTime {
    let left = svid.expires_at().duration_since(now).unwrap_or_default();
    now + left / 2
}

fn same(one: &Signers, other: &Signers) -> bool {
    let jwt = match (&one.jwt, &other.jwt) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    };
    jwt && Arc::ptr_eq(&one.x509, &other.x509)
}
