//! Leader election by a Lease (coordination.k8s.io/v1), as Kubernetes' own components do it.
//!
//! No two clocks are compared: a lease is stale when it did not change for its duration as this process saw it.

mod election;

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use runtime::backoff::jittered;
use runtime::{BoxError, Clock, Shutdown, Tasks};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use election::{Election, Step};

/// How a lease is held. The defaults are those of Kubernetes' components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    /// Where the Lease is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who this process is; no other may have the same.
    pub identity: String,
    /// How long others wait after a renewal before they take over.
    pub duration: Duration,
    /// How long the leader acts after its last renewal; less than `duration`.
    pub renew_deadline: Duration,
    /// How often it is renewed, or asked for.
    pub retry: Duration,
}

impl LeaseConfig {
    /// 15 s, 10 s and 2 s.
    #[must_use]
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Runs for the lease until shutdown. True while this process leads; false at the latest `renew_deadline` after the last renewal
/// that worked, even when the API server hangs. At shutdown the lease is given back.
#[must_use]
pub fn elect(
    client: Client,
    config: LeaseConfig,
    clock: Clock,
    tasks: &Tasks,
) -> watch::Receiver<bool> {
    let store = KubeLeases {
        api: Api::namespaced(client, &config.namespace),
    };
    let (leads, receiver) = watch::channel(false);
    let candidate = Candidate {
        election: Election::new(config.clone()),
        config,
        clock,
        leads,
        store,
    };
    tasks.spawn("leader election", candidate.run(tasks.shutdown()));
    receiver
}

/// Waits for leadership to change; for ever where there is no election.
pub(crate) async fn changed(leads: Option<&mut watch::Receiver<bool>>) {
    let ended = match leads {
        Some(leads) => leads.changed().await.is_err(),
        None => true,
    };
    if ended {
        std::future::pending::<()>().await;
    }
}

/// Where the Lease is kept.
trait Leases: Send + Sync + 'static {
    fn get(&self, name: &str) -> impl Future<Output = Result<Option<Lease>, kube::Error>> + Send;
    /// Creates, or replaces the version that `lease` names.
    fn put(
        &self,
        lease: &Lease,
        create: bool,
    ) -> impl Future<Output = Result<Lease, kube::Error>> + Send;
}

struct KubeLeases {
    api: Api<Lease>,
}

impl Leases for KubeLeases {
    async fn get(&self, name: &str) -> Result<Option<Lease>, kube::Error> {
        self.api.get_opt(name).await
    }

    async fn put(&self, lease: &Lease, create: bool) -> Result<Lease, kube::Error> {
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        match create {
            true => self.api.create(&PostParams::default(), lease).await,
            false => self.api.replace(name, &PostParams::default(), lease).await,
        }
    }
}

struct Candidate<S> {
    election: Election,
    config: LeaseConfig,
    clock: Clock,
    leads: watch::Sender<bool>,
    store: S,
}

impl<S: Leases> Candidate<S> {
    async fn run(mut self, shutdown: Shutdown) -> Result<(), BoxError> {
        let mut ending = pin!(shutdown.cancelled());
        loop {
            tokio::select! {
                () = self.turn() => {}
                () = ending.as_mut() => break,
            }
        }
        let led = self.leads.send_replace(false);
        if led && let Some(lease) = self.election.release(self.clock.now()) {
            // Best effort: without it the others wait for the lease to become stale.
            let released = timeout_at(
                Instant::now() + self.config.retry,
                self.store.put(&lease, false),
            );
            if let Ok(Err(error)) = released.await {
                tracing::debug!(%error, "the lease is not given back");
            }
        }
        Ok(())
    }

    /// One try, and the pause after it. Ends at the renew deadline at the latest while this process leads.
    async fn turn(&mut self) {
        // One call without an answer must leave time for another before the lease runs out.
        let bound = Instant::now() + self.config.renew_deadline / 2;
        let give_up = self
            .deadline()
            .map_or(bound, |deadline| deadline.min(bound));
        let tried = timeout_at(give_up, self.attempt()).await;
        self.publish();
        match tried {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, lease = self.config.name, "the lease is not renewed")
            }
            Err(_) => {
                let lease = &self.config.name;
                // It has waited long enough for the next try.
                return tracing::warn!(lease, "the lease is not renewed: no answer");
            }
        }
        let pause = jittered(self.config.retry, 0.1);
        match self.deadline() {
            Some(deadline) => tokio::select! {
                () = sleep(pause) => {}
                () = tokio::time::sleep_until(deadline) => self.publish(),
            },
            None => sleep(pause).await,
        }
    }

    /// Until when it leads without another renewal. One that is past bounds nothing any more: whoever lost the lease asks on.
    fn deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        self.election.deadline().filter(|deadline| *deadline > now)
    }

    async fn attempt(&mut self) -> Result<(), kube::Error> {
        // The time before the call: what the others will see is not older.
        let asked = Instant::now();
        if let Some(lease) = self.election.renewal(asked, self.clock.now()) {
            match self.store.put(&lease, false).await {
                Ok(held) => {
                    self.election.held(held, asked);
                    return Ok(());
                }
                // Not the version we know: ours, when the answer to a renewal was lost, or somebody else's.
                Err(error) if is_outdated(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.look().await
    }

    /// Reads the lease, and takes it if nobody else has it.
    async fn look(&mut self) -> Result<(), kube::Error> {
        let found = self.store.get(&self.config.name).await?;
        let asked = Instant::now();
        let wall: SystemTime = self.clock.now();
        let (lease, create) = match self.election.step(found, asked, wall) {
            Step::Follow => return Ok(()),
            Step::Create(lease) => (lease, true),
            Step::Replace(lease) => (lease, false),
        };
        match self.store.put(&lease, create).await {
            Ok(held) => self.election.held(held, asked),
            // Somebody else was faster; the next look says who.
            Err(error) if is_outdated(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn publish(&self) {
        let leads = self.election.leads(Instant::now());
        let (name, identity) = (&self.config.name, &self.config.identity);
        self.leads.send_if_modified(|current| {
            let changed = *current != leads;
            *current = leads;
            match (changed, leads) {
                (true, true) => tracing::info!(lease = name, identity, "leading"),
                (true, false) => tracing::warn!(lease = name, identity, "no longer leading"),
                _ => {}
            }
            changed
        });
    }
}

/// Whether the API server has another version of the lease than the one written upon, or none any more.
fn is_outdated(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(refused) if matches!(refused.code, 404 | 409))
}

#[cfg(test)]
mod tests;
