//! grpc.health.v1

use runtime::Readiness;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::rpc::RpcError;

/// Says whether the server serves. `Watch` is not offered, as in SPIRE.
pub(crate) struct HealthService {
    readiness: Readiness,
}

impl HealthService {
    pub(crate) const fn new(readiness: Readiness) -> Self {
        Self { readiness }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            let text = "per-service health is not supported";
            return Err(RpcError::InvalidArgument(text.into()).into());
        }
        let status = if self.readiness.is_ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        Ok(Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let text = "health is not watched; ask with Check";
        Err(RpcError::Unimplemented(text.into()).into())
    }
}
