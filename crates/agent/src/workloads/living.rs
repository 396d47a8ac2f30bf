//! Views of a living agent: the cache behind a lock that is held for moments only, and one watch for
//! each selector set that somebody asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use identity::{BundleSet, EntryId, JwtSvid, RegistrationEntry, Selectors};
use proto::spire::api::server::svid::v1::NewJwtsvidRequest;
use runtime::{Clock, Counter, Gauge, Metrics};
use tokio::sync::{Notify, watch};
use tonic::{Code, Status};

use super::{JwtFetchError, WorkloadView};
use crate::{
    attest::{describe, keeper::Orders},
    cache::{Cache, Changed, Counts},
    client::ServerClient,
    clock_watch::ClockSet,
    jwt::{Held, JwtCache, JwtKey, PATIENCE, PATIENCE_WITH_FALLBACK},
};

/// The agent's state, shared by the loops that fill it and the endpoints that read it.
pub(crate) struct Living {
    clock: Clock,
    state: Mutex<State>,
    bundles: watch::Sender<Arc<BundleSet>>,
    jwt: Jwt,
    /// Woken when an SVID may be due.
    demand: Notify,
    /// Counts the changes, for who writes them to the disk.
    generation: watch::Sender<u64>,
    gauges: Gauges,
}

struct State {
    cache: Cache,
    sets: HashMap<Selectors, watch::Sender<Arc<WorkloadView>>>,
}

struct Jwt {
    client: ServerClient,
    orders: Orders,
    cache: Mutex<JwtCache>,
    /// One request at a time for the same token.
    flights: Mutex<HashMap<JwtKey, Arc<tokio::sync::Mutex<()>>>>,
}

struct Gauges {
    metrics: Metrics,
    entries: Gauge,
    svids: Gauge,
    jwt_svids: Gauge,
    added: Counter,
    updated: Counter,
    removed: Counter,
}

impl Gauges {
    /// SPIRE's figures of tokens that were dropped since their authority is tainted.
    fn tainted_jwt_svids(&self, dropped: usize) {
        if dropped > 0 {
            let dropped = as_f64(dropped);
            let metrics = &self.metrics;
            metrics.sample("cache_manager_tainted_jwt_svids_workload", &[], dropped);
            let process = "cache_manager_workload_process_tainted_jwt_svids";
            metrics.call(process, &[]).finish(Code::Ok);
        }
    }
}

impl Living {
    pub(crate) fn new(
        cache: Cache,
        jwt_capacity: usize,
        client: ServerClient,
        orders: Orders,
        clock: Clock,
        metrics: &Metrics,
    ) -> Self {
        let bundles = Arc::new(BundleSet::new());
        let x509 = [("svid_type", "x509")];
        Self {
            clock,
            state: Mutex::new(State {
                cache,
                sets: HashMap::new(),
            }),
            bundles: watch::Sender::new(bundles),
            jwt: Jwt {
                client,
                orders,
                cache: Mutex::new(JwtCache::new(jwt_capacity)),
                flights: Mutex::default(),
            },
            demand: Notify::new(),
            generation: watch::Sender::new(0),
            gauges: Gauges {
                metrics: metrics.clone(),
                entries: metrics.gauge("lru_cache_record_map_size", &x509),
                svids: metrics.gauge("lru_cache_svid_map_size", &x509),
                jwt_svids: metrics.gauge("jwt_svid_cache_size", &[]),
                added: metrics.counter("lru_cache_entry_add", &[]),
                updated: metrics.counter("lru_cache_entry_update", &[]),
                removed: metrics.counter("lru_cache_entry_remove", &[]),
            },
        }
    }

    pub(crate) fn subscribe(&self, selectors: Selectors) -> watch::Receiver<Arc<WorkloadView>> {
        let mut state = lock(&self.state);
        if let Some(set) = state.sets.get(&selectors) {
            return set.subscribe();
        }
        state.cache.watch(&selectors);
        let view = state.cache.view(&selectors, self.clock.now());
        if !view.pending.is_empty() {
            self.demand.notify_one();
        }
        let (sender, receiver) = watch::channel(Arc::new(view));
        state.sets.insert(selectors, sender);
        receiver
    }

