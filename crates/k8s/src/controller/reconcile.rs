//! The loop that owns the state: events in, writes to the server out.
//!
//! A turn takes what has come, looks at pods for a few milliseconds, writes one batch, and begins again: neither many pods nor an
//! expensive template keeps events waiting, and nothing that comes meanwhile is lost.

mod writing;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use runtime::backoff::Backoff;
use runtime::{BoxError, Clock, Metrics, Shutdown};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::config::Config;
use super::dry_run::{DryRun, Part};
use super::lint::Counts;
use super::state::{Event, State, StatusUpdate};
use crate::lease;
use crate::signet::Signet;

/// How long a turn looks at pods.
const SLICE: Duration = Duration::from_millis(20);

/// How many events a turn takes.
const MOST_EVENTS: usize = 1000;

/// Between two looks at what statuses changed.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the loop is made of.
pub struct Parts {
    /// What it runs by.
    pub config: Arc<Config>,
    /// The server.
    pub signet: Signet,
    /// What the watches tell.
    pub events: mpsc::Receiver<Event>,
    /// Whether this process is the one that works; always, when absent.
    pub leads: Option<watch::Receiver<bool>>,
    /// Takes the statuses that are to be written.
    pub statuses: mpsc::Sender<StatusUpdate>,
    /// The UIDs of those that could not be written.
    pub unwritten: mpsc::UnboundedReceiver<String>,
    /// What the lint of admission counts.
    pub counts: Counts,
    /// Figures.
    pub metrics: Metrics,
    /// The time, for statuses.
    pub clock: Clock,
    /// Takes what would be written; then nothing is.
    pub dry_run: Option<DryRun>,
}

/// See the [module](self).
pub struct Reconciler {
    parts: Parts,
    state: State,
    backoff: Backoff,
    /// Until then the server is left alone.
    pause: Option<Instant>,
    retry_at: Option<Instant>,
    retries: Backoff,
    /// The next page, while a listing is under way.
    page: Option<String>,
    listing_since: Instant,
    /// Whether the server's entries were listed since this process leads.
    listed: bool,
    resync_at: Instant,
    status_at: Instant,
    ready: Option<runtime::Part>,
}

impl Reconciler {
    /// Knows nothing yet; `ready` is let go once everything was listed and written for the first time.
    #[must_use]
    pub fn new(parts: Parts, ready: Option<runtime::Part>) -> Self {
        let now = Instant::now();
        Self {
            state: State::new(parts.config.clone()),
            parts,
            backoff: Backoff::new(Duration::from_millis(200), LONGEST_PAUSE),
            pause: None,
            retry_at: None,
            retries: Backoff::new(Duration::from_secs(1), LONGEST_PAUSE),
            page: None,
            listing_since: now,
            listed: false,
            resync_at: now,
            status_at: now,
            ready,
        }
    }

