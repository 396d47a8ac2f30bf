//! The loops that fill the cache: entries and bundles by asking every few seconds (`Syncer`), SVIDs
//! as they fall due (`issue::Issuer`).
//!
//! What the server says arrives as an [`Update`]; a feed that is pushed can make the same updates.

mod bundles;
mod entries;
pub(crate) mod issue;
mod news;
mod reasons;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, stream};
use identity::{Bundle, SpiffeId, TrustDomain};
use proto::{
    convert::FieldError,
    spire::api::{server::agent::v1::PostStatusRequest, types},
};
use runtime::{BoxError, Part, Shutdown, files::FileError};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tonic::{Code, Status};

use crate::{
    Links,
    attest::{describe, store::AgentStore},
    backoff::{Backoff, jittered},
    cache::Update,
    workloads::living::as_f64,
};
use bundles::{fetch_bundle, fetch_federated};
use news::{News, Refused, Revision};

/// A failed sync is tried again after at most this long, or one interval if that is more: half a
/// minute after the server is back, everybody has what there is.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// How far the instants of syncs are spread.
const JITTER: f64 = 0.1;

/// A sync that somebody asks for comes no sooner after the last one than this, so that many who ask get one.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// How long one sync may take.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);

/// How many foreign bundles are asked for at once.
const FEDERATED_AT_ONCE: usize = 10;

/// Why a sync failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    /// The entries did not come.
    #[error("asking for the entries: {}", describe(.0))]
    Entries(Box<Status>),
    /// The bundle did not come.
    #[error("asking for the bundle: {}", describe(.0))]
    Bundle(Box<Status>),
    /// The bundle cannot be read.
    #[error("reading the server's bundle: {0}")]
    Conversion(#[from] FieldError),
    /// The bundle is another trust domain's.
    #[error("the server sent the bundle of {0}")]
    ForeignBundle(TrustDomain),
    /// It took too long.
    #[error("the server did not answer within {} s", SYNC_TIMEOUT.as_secs())]
    Timeout,
}

impl SyncError {
    fn code(&self) -> Code {
        match self {
            Self::Entries(status) | Self::Bundle(status) => status.code(),
            Self::Conversion(_) | Self::ForeignBundle(_) => Code::Internal,
            Self::Timeout => Code::DeadlineExceeded,
        }
    }
}

/// Asks the server every few seconds what there is.
pub(crate) struct Syncer {
    links: Links,
    trust: watch::Sender<Arc<identity::BundleSet>>,
    store: Arc<AgentStore>,
    interval: Duration,
    /// Ready after the first sync.
    ready: Option<Part>,
    /// As which agent the cache was filled from the disk.
    restored: Option<SpiffeId>,
}

impl Syncer {
    pub(crate) fn new(
        links: Links,
        trust: watch::Sender<Arc<identity::BundleSet>>,
        store: Arc<AgentStore>,
        interval: Duration,
        ready: Part,
        restored: Option<SpiffeId>,
    ) -> Self {
        // What the disk knew will do until the server answers.
        let known = links.living.read(|cache, _| cache.is_synced());
        Self {
            links,
            trust,
            store,
            interval,
            ready: Some(ready).filter(|_| !known),
            restored,
        }
    }