    pub(crate) fn bundles(&self) -> watch::Receiver<Arc<BundleSet>> {
        self.bundles.subscribe()
    }

    /// Changes the cache, and tells whoever it concerns.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Cache, SystemTime) -> Changed) {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let changed = change(&mut state.cache, now);
        for selectors in &changed {
            if let Some(set) = state.sets.get(selectors) {
                let view = state.cache.view(selectors, now);
                set.send_if_modified(|current| {
                    let differs = **current != view;
                    if differs {
                        *current = Arc::new(view);
                    }
                    differs
                });
            }
        }
        let bundles = state.cache.is_synced().then(|| state.cache.bundles());
        let counts = state.cache.counts();
        drop(state);
        if let Some(bundles) = bundles {
            self.bundles.send_if_modified(|current| {
                let differs = **current != bundles;
                if differs {
                    *current = Arc::new(bundles);
                }
                differs
            });
        }
        self.note(counts);
        self.generation.send_modify(|generation| *generation += 1);
        self.demand.notify_one();
    }

    /// Reads the cache.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Cache, SystemTime) -> T) -> T {
        read(&lock(&self.state).cache, self.clock.now())
    }

    /// Takes from the cache what nobody's view depends on.
    pub(crate) fn take<T>(&self, take: impl FnOnce(&mut Cache, SystemTime) -> T) -> T {
        take(&mut lock(&self.state).cache, self.clock.now())
    }

    /// Drops the selector sets that nobody holds any more.
    pub(crate) fn sweep(&self) {
        let mut state = lock(&self.state);
        let State { cache, sets } = &mut *state;
        sets.retain(|selectors, set| {
            let held = set.receiver_count() > 0;
            if !held {
                cache.unwatch(selectors);
            }
            held
        });
        drop(state);
        let now = self.clock.now();
        let mut tokens = lock(&self.jwt.cache);
        let state = lock(&self.state);
        let entitled = |entry: &EntryId, svid: &JwtSvid| {
            let entry = state.cache.entry(entry);
            entry.is_some_and(|entry| entry.spiffe_id == svid.id)
        };
        let tainted = tokens.retain(entitled, state.cache.bundle(), now);
        self.gauges.jwt_svids.set(as_f64(tokens.len()));
        self.gauges.tainted_jwt_svids(tainted);
    }

    /// Nothing lives longer because the clock was set back.
    pub(crate) fn clock_set(&self, set: ClockSet) {
        if let ClockSet::Back(_) = set {
            lock(&self.jwt.cache).clear();
        }
        self.update(|cache, now| cache.clock_set(set, now));
    }

    /// Ready once an SVID may be due.
    pub(crate) async fn demand(&self) {
        self.demand.notified().await;
    }

    /// Changes with every change.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Counts what a sync changed.
    pub(crate) fn count_changes(&self, added: usize, updated: usize, removed: usize) {
        self.gauges.added.add(added as u64);
        self.gauges.updated.add(updated as u64);
        self.gauges.removed.add(removed as u64);
    }

    pub(crate) async fn jwt_svid(
        &self,
        entry: &RegistrationEntry,
        audience: &[String],
    ) -> Result<JwtSvid, JwtFetchError> {
        if !self.still_holds(entry) {
            return Err(JwtFetchError::NotEntitled);
        }
        let key = JwtKey::new(&entry.id, audience);
        if let Held::Fresh(svid) = self.held_jwt(&key, entry) {
            return Ok(svid);
        }
        let flight = self.jwt.flight(&key);
        let turn = flight.turn.lock().await;
        let fetched = match self.held_jwt(&key, entry) {
            Held::Fresh(svid) => Ok(svid),
            held => self.fetch_jwt(&key, entry, audience, held).await,
        };
        drop(turn);
        // Waiting took time, in which the entry may have become somebody else's.
        fetched.and_then(|svid| {
            let entitled = self.still_holds(entry);
            entitled.then_some(svid).ok_or(JwtFetchError::NotEntitled)
        })
    }

    /// Whether the entry that a caller matched still gives that identity to those selectors.
    fn still_holds(&self, entry: &RegistrationEntry) -> bool {
        self.read(|cache, _| {
            cache.entry(&entry.id).is_some_and(|now| {
                now.spiffe_id == entry.spiffe_id && now.selectors == entry.selectors
            })
        })
    }

    /// The token at hand, unless it names whom the entry was for earlier.
    fn held_jwt(&self, key: &JwtKey, entry: &RegistrationEntry) -> Held {
        match self.jwt.held(key, self.clock.now()) {
            Held::Fresh(svid) | Held::Stale(svid) if svid.id != entry.spiffe_id => Held::Nothing,
            held => held,
        }
    }

    async fn fetch_jwt(
        &self,
        key: &JwtKey,
        entry: &RegistrationEntry,
        audience: &[String],
        held: Held,
    ) -> Result<JwtSvid, JwtFetchError> {
        let patience = match held {
            Held::Nothing => PATIENCE,
            _ => PATIENCE_WITH_FALLBACK,
        };
        let request = NewJwtsvidRequest {
            entry_id: key.entry().to_string(),
            audience: audience.to_vec(),
        };
        let mut client = self.jwt.client.svid();
        let answer = tokio::time::timeout(patience, client.new_jwtsvid(request))
            .await
            .unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(
                    "the server did not answer in time",
                ))
            })
            .map_err(|status| {
                self.jwt.orders.report(&status);
                refusal(&status)
            })
            .and_then(|answer| self.read_jwt(entry, answer.into_inner().svid));
        match (answer, held) {
            (Ok(svid), _) => {
                let now = self.clock.now();
                lock(&self.jwt.cache).store(key.clone(), svid.clone(), now);
                Ok(svid)
            }
            (Err(JwtFetchError::Unavailable(reason)), Held::Stale(svid) | Held::Fresh(svid)) => {
                tracing::warn!(
                    spiffe_id = %svid.id,
                    reason,
                    "no new JWT-SVID; giving the one at hand, which is still valid"
                );
                Ok(svid)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn read_jwt(
        &self,
        entry: &RegistrationEntry,
        svid: Option<proto::spire::api::types::Jwtsvid>,
    ) -> Result<JwtSvid, JwtFetchError> {
        let odd = |what: &str| JwtFetchError::Unavailable(format!("the server's answer {what}"));
        let svid = JwtSvid::parse_unverified(&svid.unwrap_or_default().token)
            .map_err(|error| odd(&format!("holds no JWT-SVID: {error}")))?;
        if svid.id != entry.spiffe_id {
            return Err(odd("is for another SPIFFE ID"));
        }
        if svid.expires_at <= self.clock.now() {
            return Err(odd("has expired already; check this machine's clock"));
        }
        Ok(svid)
    }

    fn note(&self, counts: Counts) {
        self.gauges.entries.set(as_f64(counts.entries));
        self.gauges.svids.set(as_f64(counts.svids));
    }
}

impl Jwt {
    fn held(&self, key: &JwtKey, now: SystemTime) -> Held {
        lock(&self.cache).look_up(key, now)
    }

    fn flight(&self, key: &JwtKey) -> Flight<'_> {
        let turn = lock(&self.flights).entry(key.clone()).or_default().clone();
        Flight {
            jwt: self,
            key: key.clone(),
            turn,
        }
    }
}

/// One who fetches a token, or waits for the one who does. A caller that goes away lands too.
struct Flight<'a> {
    jwt: &'a Jwt,
    key: JwtKey,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = lock(&self.jwt.flights);
        // The map's own, and ours: nobody else waits for a turn.
        if Arc::strong_count(&self.turn) <= 2 {
            flights.remove(&self.key);
        }
    }
}

fn refusal(status: &Status) -> JwtFetchError {
    match status.code() {
        Code::InvalidArgument => JwtFetchError::Invalid(status.message().to_owned()),
        Code::NotFound => JwtFetchError::NotEntitled,
        _ => JwtFetchError::Unavailable(describe(status)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for a gauge")]
pub(crate) const fn as_f64(count: usize) -> f64 {
    count as f64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
