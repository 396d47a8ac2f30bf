//! One stream: requests and views in, responses out.

use std::{
    future::{Future, pending},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::stream::unfold;
use prost::Message;
use proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use runtime::Call;
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tonic::Status;
use tracing::info;

use super::{
    STOPPING, Sds,
    messages::Messages,
    notes::{Figures, Teller},
    reject,
};
use crate::{
    endpoints::{caller::Caller, frames},
    sds::{DeltaSecrets, RequestError, Secrets, StreamSecrets, session::Subscriptions},
    workloads::WorkloadView,
};

/// How many names that are not served are logged for one request or one change.
const LOGGED: usize = 16;

/// After how long a caller is attested again whose names are withheld for want of selectors; then after twice as long,
/// and so on, up to [`LOOK_AGAIN_AT_MOST`].
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN_AT_MOST: Duration = Duration::from_secs(32);

/// After how long any other caller is attested again: it may no longer be what it was.
const ATTEST_EVERY: Duration = Duration::from_mins(5);

/// The longest sleep, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// What the two kinds of stream have in common.
pub(super) trait Session: Send + Sized + 'static {
    type Request: Message + Default + 'static;
    type Response: Message;

    fn start(secrets: Arc<Secrets>, view: Arc<WorkloadView>, stream: u64) -> Self;
    fn aggregated(self) -> Self;
    fn on_request(&mut self, request: &Self::Request, now: SystemTime) -> Result<(), RequestError>;
    fn next(&mut self, now: SystemTime) -> Option<Self::Response>;
    fn state(&mut self) -> &mut Subscriptions;
}

/// How a stream was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opening {
    /// Whether other types of resource may be asked for on it.
    pub(super) aggregated: bool,
    /// What its metadata say of `disable_spiffe_cert_validation`.
    pub(super) plain: Option<bool>,
}

pub(super) struct Stream<S: Session> {
    sds: Arc<Sds>,
    caller: Caller,
    messages: Messages<S::Request>,
    views: watch::Receiver<Arc<WorkloadView>>,
    gate: watch::Receiver<u64>,
    session: S,
    figures: Figures,
    /// When the caller was attested.
    attested: Instant,
    /// After how long it is again, should it lack selectors.
    patience: Duration,
}

impl<S: Session> Stream<S> {
    /// Subscribes to what the caller may have.
    ///
    /// # Errors
    /// When there is no randomness.
    pub(super) fn open(
        sds: Arc<Sds>,
        caller: Caller,
        messages: Messages<S::Request>,
        opening: Opening,
    ) -> Result<Self, Status> {
        let mut stream = [0; 8];
        aws_lc_rs::rand::fill(&mut stream)
            .map_err(|_| Status::internal("the machine gives no random numbers"))?;
        let mut views = sds.workloads.subscribe(caller.selectors().clone());
        let view = views.borrow_and_update().clone();
        let mut session = S::start(Arc::clone(&sds.secrets), view, u64::from_ne_bytes(stream));
        if opening.aggregated {
            session = session.aggregated();
        }
        if let Some(disable) = opening.plain {
            session.state().disable_spiffe_cert_validation(disable);
        }
        // Not at the same moment for all streams of an Envoy.
        let patience = LOOK_AGAIN + Duration::from_millis(u64::from(stream[0]) * 4);
        Ok(Self {
            gate: sds.secrets.gate_changes(),
            figures: Figures::new(&sds),
            sds,
            caller,
            messages,
            views,
            session,
            attested: Instant::now(),
            patience,
        })
    }

