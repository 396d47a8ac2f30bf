//! The SPIFFE Workload API (SPIFFE_Workload_Endpoint.md, SPIFFE_Workload_API.md).
//!
//! The service is written against HTTP, not against the generated trait: three of its methods answer many streams with
//! the same frame, which the trait would have encoded again for each of them.

mod jwt;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use prost::Message;
use proto::workload::{JwtBundlesRequest, X509BundlesRequest, X509svidRequest};
use runtime::{Clock, Counter, Gauge, Metrics, Shutdown};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;
use tracing::info;

use super::caller::{Caller, Callers};
use super::frames;
use super::shared::{Content, SharedFrames};
use crate::config::WorkloadApiConfig;
use crate::workloads::Workloads;

/// A call without exactly one `workload.spiffe.io: true` is refused before anything else is done for it.
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Clients compare it, so it stays as SPIRE has it.
pub const SECURITY_HEADER_MISSING: &str = "security header missing from request";

/// Clients compare it: rust-spiffe waits longer before it asks again. It stays as SPIRE has it.
pub const NO_IDENTITY: &str = "no identity issued";

/// The Workload API as a service of the public socket.
#[derive(Clone)]
pub struct WorkloadApi(Arc<Api>);

struct Api {
    callers: Callers,
    workloads: Workloads,
    clock: Clock,
    metrics: Metrics,
    begun: Counter,
    under_way: Gauge,
    shutdown: Shutdown,
    config: WorkloadApiConfig,
    frames: SharedFrames,
}

impl WorkloadApi {
    /// Serves what `workloads` says to those whom `callers` attests.
    #[must_use]
    pub fn new(
        callers: Callers,
        workloads: Workloads,
        clock: Clock,
        metrics: Metrics,
        shutdown: Shutdown,
        config: WorkloadApiConfig,
    ) -> Self {
        Self(Arc::new(Api {
            callers,
            workloads,
            clock,
            begun: metrics.counter("workload_api_connection", &[]),
            under_way: metrics.gauge("workload_api_connections", &[]),
            metrics,
            shutdown,
            config,
            frames: SharedFrames::default(),
        }))
    }
}

impl NamedService for WorkloadApi {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl Service<Request<Body>> for WorkloadApi {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.0.clone();
        Box::pin(async move {
            let answer = api.answer(request).await;
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

impl Api {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Status> {
        check_header(request.headers())?;
        let path = request.uri().path().to_owned();
        match path.rsplit_once('/').map(|(_, method)| method) {
            Some("FetchX509SVID") => {
                let call = self.begin("rpc_workload_api_fetch_x509svid");
                self.stream::<X509svidRequest>(call, request, Content::X509Svids)
                    .await
            }
            Some("FetchX509Bundles") => {
                let call = self.begin("rpc_workload_api_fetch_x509_bundles");
                self.stream::<X509BundlesRequest>(call, request, Content::X509Bundles)
                    .await
            }
            Some("FetchJWTBundles") => {
                let call = self.begin("rpc_workload_api_fetch_jwt_bundles");
                self.stream::<JwtBundlesRequest>(call, request, Content::JwtBundles)
                    .await
            }
            Some("FetchJWTSVID") => {
                let call = self.begin("rpc_workload_api_fetch_jwtsvid");
                call.record(self.fetch_jwt_svid(request).await)
            }
            Some("ValidateJWTSVID") => {
                let call = self.begin("rpc_workload_api_validate_jwtsvid");
                call.record(self.validate_jwt_svid(request).await)
            }
            // Clients that ask for WIT-SVIDs then know not to ask again.
            Some("FetchWITSVID" | "FetchWITBundles") => {
                Err(Status::unimplemented("WIT-SVIDs are not supported"))
            }
            _ => Err(Status::unimplemented("the Workload API has no such method")),
        }
    }

    async fn stream<M: Message + Default + 'static>(
        self: Arc<Self>,
        call: Call,
        request: Request<Body>,
        content: Content,
    ) -> Result<Response<Body>, Status> {
        match self.admit::<M>(request).await {
            Ok((_, caller)) => Ok(frames::streaming(stream::open(self, call, caller, content))),
            Err(status) => call.record(Err(status)),
        }
    }

    /// Attests who asks, and reads the question.
    async fn admit<M: Message + Default + 'static>(
        &self,
        request: Request<Body>,
    ) -> Result<(M, Caller), Status> {
        let caller = self.callers.attest(request.extensions()).await?;
        let question = frames::decode(request).await?;
        Ok((question, caller))
    }

    fn begin(&self, name: &str) -> Call {
        self.begun.increment();
        self.under_way.add(1.0);
        Call {
            call: self.metrics.call(name, &[]),
            _under_way: UnderWay(self.under_way.clone()),
        }
    }
}

/// SPIFFE_Workload_Endpoint.md §3 and §6: exactly one value, exactly `true`.
fn check_header(headers: &HeaderMap) -> Result<(), Status> {
    let mut values = headers.get_all(SECURITY_HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument(SECURITY_HEADER_MISSING)),
    }
}

/// The answer to a caller that no entry matches. Which entry comes near, the log of the core says.
fn no_identity(caller: &Caller) -> Status {
    info!(
        caller = caller.pid(),
        uid = caller.uid(),
        selectors = ?caller.selectors(),
        "{NO_IDENTITY}: every selector of an entry must be among the caller's, and no entry's are"
    );
    Status::permission_denied(NO_IDENTITY)
}

/// A call under way: counted while it lasts, and by how it ends.
struct Call {
    call: runtime::Call,
    _under_way: UnderWay,
}

impl Call {
    fn record<T>(self, result: Result<T, Status>) -> Result<T, Status> {
        self.call.record(result)
    }
}

struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}
