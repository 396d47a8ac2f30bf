//! The gate every call passes: who calls, may they, how often, how it ended.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use runtime::{Clock, Metrics, Peer, TlsPeer};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Service, ServiceExt as _};
use tracing::Span;

use super::limits::{Limiter, Turn};
use super::outcome::Outcome;
use crate::caller::{Callers, Origin};
use crate::policy;
use crate::rpc::RpcError;

/// What all calls share.
pub(crate) struct Shared {
    pub(crate) callers: Callers,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Log every call, not only those that fail.
    pub(crate) audit: bool,
}

/// The services of one endpoint behind their gate.
#[derive(Clone)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
    services: Routes,
}

impl Gate {
    pub(crate) fn new(shared: Arc<Shared>, services: Routes) -> Self {
        Self {
            shared,
            services: services.prepare(),
        }
    }

    async fn pass(self, mut request: Request<Body>) -> Response<Body> {
        let Self { shared, services } = self;
        let path = request.uri().path().to_owned();
        let extensions = request.extensions();
        let origin = Origin::of(extensions.get::<Peer>(), extensions.get::<TlsPeer>());
        // The listener's, with the request's ID and method.
        let span = Span::current();
        let Some(who) = policy::who_may_call(&path) else {
            let error = RpcError::Unimplemented(format!("unknown method {path}"));
            return Outcome::new(None, shared.audit, span).follow(refusal(error));
        };
        let call = shared.metrics.rpc(&path);
        let outcome = Outcome::new(Some(call), shared.audit, span.clone());
        let now = shared.clock.now();
        let admitted = shared.callers.admit(&origin, who, &path, now);
        let caller = match admitted.await {
            Ok(caller) => caller,
            Err(error) => return outcome.follow(refusal(error)),
        };
        span.record("caller", tracing::field::display(&caller));
        if let Some(why) = policy::not_served(&path) {
            return outcome.follow(refusal(RpcError::Unimplemented(why.into())));
        }
        let extensions = request.extensions_mut();
        extensions.insert(caller);
        if let Origin::Remote { address, .. } = origin {
            let (limiter, metrics) = (Arc::clone(&shared.limiter), shared.metrics.clone());
            extensions.insert(Turn::new(limiter, address, metrics, path));
        }
        let served = services.oneshot(request).await;
        outcome.follow(served.unwrap_or_else(|never: Infallible| match never {}))
    }
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gate = self.clone();
        Box::pin(async move { Ok(gate.pass(request).await) })
    }
}

fn refusal(error: RpcError) -> Response<Body> {
    Status::from(error).into_http()
}
