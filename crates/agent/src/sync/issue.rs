//! Has SVIDs issued as they fall due: keys and CSRs are made beside the loop, batches overlap, what
//! somebody waits for goes first and in a small batch, so that it need not wait for many others.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use identity::{Bundle, EntryId, KeyType, RegistrationEntry, X509Svid};
use proto::spire::api::server::svid::v1::{
    BatchNewX509svidRequest, NewX509svidParams, batch_new_x509svid_response,
};
use runtime::{BoxError, Shutdown};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{SyncError, fetch_bundle, reasons::Reasons};
use crate::{
    Links,
    attest::describe,
    backoff::Backoff,
    cache::{Changed, Update},
    client::ServerClient,
    clock_watch::{ClockSet, ClockWatch},
    svid::SvidRequest,
};

/// How many SVIDs one call asks for: what SPIRE's servers take.
const LARGEST_BATCH: usize = 500;

/// The first batch after a quiet time.
const FIRST_BATCH: usize = 16;

/// How many calls are under way at once: one being made ready here, one at the server, one coming back.
const CALLS: usize = 3;

/// How many keys are made in one go on one thread.
const KEYS_AT_ONCE: usize = 64;

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(20);

/// The longest sleep, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// Has SVIDs issued as they fall due.
pub(crate) struct Issuer {
    links: Links,
    key_type: KeyType,
}

/// One call's end.
struct Ended {
    asked: Vec<EntryId>,
    outcome: Result<Vec<Outcome>, Failure>,
}

struct Outcome {
    entry: EntryId,
    revision: i64,
    svid: Result<Arc<X509Svid>, String>,
}

/// A call failed as a whole.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", describe(.0))]
    Call(Box<Status>),
    #[error("making keys was interrupted")]
    Keys,
}

impl Issuer {
    pub(crate) const fn new(links: Links, key_type: KeyType) -> Self {
        Self { links, key_type }
    }

