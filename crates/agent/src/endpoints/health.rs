//! `grpc.health.v1.Health` for the agent as a whole, whose name is empty, as SPIRE has it.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::unfold;
use runtime::{Metrics, Readiness, Shutdown};
use tokio::select;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Serving while the agent is ready and not asked to end.
#[derive(Clone, Debug)]
pub(super) struct AgentHealth {
    readiness: Readiness,
    metrics: Metrics,
    shutdown: Shutdown,
}

impl AgentHealth {
    pub(super) fn new(readiness: Readiness, metrics: Metrics, shutdown: Shutdown) -> Self {
        Self {
            readiness,
            metrics,
            shutdown,
        }
    }

    fn status(&self) -> ServingStatus {
        if self.readiness.is_ready() && !self.shutdown.is_cancelled() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    /// Until the status may be another.
    async fn change(&self) {
        if self.readiness.is_ready() {
            return self.shutdown.cancelled().await;
        }
        select! {
            () = self.readiness.ready() => {}
            () = self.shutdown.cancelled() => {}
        }
    }
}

#[tonic::async_trait]
impl Health for AgentHealth {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let call = self.metrics.call("rpc_health_check", &[]);
        let known = call.record(known(request.get_ref()));
        known.map(|()| Response::new(answer(self.status())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        known(request.get_ref())?;
        let health = self.clone();
        // The last status told; the stream ends with the agent.
        let stream = unfold((health, None), async |(health, told)| {
            if told.is_some() {
                if health.shutdown.is_cancelled() {
                    return None;
                }
                health.change().await;
            }
            let status = health.status();
            Some((Ok(answer(status)), (health, Some(status))))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn known(request: &HealthCheckRequest) -> Result<(), Status> {
    if request.service.is_empty() {
        Ok(())
    } else {
        Err(Status::not_found(
            "unknown service: only the agent as a whole is watched, whose name is empty",
        ))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