    /// The frames of the responses. `guards`: the call, and what else lasts as long as the stream. A client that goes
    /// away just drops it.
    pub(super) fn run<G: Send + 'static>(
        self,
        guards: (Call, G),
    ) -> impl futures_util::Stream<Item = Result<Bytes, Status>> + Send {
        unfold(Some((self, guards)), async |state| {
            let (mut stream, (call, guard)) = state?;
            match stream.next().await {
                Ok(Some(frame)) => Some((Ok(frame), Some((stream, (call, guard))))),
                Ok(None) => {
                    call.finish(tonic::Code::Ok);
                    None
                }
                Err(status) => Some((call.record(Err(status)), None)),
            }
        })
    }

    /// The next response, encoded; `None` when the client has said its last word.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            let response = self.session.next(self.sds.clock.now());
            self.log();
            if let Some(response) = response {
                self.caller.check_alive()?;
                self.sds.figures.sent.increment();
                return frames::encode(&response).map(Some);
            }
            let look_again = self.look_again();
            let time_is_up = self.time_is_up();
            select! {
                request = self.messages.next() => {
                    let Some(request) = request? else {
                        return Ok(None);
                    };
                    let now = self.sds.clock.now();
                    self.session.on_request(&request, now).map_err(|error| reject(&error))?;
                }
                changed = self.views.changed() => {
                    changed.map_err(|_| Status::unavailable(STOPPING))?;
                    let view = self.views.borrow_and_update().clone();
                    self.session.state().on_view(view);
                }
                // Its sender lives as long as the secrets.
                Ok(()) = self.gate.changed() => self.session.state().on_gate(),
                () = sleep_until(look_again) => self.attest_again().await?,
                () = time_is_up => self.on_time()?,
                () = self.sds.shutdown.cancelled() => return Err(Status::unavailable(STOPPING)),
            }
        }
    }

    /// Ends when the session wants to know how late it is.
    fn time_is_up(&mut self) -> impl Future<Output = ()> + Send + use<S> {
        let wake_at = self.session.state().wake_at();
        let left = wake_at.map(|when| when.duration_since(self.sds.clock.now()));
        async move {
            match left {
                Some(left) => sleep(left.unwrap_or_default().min(LONGEST_SLEEP)).await,
                None => pending().await,
            }
        }
    }

    fn on_time(&mut self) -> Result<(), Status> {
        let held = self.session.state().on_time(self.sds.clock.now());
        held.map_err(|why| {
            let text = format!("no secret could be given for too long, so connect again: {why}");
            Status::unavailable(text)
        })
    }

    /// When to attest the caller again.
    fn look_again(&mut self) -> Instant {
        let lacks = self.session.state().lacks_selectors();
        self.attested + if lacks { self.patience } else { ATTEST_EVERY }
    }

    /// Looks at a caller again: when its names are withheld, since not all that it is may have been known at its first
    /// request; else, since that may have changed.
    async fn attest_again(&mut self) -> Result<(), Status> {
        let lacks = self.session.state().lacks_selectors();
        self.attested = Instant::now();
        match self.sds.callers.attest_again(&self.caller).await {
            Ok(caller) if caller.selectors() != self.caller.selectors() => {
                self.views = self.sds.workloads.subscribe(caller.selectors().clone());
                let view = self.views.borrow_and_update().clone();
                self.session.state().on_view(view);
                self.caller = caller;
            }
            Ok(_) => {}
            Err(status) if lacks => return Err(status),
            // Who is served goes on being who it was.
            Err(_) => self.caller.check_alive()?,
        }
        if lacks {
            self.patience = LOOK_AGAIN_AT_MOST.min(self.patience * 2);
        }
        Ok(())
    }

    fn log(&mut self) {
        let state = self.session.state();
        self.figures.show(state.len(), state.withheld());
        for waited in state.take_answer_times() {
            self.sds.metrics.elapsed("sds_api_answer", &[], waited);
        }
        let notes = state.take_notes();
        if notes.is_empty() {
            return;
        }
        for note in &notes {
            self.sds.figures.count(note);
        }
        let teller = Teller {
            caller: self.caller.pid(),
            node: state.node().unwrap_or("unknown"),
            selectors: self.caller.selectors(),
        };
        for note in notes.iter().take(LOGGED) {
            teller.tell(note);
        }
        let more = notes.len().saturating_sub(LOGGED);
        if more > 0 {
            let Teller { caller, node, .. } = teller;
            info!(caller, node, more, "and more of the same kind");
        }
    }
}

impl Session for StreamSecrets {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn start(secrets: Arc<Secrets>, view: Arc<WorkloadView>, stream: u64) -> Self {
        Self::new(secrets, view, stream)
    }

    fn aggregated(self) -> Self {
        self.aggregated()
    }

    fn on_request(
        &mut self,
        request: &DiscoveryRequest,
        now: SystemTime,
    ) -> Result<(), RequestError> {
        self.on_request(request, now)
    }

    fn next(&mut self, now: SystemTime) -> Option<DiscoveryResponse> {
        self.next(now)
    }

    fn state(&mut self) -> &mut Subscriptions {
        self.subscriptions_mut()
    }
}

impl Session for DeltaSecrets {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn start(secrets: Arc<Secrets>, view: Arc<WorkloadView>, stream: u64) -> Self {
        Self::new(secrets, view, stream)
    }

    fn aggregated(self) -> Self {
        self.aggregated()
    }

    fn on_request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        now: SystemTime,
    ) -> Result<(), RequestError> {
        self.on_request(request, now)
    }

    fn next(&mut self, now: SystemTime) -> Option<DeltaDiscoveryResponse> {
        self.next(now)
    }

    fn state(&mut self) -> &mut Subscriptions {
        self.subscriptions_mut()
    }
}
