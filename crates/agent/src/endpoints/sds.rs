//! Envoy's secret discovery service, v3: a thin shell around `crate::sds`.
//!
//! Written against HTTP, as the Workload API's service is: a stream then reads its requests without keeping a buffer
//! as large as Envoy's first one, and its secrets leave from the bytes that all streams share.

mod messages;
mod notes;
mod stream;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use proto::discovery::DiscoveryRequest;
use runtime::{Clock, Metrics, Shutdown};
use tokio::{select, time::timeout};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use self::{
    messages::Messages,
    notes::Totals,
    stream::{Opening, Stream},
};
use super::{
    caller::{Caller, Callers},
    frames,
};
use crate::{
    sds::{
        DeltaSecrets, RequestError, STREAM_KEY, Secrets, StreamSecrets, read_bool,
        session::{FetchError, fetch},
    },
    workloads::Workloads,
};

/// For how long `FetchSecrets` waits for an SVID that is on its way.
const PATIENCE: Duration = Duration::from_secs(10);

/// What clients hear when the agent ends; they connect again.
const STOPPING: &str = "the agent is stopping";

/// The service, for the public socket.
#[derive(Clone)]
pub struct SdsService(Arc<Sds>);

struct Sds {
    callers: Callers,
    workloads: Workloads,
    secrets: Arc<Secrets>,
    clock: Clock,
    shutdown: Shutdown,
    metrics: Metrics,
    figures: Totals,
}

/// The same secrets for an Envoy that asks for resources of all types on one stream (ADS): it gets its secrets, and no
/// answer to anything else.
#[derive(Clone)]
pub struct AdsService(SdsService);

impl SdsService {
    /// Serves `secrets` of `workloads` to those whom `callers` attests.
    #[must_use]
    pub fn new(
        callers: Callers,
        workloads: Workloads,
        secrets: Secrets,
        clock: Clock,
        metrics: Metrics,
        shutdown: Shutdown,
    ) -> Self {
        Self(Arc::new(Sds {
            callers,
            workloads,
            secrets: Arc::new(secrets),
            clock,
            shutdown,
            figures: Totals::new(&metrics),
            metrics,
        }))
    }
}

impl SdsService {
    /// The service for streams of many types.
    #[must_use]
    pub fn aggregated(&self) -> AdsService {
        AdsService(self.clone())
    }
}

impl NamedService for AdsService {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<Request<Body>> for AdsService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

impl NamedService for SdsService {
    const NAME: &'static str = "envoy.service.secret.v3.SecretDiscoveryService";
}

impl Service<Request<Body>> for SdsService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sds = Arc::clone(&self.0);
        Box::pin(async move {
            let answer = sds.answer(request).await;
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

impl Sds {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Status> {
        let path = request.uri().path().to_owned();
        match path.rsplit_once('/').map(|(_, method)| method) {
            Some("StreamSecrets") => self.stream::<StreamSecrets>(&path, request, false).await,
            Some("DeltaSecrets") => self.stream::<DeltaSecrets>(&path, request, false).await,
            Some("StreamAggregatedResources") => {
                self.stream::<StreamSecrets>(&path, request, true).await
            }
            Some("DeltaAggregatedResources") => {
                self.stream::<DeltaSecrets>(&path, request, true).await
            }
            Some("FetchSecrets") => {
                self.figures.begun.increment();
                let _under_way = self.figures.under_way.hold();
                let call = self.metrics.rpc(&path);
                call.record(self.fetch(request).await)
            }
            _ => Err(Status::unimplemented("SDS has no such method")),
        }
    }

    async fn stream<S: stream::Session>(
        self: Arc<Self>,
        path: &str,
        request: Request<Body>,
        aggregated: bool,
    ) -> Result<Response<Body>, Status> {
        self.figures.begun.increment();
        let under_way = self.figures.under_way.hold();
        let call = self.metrics.rpc(path);
        let plain = request.headers().get(STREAM_KEY);
        let plain = plain.and_then(|value| read_bool(value.to_str().ok()?));
        let opening = Opening { aggregated, plain };
        match self.admit(request).await {
            Ok((caller, messages)) => {
                let stream = Stream::<S>::open(self, caller, messages, opening)?;
                Ok(frames::streaming(stream.run((call, under_way))))
            }
            Err(status) => call.record(Err(status)),
        }
    }

    async fn fetch(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (caller, mut messages) = self.admit(request).await?;
        let question: DiscoveryRequest = messages
            .next()
            .await?
            .ok_or_else(|| Status::invalid_argument("the request holds no message"))?;
        let mut views = self.workloads.subscribe(caller.selectors().clone());
        let answer = timeout(PATIENCE, async {
            loop {
                let view = views.borrow_and_update().clone();
                match fetch(&self.secrets, &view, &question, self.clock.now()) {
                    Err(FetchError::NotYet { .. }) if views.changed().await.is_ok() => {}
                    answer => return answer,
                }
            }
        });
        let answer = select! {
            answer = answer => answer,
            () = self.shutdown.cancelled() => return Err(Status::unavailable(STOPPING)),
        };
        let answer = answer.unwrap_or_else(|_| {
            let view = views.borrow().clone();
            fetch(&self.secrets, &view, &question, self.clock.now())
        });
        caller.check_alive()?;
        Ok(frames::unary(frames::encode(&answer.map_err(refuse)?)?))
    }

    async fn admit<M>(&self, request: Request<Body>) -> Result<(Caller, Messages<M>), Status> {
        let caller = self.callers.attest(request.extensions()).await?;
        Ok((caller, Messages::of(request)?))
    }
}

fn refuse(error: FetchError) -> Status {
    let text = error.to_string();
    match error {
        FetchError::Request(error) => reject(&error),
        FetchError::NoNames => Status::invalid_argument(text),
        FetchError::NotYet { .. } => Status::unavailable(text),
        FetchError::Refused { .. } => Status::permission_denied(text),
    }
}

fn reject(error: &RequestError) -> Status {
    let text = error.to_string();
    match error {
        RequestError::Type(_) => Status::invalid_argument(text),
        RequestError::TooManyNames => Status::resource_exhausted(text),
    }
}
