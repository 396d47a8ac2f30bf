//! One stream: requests and views in, responses out.

use std::{
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
    time::{Instant, sleep_until},
};
use tonic::Status;
use tracing::{info, warn};

use super::{STOPPING, Sds, messages::Messages, reject};
use crate::{
    endpoints::{caller::Caller, frames},
    sds::{DeltaSecrets, Note, RequestError, Secrets, StreamSecrets},
    workloads::WorkloadView,
};

/// How many names that are not served are logged for one request or one change.
const LOGGED: usize = 16;

/// After how long a caller is attested again whose names are withheld for want of selectors; then after twice as long,
/// and so on, up to [`LOOK_AGAIN_AT_MOST`].
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN_AT_MOST: Duration = Duration::from_secs(32);

/// What the two kinds of stream have in common.
pub(super) trait Session: Send + Sized + 'static {
    type Request: Message + Default + 'static;
    type Response: Message;

    fn start(secrets: Arc<Secrets>, view: Arc<WorkloadView>, stream: u64) -> Self;
    fn on_request(&mut self, request: &Self::Request, now: SystemTime) -> Result<(), RequestError>;
    fn on_view(&mut self, view: Arc<WorkloadView>);
    fn next(&mut self, now: SystemTime) -> Option<Self::Response>;
    fn take_notes(&mut self) -> Vec<Note>;
    fn lacks_selectors(&self) -> bool;
    fn node(&self) -> Option<&str>;
}

pub(super) struct Stream<S: Session> {
    sds: Arc<Sds>,
    caller: Caller,
    messages: Messages<S::Request>,
    views: watch::Receiver<Arc<WorkloadView>>,
    session: S,
    /// When to attest the caller again, should it lack selectors then.
    look_again: Instant,
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
    ) -> Result<Self, Status> {
        let mut stream = [0; 8];
        aws_lc_rs::rand::fill(&mut stream)
            .map_err(|_| Status::internal("the machine gives no random numbers"))?;
        let mut views = sds.workloads.subscribe(caller.selectors().clone());
        let view = views.borrow_and_update().clone();
        let session = S::start(Arc::clone(&sds.secrets), view, u64::from_ne_bytes(stream));
        // Not at the same moment for all streams of an Envoy.
        let patience = LOOK_AGAIN + Duration::from_millis(u64::from(stream[0]) * 4);
        Ok(Self {
            sds,
            caller,
            messages,
            views,
            session,
            look_again: Instant::now() + patience,
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
                self.sds.sent.increment();
                return frames::encode(&response).map(Some);
            }
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
                    self.session.on_view(view);
                }
                () = sleep_until(self.look_again), if self.session.lacks_selectors() => {
                    self.attest_again().await?;
                }
                () = self.sds.shutdown.cancelled() => return Err(Status::unavailable(STOPPING)),
            }
        }
    }

    /// Looks at a caller again whose names are withheld: at its first request, not all that it is may have been known.
    async fn attest_again(&mut self) -> Result<(), Status> {
        let caller = self.sds.callers.attest_again(&self.caller).await?;
        if caller.selectors() != self.caller.selectors() {
            self.views = self.sds.workloads.subscribe(caller.selectors().clone());
            let view = self.views.borrow_and_update().clone();
            self.session.on_view(view);
        }
        self.caller = caller;
        self.patience = LOOK_AGAIN_AT_MOST.min(self.patience * 2);
        self.look_again = Instant::now() + self.patience;
        Ok(())
    }

    fn log(&mut self) {
        let notes = self.session.take_notes();
        let (caller, node) = (self.caller.pid(), self.session.node().unwrap_or("unknown"));
        let more = notes.len().saturating_sub(LOGGED);
        for note in notes.into_iter().take(LOGGED) {
            match note {
                Note::Withheld { name, why } => info!(
                    caller,
                    node,
                    name = &*name,
                    selectors = ?self.caller.selectors(),
                    "the secret is not served: {why}"
                ),
                Note::Rejected {
                    name,
                    version,
                    message,
                } => {
                    self.sds.rejected.increment();
                    warn!(
                        caller,
                        node,
                        name = &*name,
                        ?version,
                        "Envoy rejects the secret and keeps the one before: {message}"
                    );
                }
                Note::Wildcard => info!(
                    caller,
                    node, "Envoy asks for every secret at once, and gets none: it must name them"
                ),
            }
        }
        if more > 0 {
            info!(caller, node, more, "more secrets are not served");
        }
    }
}

impl Session for StreamSecrets {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn start(secrets: Arc<Secrets>, view: Arc<WorkloadView>, stream: u64) -> Self {
        Self::new(secrets, view, stream)
    }

    fn on_request(
        &mut self,
        request: &DiscoveryRequest,
        now: SystemTime,
    ) -> Result<(), RequestError> {
        self.on_request(request, now)
    }

    fn on_view(&mut self, view: Arc<WorkloadView>) {
        self.on_view(view);
    }

    fn next(&mut self, now: SystemTime) -> Option<DiscoveryResponse> {
        self.next(now)
    }

    fn take_notes(&mut self) -> Vec<Note> {
        self.take_notes()
    }

    fn lacks_selectors(&self) -> bool {
        self.lacks_selectors()
    }

    fn node(&self) -> Option<&str> {
        self.node()
    }
}

impl Session for DeltaSecrets {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn start(secrets: Arc<Secrets>, view: Arc<WorkloadView>, stream: u64) -> Self {
        Self::new(secrets, view, stream)
    }

    fn on_request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        _: SystemTime,
    ) -> Result<(), RequestError> {
        self.on_request(request)
    }

    fn on_view(&mut self, view: Arc<WorkloadView>) {
        self.on_view(view);
    }

    fn next(&mut self, now: SystemTime) -> Option<DeltaDiscoveryResponse> {
        self.next(now)
    }

    fn take_notes(&mut self) -> Vec<Note> {
        self.take_notes()
    }

    fn lacks_selectors(&self) -> bool {
        self.lacks_selectors()
    }

    fn node(&self) -> Option<&str> {
        self.node()
    }
}