    /// Runs until it is asked to end, or nobody tells it anything any more.
    ///
    /// # Errors
    /// Never; what fails is tried again.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), BoxError> {
        loop {
            let turned = tokio::select! {
                turned = self.turn() => turned,
                () = shutdown.cancelled() => false,
            };
            if !turned {
                return Ok(());
            }
            // A turn need not wait for anything: on one core, a long queue would keep the lease from being renewed.
            tokio::task::yield_now().await;
        }
    }

    /// One turn; false when the watches are gone.
    async fn turn(&mut self) -> bool {
        if !self.is_busy() && !self.wait().await {
            return false;
        }
        self.take_events();
        let now = Instant::now();
        while self.state.work(Instant::now()) && now.elapsed() < SLICE {}
        self.check_leadership();
        if self.may_write() {
            self.due();
            self.list().await;
            if self.listed && self.parts.dry_run.is_none() {
                self.write().await;
                self.delete().await;
            }
        }
        self.tell().await;
        true
    }

    /// Whether there is something to do at once.
    fn is_busy(&self) -> bool {
        let server = self.page.is_some() || (self.listed && self.has_writes());
        self.state.backlog() > 0 || (server && self.may_write())
    }

    /// Whether there are entries to look at; a dry run looks at all of them at once.
    fn has_writes(&self) -> bool {
        self.parts.dry_run.is_none() && self.state.ledger.is_busy()
    }

    fn leads(&self) -> bool {
        self.parts
            .leads
            .as_ref()
            .is_none_or(|leads| *leads.borrow())
    }

    fn may_write(&self) -> bool {
        self.leads() && self.pause.is_none_or(|pause| Instant::now() >= pause)
    }

    /// Waits for an event, a change of leadership or a time that is due; false when the watches are gone.
    async fn wait(&mut self) -> bool {
        let mut due = self.status_at;
        if self.leads() {
            let times = [self.pause, self.retry_at, Some(self.resync_at)];
            // While paused, only the end of the pause counts.
            let next = self.pause.or_else(|| times.into_iter().flatten().min());
            due = due.min(next.unwrap_or(due));
        }
        tokio::select! {
            event = self.parts.events.recv() => match event {
                Some(event) => self.state.take(event, Instant::now()),
                None => return false,
            },
            () = lease::changed(self.parts.leads.as_mut()) => {}
            () = tokio::time::sleep_until(due) => {}
        }
        true
    }

    fn take_events(&mut self) {
        let now = Instant::now();
        for _ in 0..MOST_EVENTS {
            let Ok(event) = self.parts.events.try_recv() else {
                break;
            };
            self.state.take(event, now);
        }
        while let Ok(uid) = self.parts.unwritten.try_recv() {
            self.state.status_failed(&uid);
        }
    }

    /// Who begins to lead looks at the server first: another one wrote to it meanwhile.
    fn check_leadership(&mut self) {
        if !self.leads() && (self.listed || self.page.is_some()) {
            tracing::info!("no longer leading: the server is left alone");
            self.listed = false;
            self.page = None;
            self.resync_at = Instant::now();
        }
    }

    /// What is due by the time.
    fn due(&mut self) {
        let now = Instant::now();
        self.pause = None;
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            self.state.ledger.retry();
        }
        if now >= self.resync_at && self.page.is_none() {
            self.state.ledger.begin_listing();
            self.page = Some(String::new());
            self.listing_since = now;
        }
    }

    /// One page of the server's entries.
    async fn list(&mut self) {
        let Some(token) = self.page.take() else {
            return;
        };
        let (entries, next) = match self.parts.signet.list_entries(token).await {
            Ok(answer) => answer,
            Err(error) => return self.outage("list", &error.to_string()),
        };
        self.backoff.reset();
        let entries: Vec<_> = entries
            .iter()
            .filter_map(|entry| proto::convert::entry(entry).ok())
            .collect();
        self.state.ledger.list_page(&entries);
        if !next.is_empty() {
            self.page = Some(next);
            return;
        }
        self.state.ledger.end_listing();
        self.listed = true;
        let took = self.listing_since.elapsed();
        self.parts
            .metrics
            .elapsed("listing_elapsed_time", &[], took);
        // A server that needs long for a listing is not kept busy by it.
        self.resync_at = Instant::now() + self.parts.config.resync.max(took * 20);
    }

    /// The server does not answer, or refuses everything: a pause, longer each time, and then a look at all it has. It may have
    /// done what it was asked, for a pod that is gone by then; and a listing's token may not survive what happened.
    fn outage(&mut self, call: &str, message: &str) {
        self.page = None;
        self.resync_at = Instant::now();
        let pause = self.backoff.fail();
        self.parts
            .metrics
            .counter("server_errors", &[("call", call)])
            .increment();
        tracing::warn!(call, error = message, ?pause, "the server cannot be used");
        self.pause = Some(Instant::now() + pause);
        if self.state.ledger.has_failures() {
            self.retry_at = self.pause;
        }
    }

    /// Statuses, figures, and what the lint counts, once a second.
    async fn tell(&mut self) {
        let now = Instant::now();
        if now < self.status_at {
            return;
        }
        self.status_at = now + STATUS_EVERY;
        self.figures();
        self.parts.counts.publish(&self.state);
        let settled = self.listed && self.state.backlog() == 0 && !self.has_writes();
        if settled && self.state.missing().is_empty() {
            self.ready = None;
            if let Some(dry_run) = &self.parts.dry_run {
                dry_run.found(Part::Entries, self.state.preview());
            }
        }
        if self.parts.dry_run.is_some() || !self.leads() || !self.listed {
            return;
        }
        let time = kubernetes_time(self.parts.clock.now());
        let updates = self.state.statuses(&time);
        self.resource_figures();
        for update in updates {
            let uid = update.uid.clone();
            if self.parts.statuses.try_send(update).is_err() {
                self.state.status_failed(&uid);
            }
        }
    }

    /// What each resource's entries came to.
    fn resource_figures(&mut self) {
        for figure in self.state.figures() {
            for (result, count) in figure.counts {
                let labels = [
                    ("kind", figure.kind),
                    ("resource", figure.name.as_str()),
                    ("result", result),
                ];
                let gauge = self.parts.metrics.gauge("resource_entries", &labels);
                #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
                gauge.set(count as f64);
            }
        }
    }

    fn figures(&self) {
        let gauge = |name: &str, value: usize| {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
            self.parts.metrics.gauge(name, &[]).set(value as f64);
        };
        let (queued, leaving, held) = self.state.ledger.backlog();
        gauge("pods", self.state.pods());
        gauge("entries", self.state.ledger.owned());
        gauge("queued_pods", self.state.backlog());
        gauge("queued_entries", queued);
        gauge("waiting_deletes", leaving);
        gauge("held_deletes", held);
        gauge("unlisted_kinds", self.state.missing().len());
        gauge("leads", usize::from(self.leads()));
    }
}

/// As Kubernetes writes times.
pub(super) fn kubernetes_time(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