    /// Runs until shutdown.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), BoxError> {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.issue_forever() => {}
        }
        Ok(())
    }

    async fn issue_forever(&mut self) {
        let mut calls = FuturesUnordered::new();
        // At most one.
        let mut bundles = FuturesUnordered::new();
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let mut not_before = Instant::now();
        let mut batch = LARGEST_BATCH;
        let mut watch = ClockWatch::new(self.links.clock.clone());
        loop {
            self.tell_time(&mut watch);
            let able = self.links.svid.borrow().is_some() && Instant::now() >= not_before;
            while able && calls.len() < CALLS {
                let limit = if calls.is_empty() { FIRST_BATCH } else { batch };
                let (due, reasons) = self.links.living.take(|cache, now| {
                    let due = cache.take_due(now, limit.min(batch));
                    let reasons = Reasons::of(cache, &due, now);
                    (due, reasons)
                });
                if due.is_empty() {
                    break;
                }
                calls.push(self.call(due, &reasons));
            }
            let next_look = self.next_look(not_before, calls.len() >= CALLS);
            tokio::select! {
                Some(ended) = calls.next(), if !calls.is_empty() => {
                    match self.land(ended) {
                        Ok(()) => {
                            backoff.reset();
                            batch = LARGEST_BATCH;
                            if bundles.is_empty() && self.lacks_authorities() {
                                bundles.push(self.fetch_bundle());
                            }
                        }
                        Err(failure) => {
                            let pause = backoff.fail();
                            not_before = Instant::now() + pause;
                            batch = self.cope(&failure, batch, pause);
                        }
                    }
                }
                Some(fetched) = bundles.next(), if !bundles.is_empty() => self.take_bundle(fetched),
                () = self.links.living.demand(), if calls.len() < CALLS => {}
                () = tokio::time::sleep_until(next_look) => {}
                Ok(()) = self.links.svid.changed() => {}
            }
        }
    }

    /// When to look again: the next SVID is due, if one could be asked for, or expires.
    fn next_look(&self, not_before: Instant, busy: bool) -> Instant {
        let now = Instant::now();
        let (due, expiry) = self.links.living.read(|cache, wall| {
            let until = |when: SystemTime| now + when.duration_since(wall).unwrap_or_default();
            (
                cache.next_due(wall).map(until),
                cache.next_expiry().map(until),
            )
        });
        let able = !busy && self.links.svid.borrow().is_some();
        let due = due.filter(|_| able).map(|due| due.max(not_before));
        let latest = now + LONGEST_SLEEP;
        [due, expiry]
            .into_iter()
            .flatten()
            .fold(latest, Instant::min)
    }

    /// Drops what has expired, whatever the clock did.
    fn tell_time(&self, watch: &mut ClockWatch) {
        if let Some(set) = watch.look() {
            if let ClockSet::Back(by) = set {
                tracing::warn!(
                    by_s = by.as_secs(),
                    "the clock was set back; having all SVIDs renewed"
                );
            }
            self.links.living.clock_set(set);
        }
        if self
            .links
            .living
            .read(|cache, now| cache.next_expiry().is_some_and(|when| when <= now))
        {
            self.links.living.update(|cache, now| cache.expire(now));
        }
    }

    fn call(
        &self,
        due: Vec<Arc<RegistrationEntry>>,
        reasons: &Reasons,
    ) -> BoxFuture<'static, Ended> {
        let asked: Vec<EntryId> = due.iter().map(|entry| entry.id.clone()).collect();
        let (client, key_type) = (self.links.client.clone(), self.key_type);
        let call = self
            .links
            .metrics
            .call("manager_sync_fetch_svids_updates", &[]);
        let tainted = reasons.tell(&self.links.metrics);
        Box::pin(async move {
            let outcome = request(client, due, key_type).await;
            let code = match &outcome {
                Ok(_) => Code::Ok,
                Err(Failure::Call(status)) => status.code(),
                Err(Failure::Keys) => Code::Internal,
            };
            for call in [Some(call), tainted].into_iter().flatten() {
                call.finish(code);
            }
            Ended { asked, outcome }
        })
    }

    /// Takes one call's end into the cache.
    fn land(&self, ended: Ended) -> Result<(), Failure> {
        let outcomes = match ended.outcome {
            Ok(outcomes) => outcomes,
            Err(failure) => {
                self.links
                    .living
                    .take(|cache, _| cache.give_back(&ended.asked));
                return Err(failure);
            }
        };
        self.links.living.update(|cache, now| {
            let mut changed = Changed::new();
            for outcome in outcomes {
                match outcome.svid {
                    Ok(svid) => {
                        changed.extend(cache.issued(&outcome.entry, outcome.revision, svid, now));
                    }
                    Err(reason) => {
                        tracing::warn!(entry_id = %outcome.entry, reason, "no X.509-SVID");
                        cache.refused(&outcome.entry, now);
                        self.links.sync_now.notify_one();
                    }
                }
            }
            changed
        });
        Ok(())
    }

    /// Whether SVIDs came whose authority the bundle does not have yet: the cache keeps them back.
    fn lacks_authorities(&self) -> bool {
        self.links.living.read(|cache, _| cache.lacks_authorities())
    }

    /// Asks for the bundle beside everything else.
    fn fetch_bundle(&self) -> BoxFuture<'static, Result<Bundle, SyncError>> {
        let client = self.links.client.clone();
        Box::pin(async move {
            let fetched = tokio::time::timeout(TIMEOUT, fetch_bundle(&client)).await;
            fetched.unwrap_or(Err(SyncError::Timeout))
        })
    }

    fn take_bundle(&self, fetched: Result<Bundle, SyncError>) {
        match fetched {
            Ok(bundle) => self.links.living.update(|cache, _| {
                if bundle.trust_domain != cache.bundle().trust_domain {
                    return Changed::new();
                }
                cache.apply(Update {
                    bundle: Some(Arc::new(bundle)),
                    ..Update::default()
                })
            }),
            Err(error) => {
                tracing::warn!(%error, "SVIDs wait for their authority to come into the bundle");
            }
        }
        if self.lacks_authorities() {
            self.links.sync_now.notify_one();
        }
    }

    /// What to do after a failure: the size of the next batch.
    fn cope(&self, failure: &Failure, batch: usize, pause: Duration) -> usize {
        let mut next = batch;
        if let Failure::Call(status) = failure {
            self.links.orders.report(status);
            // Too large for the server's limits.
            if matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange) {
                next = (batch / 2).max(1);
            }
        }
        tracing::warn!(error = %failure, retry_in_ms = pause.as_millis(), "no new X.509-SVIDs");
        next
    }
}

