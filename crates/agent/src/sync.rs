//! The loops that fill the cache: entries and bundles by asking every few seconds (`Syncer`), SVIDs
//! as they fall due (`issue::Issuer`).
//!
//! What the server says arrives as an [`Update`]; a feed that is pushed can make the same updates.

mod entries;
pub(crate) mod issue;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, stream};
use identity::{Bundle, EntryId, RegistrationEntry, TrustDomain};
use proto::{
    convert::FieldError,
    spire::api::server::{
        agent::v1::PostStatusRequest,
        bundle::v1::{GetBundleRequest, GetFederatedBundleRequest},
    },
};
use runtime::{BoxError, Part, Shutdown, files::FileError};
use tokio::sync::watch;
use tonic::{Code, Status};

use self::entries::Fetched;
use crate::{
    Links,
    attest::{describe, store::AgentStore},
    backoff::{Backoff, jittered},
    cache::Update,
    client::ServerClient,
    workloads::living::as_f64,
};

/// A failed sync is tried again after at most this long, or one interval if that is more: half a
/// minute after the server is back, everybody has what there is.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// How far the instants of syncs are spread.
const JITTER: f64 = 0.1;

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
}

impl Syncer {
    pub(crate) fn new(
        links: Links,
        trust: watch::Sender<Arc<identity::BundleSet>>,
        store: Arc<AgentStore>,
        interval: Duration,
        ready: Part,
    ) -> Self {
        // What the disk knew will do until the server answers.
        let known = links.living.read(|cache, _| cache.is_synced());
        Self {
            links,
            trust,
            store,
            interval,
            ready: Some(ready).filter(|_| !known),
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
            let pause = match synced {
                Ok(()) => {
                    call.finish(Code::Ok);
                    if backoff.pause() > Duration::ZERO {
                        tracing::info!("the server answers again");
                    }
                    backoff.reset();
                    self.ready.take();
                    jittered(self.interval, JITTER)
                }
                Err(error) => {
                    call.finish(error.code());
                    let pause = backoff.fail();
                    self.report(&error, pause);
                    pause
                }
            };
            self.links.living.sweep();
            self.show_uptime(started);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.links.sync_now.notified() => {}
            }
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
        let (fetched, bundle) = tokio::join!(
            entries::fetch(&self.links.client, &known),
            fetch_bundle(&self.links.client)
        );
        let bundle = Arc::new(bundle?);
        let fetched = fetched.map_err(|status| SyncError::Entries(Box::new(status)))?;
        let mut update = entries_update(fetched, &known, refused);
        self.take_bundle(&bundle)?;
        update.bundle = Some(bundle);
        self.count(&update, &known);
        let wanted = self.federation_after(&update);
        self.apply(update);
        self.sync_federated(wanted).await;
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

    fn count(&self, update: &Update, known: &HashMap<String, Revision>) {
        let is_new = |entry: &&Arc<RegistrationEntry>| !known.contains_key(entry.id.as_str());
        let added = update.upserted.iter().filter(is_new).count();
        let updated = update.upserted.len() - added;
        self.links
            .living
            .count_changes(added, updated, update.removed.len());
        let total = known.len() + added - update.removed.len();
        self.links
            .metrics
            .gauge("sync_entries_total", &[])
            .set(as_f64(total));
        self.links
            .metrics
            .gauge("sync_entries_missing", &[])
            .set(as_f64(added));
        self.links
            .metrics
            .gauge("sync_entries_stale", &[])
            .set(as_f64(updated));
        self.links
            .metrics
            .gauge("sync_entries_dropped", &[])
            .set(as_f64(update.removed.len()));
    }

    /// The trust domains that the entries federate with, this update included.
    fn federation_after(&self, update: &Update) -> BTreeSet<TrustDomain> {
        let changed: HashSet<&EntryId> = update
            .upserted
            .iter()
            .map(|entry| &entry.id)
            .chain(&update.removed)
            .collect();
        let news = update.upserted.iter().map(Arc::as_ref);
        self.links.living.read(|cache, _| {
            cache
                .records()
                .map(|(entry, _)| entry.as_ref())
                .filter(|entry| !changed.contains(&entry.id))
                .chain(news)
                .flat_map(|entry| entry.federates_with.iter().cloned())
                .collect()
        })
    }

    async fn sync_federated(&self, wanted: BTreeSet<TrustDomain>) {
        let held: Vec<TrustDomain> = self
            .links
            .living
            .read(|cache, _| cache.federated().cloned().collect());
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

/// What tells two versions of an entry apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Revision {
    number: i64,
    created_at: i64,
}

impl Revision {
    fn of(entry: &RegistrationEntry) -> Self {
        let created = entry.created_at.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = created.map_or(0, |since| since.as_secs());
        Self {
            number: entry.revision,
            created_at: i64::try_from(seconds).unwrap_or(i64::MAX),
        }
    }
}

/// Entries that cannot be used, so that each is said once.
type Refused = HashSet<(String, i64)>;

fn entries_update(
    fetched: Fetched,
    known: &HashMap<String, Revision>,
    refused: &mut Refused,
) -> Update {
    let mut update = Update {
        synced: true,
        ..Update::default()
    };
    let mut unreadable = Vec::new();
    for wire in &fetched.entries {
        match proto::convert::entry(wire) {
            Ok(entry) => update.upserted.push(Arc::new(entry)),
            Err(error) => {
                unreadable.push(wire.id.as_str());
                if refused.insert((wire.id.clone(), wire.revision_number)) {
                    tracing::warn!(entry_id = wire.id, %error, "leaving out an entry that breaks a rule");
                }
            }
        }
    }
    update.removed = known
        .keys()
        // What the server changed beyond our reading must not go on in its former form.
        .filter(|id| !fetched.ids.contains(*id) || unreadable.contains(&id.as_str()))
        .filter_map(|id| EntryId::new(id).ok())
        .collect();
    update
}

/// Asks for the own bundle.
pub(crate) async fn fetch_bundle(client: &ServerClient) -> Result<Bundle, SyncError> {
    let request = GetBundleRequest { output_mask: None };
    let answer = client
        .bundle()
        .get_bundle(request)
        .await
        .map_err(|status| SyncError::Bundle(Box::new(status)))?;
    Ok(proto::convert::bundle(answer.get_ref())?)
}

/// Asks for a foreign bundle; `None` when the server has none.
async fn fetch_federated(
    client: &ServerClient,
    domain: TrustDomain,
) -> (TrustDomain, Result<Option<Bundle>, String>) {
    let request = GetFederatedBundleRequest {
        trust_domain: domain.as_str().to_owned(),
        output_mask: None,
    };
    let fetched = match client.bundle().get_federated_bundle(request).await {
        Ok(answer) => match proto::convert::bundle(answer.get_ref()) {
            Ok(bundle) if bundle.trust_domain == domain => Ok(Some(bundle)),
            Ok(bundle) => Err(format!("the server sent that of {}", bundle.trust_domain)),
            Err(error) => Err(error.to_string()),
        },
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(describe(&status)),
    };
    (domain, fetched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::entry;

    /// What the server changed beyond our reading must not go on in its former form.
    #[test]
    fn an_entry_that_became_unreadable_is_left_out() {
        let former = entry("web", &["unix:uid:1"]);
        let known = HashMap::from([(former.id.to_string(), Revision::of(&former))]);
        let mut wire = proto::spire::api::types::Entry::from(&former);
        wire.revision_number += 1;
        wire.spiffe_id = None;
        let fetched = Fetched {
            ids: [wire.id.clone()].into(),
            entries: vec![wire],
        };
        let update = entries_update(fetched, &known, &mut Refused::new());
        assert_eq!(update.removed, [former.id]);
        assert!(update.upserted.is_empty());
    }
}
