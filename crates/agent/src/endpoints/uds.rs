//! The public socket and all that is served on it.

use std::path::Path;

use runtime::listen::{ListenError, UnixListener};
use runtime::{Clock, Metrics, Readiness, Tasks, grpc};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::{Builder as Reflection, Error as ReflectionError};

use super::caller::Callers;
use super::health::AgentHealth;
use super::sds::SdsService;
use super::workload::WorkloadApi;
use crate::config::{SdsConfig, WorkloadApiConfig};
use crate::sds::{Options, Secrets};
use crate::workload::Attestors;
use crate::workloads::Workloads;

/// Any process of the node may connect: what it gets depends on who it is.
const MODE: u32 = 0o777;

/// The bound socket, not serving yet.
#[derive(Debug)]
pub struct PublicSocket {
    listener: UnixListener,
}

/// What the services need of the rest of the agent.
#[derive(Debug)]
pub struct Services {
    /// Where identities come from.
    pub workloads: Workloads,
    /// How callers are told apart.
    pub attestors: Attestors,
    /// What the Workload API allows.
    pub workload_api: WorkloadApiConfig,
    /// The names by which Envoy asks.
    pub sds: SdsConfig,
    /// Wall time.
    pub clock: Clock,
    /// Figures.
    pub metrics: Metrics,
    /// What `grpc.health.v1.Health` tells.
    pub readiness: Readiness,
}

impl PublicSocket {
    /// Binds the socket. Who connects before [`PublicSocket::serve`] waits.
    ///
    /// # Errors
    /// When the path is taken or cannot be made.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        Ok(Self {
            listener: UnixListener::bind(path, MODE)?,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Serves until shutdown.
    ///
    /// # Errors
    /// When the descriptors that reflection tells are broken.
    pub fn serve(self, services: Services, tasks: &Tasks) -> Result<(), ReflectionError> {
        let routes = services.routes(tasks)?;
        grpc::serve(self.listener, routes, grpc::Limits::unix(), tasks);
        Ok(())
    }
}

impl Services {
    fn routes(self, tasks: &Tasks) -> Result<Routes, ReflectionError> {
        let callers = Callers::new(self.attestors, self.metrics.clone());
        let health = HealthServer::new(AgentHealth::new(
            self.readiness,
            self.metrics.clone(),
            tasks.shutdown(),
        ));
        let mut routes = Routes::builder();
        let mut served = vec![name_of(&health)];
        routes.add_service(health);
        if self.sds.enabled {
            let options = Options::new(&self.sds, &self.workload_api);
            let sds = SdsService::new(
                callers.clone(),
                self.workloads.clone(),
                Secrets::new(options),
                self.clock.clone(),
                self.metrics.clone(),
                tasks.shutdown(),
            );
            let ads = sds.aggregated();
            served.extend([name_of(&sds), name_of(&ads)]);
            routes.add_service(sds);
            routes.add_service(ads);
        }
        if self.workload_api.enabled {
            let api = WorkloadApi::new(
                callers,
                self.workloads,
                self.clock,
                self.metrics,
                tasks.shutdown(),
                self.workload_api,
            );
            served.push(name_of(&api));
            routes.add_service(api);
        }
        routes.add_service(reflection(&served).build_v1()?);
        routes.add_service(reflection(&served).build_v1alpha()?);
        Ok(routes.routes())
    }
}

fn name_of<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}

/// Tells of what is served, and of nothing else that /proto holds.
fn reflection(served: &[&str]) -> Reflection<'static> {
    let all = Reflection::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    served
        .iter()
        .fold(all, |reflection, name| reflection.with_service_name(*name))
}

#[cfg(test)]
mod tests;