    /// Runs until shutdown.
    pub(crate) async fn run(
        mut self,
        shutdown: Shutdown,
        started: SystemTime,
    ) -> Result<(), BoxError> {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.sync_forever(started) => {}
        }
        Ok(())
    }

    async fn sync_forever(&mut self, started: SystemTime) {
        let longest = LONGEST_PAUSE.max(self.interval);
        let mut backoff = Backoff::new(self.interval, longest);
        let mut refused = Refused::default();
        self.attested().await;
        self.disown();
        self.post_status().await;
        loop {
            self.attested().await;
            let call = self
                .links
                .metrics
                .call("manager_sync_fetch_entries_updates", &[]);
            let synced = tokio::time::timeout(SYNC_TIMEOUT, self.sync(&mut refused))
                .await
                .unwrap_or(Err(SyncError::Timeout));
            let (pause, least) = match synced {
                Ok(()) => {
                    call.finish(Code::Ok);
                    if backoff.pause() > Duration::ZERO {
                        tracing::info!("the server answers again");
                    }
                    backoff.reset();
                    self.ready.take();
                    (jittered(self.interval, JITTER), LEAST_PAUSE)
                }
                Err(error) => {
                    call.finish(error.code());
                    let pause = backoff.fail();
                    self.report(&error, pause);
                    (pause, pause)
                }
            };
            self.links.living.sweep();
            self.show_uptime(started);
            rest(pause, least.min(pause), &self.links.sync_now).await;
        }
    }

    fn show_uptime(&self, started: SystemTime) {
        let up = self.links.clock.now().duration_since(started);
        let up = up.unwrap_or_default().as_secs_f64();
        self.links.metrics.gauge("uptime_in_ms", &[]).set(up * 1e3);
    }

    /// Ready once there is an agent SVID.
    async fn attested(&mut self) {
        // The keeper lives as long as this loop.
        let _ = self.links.svid.wait_for(Option::is_some).await;
    }

    /// Drops what the disk had, if that was given to another agent than this one has become.
    fn disown(&mut self) {
        let svid = self.links.svid.borrow().clone();
        let (Some(former), Some(svid)) = (self.restored.take(), svid) else {
            return;
        };
        if former == *svid.id() {
            return;
        }
        tracing::info!(%former, now = %svid.id(), "another agent than before the restart; dropping what that one had");
        self.links.living.update(|cache, _| {
            let removed = cache.records().map(|(entry, _)| entry.id.clone()).collect();
            cache.apply(Update {
                removed,
                ..Update::default()
            })
        });
    }

    fn report(&self, error: &SyncError, pause: Duration) {
        if let SyncError::Entries(status) | SyncError::Bundle(status) = error {
            self.links.orders.report(status);
        }
        let holds = self.links.living.read(|cache, now| {
            let last = cache.last_expiry();
            last.and_then(|last| last.duration_since(now).ok())
        });
        tracing::warn!(
            %error,
            retry_in_ms = pause.as_millis(),
            svids_hold_out_s = holds.unwrap_or_default().as_secs(),
            "no news from the server; serving what is there"
        );
    }

    async fn post_status(&self) {
        let request = PostStatusRequest {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..PostStatusRequest::default()
        };
        if let Err(status) = self.links.client.agent().post_status(request).await {
            self.links.orders.report(&status);
            tracing::debug!(error = describe(&status), "the server takes no status");
        }
    }

    async fn sync(&self, refused: &mut Refused) -> Result<(), SyncError> {
        let known = self.links.living.read(|cache, _| {
            cache
                .records()
                .map(|(entry, _)| (entry.id.to_string(), Revision::of(entry)))
                .collect()
        });
        let mut news = News::default();
        // Whoever waits for an entry is served as soon as that is here. What is gone is known at the end only.
        let take = |page: Vec<types::Entry>| {
            let upserted = news.read(&page, &known, refused);
            self.apply(Update {
                upserted,
                ..Update::default()
            });
        };
        let bundle = async {
            let bundle = Arc::new(fetch_bundle(&self.links.client).await?);
            self.take_bundle(&bundle)?;
            self.apply(Update {
                bundle: Some(bundle),
                ..Update::default()
            });
            Ok::<_, SyncError>(())
        };
        let (ids, bundle) = tokio::join!(entries::fetch(&self.links.client, &known, take), bundle);
        bundle?;
        let ids = ids.map_err(|status| SyncError::Entries(Box::new(status)))?;
        let removed = news.removed(&known, &ids);
        self.count(&news, removed.len(), known.len());
        self.apply(Update {
            removed,
            synced: true,
            ..Update::default()
        });
        self.sync_federated().await;
        Ok(())
    }

    /// Keeps the bundle for the agent's own use.
    fn take_bundle(&self, bundle: &Arc<Bundle>) -> Result<(), SyncError> {
        let domain = self
            .links
            .living
            .read(|cache, _| cache.bundle().trust_domain.clone());
        if bundle.trust_domain != domain {
            return Err(SyncError::ForeignBundle(bundle.trust_domain.clone()));
        }
        let set = Arc::new(std::iter::once(bundle.clone()).collect());
        let changed = self.trust.send_if_modified(|trust| {
            let differs = **trust != *set;
            *trust = set;
            differs
        });
        if changed {
            self.links.orders.bundle(bundle.clone());
            self.save(|store| store.save_bundle(bundle));
        }
        Ok(())
    }

    fn apply(&self, update: Update) {
        self.links.living.update(|cache, _| cache.apply(update));
    }

    fn count(&self, news: &News, removed: usize, known: usize) {
        let News { added, updated, .. } = *news;
        self.links.living.count_changes(added, updated, removed);
        let total = known + added - removed;
        for (name, value) in [
            ("sync_entries_total", total),
            ("sync_entries_missing", added),
            ("sync_entries_stale", updated),
            ("sync_entries_dropped", removed),
        ] {
            self.links.metrics.gauge(name, &[]).set(as_f64(value));
        }
    }

    async fn sync_federated(&self) {
        let (wanted, held) = self.links.living.read(|cache, _| {
            let entries = cache.records().map(|(entry, _)| entry);
            let wanted: BTreeSet<TrustDomain> = entries
                .flat_map(|entry| entry.federates_with.iter().cloned())
                .collect();
            let held: Vec<TrustDomain> = cache.federated().cloned().collect();
            (wanted, held)
        });
        let mut update = Update {
            unfederated: held
                .into_iter()
                .filter(|domain| !wanted.contains(domain))
                .collect(),
            ..Update::default()
        };
        self.links
            .metrics
            .gauge("sync_bundles_total", &[])
            .set(as_f64(wanted.len() + 1));
        let mut fetches = stream::iter(wanted)
            .map(|domain| fetch_federated(&self.links.client, domain))
            .buffer_unordered(FEDERATED_AT_ONCE);
        while let Some((domain, fetched)) = fetches.next().await {
            match fetched {
                Ok(Some(bundle)) => update.federated.push(Arc::new(bundle)),
                Ok(None) => update.unfederated.push(domain),
                Err(reason) => {
                    tracing::warn!(trust_domain = %domain, reason, "keeping the foreign bundle as it is");
                }
            }
        }
        if !update.federated.is_empty() || !update.unfederated.is_empty() {
            self.apply(update);
        }
    }

    fn save(&self, write: impl FnOnce(&AgentStore) -> Result<(), FileError>) {
        if let Err(error) = write(&self.store) {
            tracing::error!(%error, "the bundle on disk stays as it was");
        }
    }
}