/// Makes keys, asks for their certificates, and joins the two.
async fn request(
    client: ServerClient,
    due: Vec<Arc<RegistrationEntry>>,
    key_type: KeyType,
) -> Result<Vec<Outcome>, Failure> {
    let (requests, mut outcomes) = make_requests(due, key_type).await?;
    let params = requests
        .iter()
        .map(|request| NewX509svidParams {
            entry_id: request.entry_id.to_string(),
            csr: request.csr.clone().into(),
        })
        .collect();
    let mut svids = client.svid();
    let answer = svids.batch_new_x509svid(BatchNewX509svidRequest { params });
    let results = tokio::time::timeout(TIMEOUT, answer)
        .await
        .unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(
                "the server did not answer in time",
            ))
        })
        .map_err(|status| Failure::Call(Box::new(status)))?
        .into_inner()
        .results;
    if results.len() != requests.len() {
        let text = format!(
            "{} SVIDs asked for, {} answers",
            requests.len(),
            results.len()
        );
        return Err(Failure::Call(Box::new(Status::internal(text))));
    }
    let joined = tokio::task::spawn_blocking(move || {
        requests
            .into_iter()
            .zip(results)
            .map(|(request, result)| join(request, result))
            .collect::<Vec<_>>()
    });
    outcomes.extend(joined.await.map_err(|_| Failure::Keys)?);
    Ok(outcomes)
}

/// Makes keys and CSRs on as many threads as there are batches of them; what fails has its outcome already.
async fn make_requests(
    due: Vec<Arc<RegistrationEntry>>,
    key_type: KeyType,
) -> Result<(Vec<SvidRequest>, Vec<Outcome>), Failure> {
    let chunks: Vec<_> = due
        .chunks(KEYS_AT_ONCE)
        .map(|chunk| {
            let chunk = chunk.to_vec();
            tokio::task::spawn_blocking(move || {
                chunk
                    .into_iter()
                    .map(|entry| (SvidRequest::new(&entry, key_type), entry))
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let (mut requests, mut failed) = (Vec::with_capacity(due.len()), Vec::new());
    for chunk in chunks {
        for (made, entry) in chunk.await.map_err(|_| Failure::Keys)? {
            match made {
                Ok(request) => requests.push(request),
                Err(error) => failed.push(Outcome {
                    entry: entry.id.clone(),
                    revision: entry.revision,
                    svid: Err(error.to_string()),
                }),
            }
        }
    }
    Ok((requests, failed))
}

fn join(request: SvidRequest, result: batch_new_x509svid_response::Result) -> Outcome {
    let (entry, revision) = (request.entry_id.clone(), request.revision);
    let status = result.status.unwrap_or_default();
    let svid = if status.code == Code::Ok as i32 {
        let chain = result.svid.unwrap_or_default().cert_chain;
        request
            .finish(&chain)
            .map(Arc::new)
            .map_err(|error| error.to_string())
    } else {
        let code = Code::from_i32(status.code);
        Err(format!("the server says {code:?}: {}", status.message))
    };
    Outcome {
        entry,
        revision,
        svid,
    }
}