/// Waits for as long as `pause`, or until the bell is rung, but for `least` in any case.
async fn rest(pause: Duration, least: Duration, bell: &Notify) {
    let began = Instant::now();
    tokio::select! {
        () = sleep(pause) => {}
        () = bell.notified() => sleep_until(began + least).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_secs(1);

    /// Runs a pause that is rung at each of these times, and tells how long it took.
    async fn pause_of(pause: Duration, least: Duration, rings: &[u64]) -> Duration {
        let (bell, began) = (Notify::new(), Instant::now());
        let ring = async {
            for at in rings {
                sleep_until(began + Duration::from_millis(*at)).await;
                bell.notify_one();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = rest(pause, least, &bell) => {}
            () = ring => {}
        }
        began.elapsed()
    }

    /// However often somebody asks for a sync, they are not made back to back.
    #[tokio::test(start_paused = true)]
    async fn a_sync_that_is_asked_for_comes_soon_and_not_at_once() {
        let interval = Duration::from_secs(5);
        for (rings, millis) in [
            (&[][..], 5_000),
            (&[0], 1_000),
            (&[0, 1, 2, 3, 500], 1_000),
            (&[3_000], 3_000),
            (&[3_000, 3_001], 3_000),
        ] {
            let took = pause_of(interval, LEAST, rings).await;
            assert!(
                took.abs_diff(Duration::from_millis(millis)).as_millis() <= 2,
                "{rings:?}: {took:?}"
            );
        }
        // After a failure it is not asked for sooner than the server can bear.
        let took = pause_of(interval, interval, &[0, 100]).await;
        assert!(took >= interval);
    }
}
