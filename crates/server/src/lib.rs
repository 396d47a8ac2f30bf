//! The issuing server: who is calling, may they, node attestation, issuing, rotation.
//!
//! [`Config::parse`] reads a `server.conf`; [`Server::build`] opens the store and the keys, prepares the first authority
//! and binds every listener; [`Server::run`] serves until the tasks are asked to end.

mod attest;
mod authority;
mod caller;
pub mod config;
mod endpoints;
mod entries;
mod policy;
mod prune;
mod rpc;
mod service;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proto::spire::api::server::agent::v1::agent_server::AgentServer;
use proto::spire::api::server::bundle::v1::bundle_server::BundleServer;
use proto::spire::api::server::debug::v1::debug_server::DebugServer;
use proto::spire::api::server::entry::v1::entry_server::EntryServer;
use proto::spire::api::server::logger::v1::logger_server::LoggerServer;
use proto::spire::api::server::svid::v1::svid_server::SvidServer;
use proto::spire::api::server::trustdomain::v1::trust_domain_server::TrustDomainServer;
use runtime::files::{FileError, private_folder};
use runtime::grpc::MAX_MESSAGE;
use runtime::log::Log;
use runtime::{BoxError, Clock, Metrics, Readiness, Shutdown, Tasks};
use store::Store;
use thiserror::Error;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::attest::Attestors;
use crate::authority::{Authorities, Rotator};
use crate::caller::Callers;
use crate::config::DataStore;
use crate::endpoints::limits::Limiter;
use crate::endpoints::{Endpoints, Shared};
use crate::entries::Entries;
use crate::service::agent::{self, AgentService};
use crate::service::bundle::BundleService;
use crate::service::debug::DebugService;
use crate::service::entry::EntryService;
use crate::service::health::HealthService;
use crate::service::logger::LoggerService;
use crate::service::svid::SvidService;
use crate::service::trust_domain::TrustDomainService;

pub use attest::AttestorError;
pub use config::{Config, Overrides};
pub use endpoints::{Addresses, EndpointError};

/// Why the server cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A folder cannot be made.
    #[error(transparent)]
    Folder(#[from] FileError),
    /// The datastore cannot be opened.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The entries cannot be loaded.
    #[error("cannot load the entries: {0}")]
    Entries(#[from] store::StoreError),
    /// The authorities cannot be loaded or made.
    #[error("cannot set up the authorities: {0}")]
    Authorities(#[source] runtime::BoxError),
    /// A node attestor cannot be set up.
    #[error(transparent)]
    Attestor(#[from] AttestorError),
    /// A listener cannot be set up.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

/// The issuing server, ready to run: its store and keys open, its authorities prepared, its listeners bound.
pub struct Server {
    config: Config,
    store: Store,
    entries: Entries,
    authorities: Authorities,
    attestors: Arc<Attestors>,
    rotator: Rotator,
    endpoints: Endpoints,
    clock: Clock,
    log: Log,
    metrics: Metrics,
    started: SystemTime,
}

impl Server {
    /// Opens the store and the keys, prepares the authorities, publishes the bundle, signs the server's own SVID, and
    /// binds every listener; in this order, so that nobody is served before all of it is there.
    ///
    /// # Errors
    /// When one of these fails; nothing is left running.
    pub async fn build(config: Config, clock: Clock, log: Log) -> Result<Self, BuildError> {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let store = open(&config).await?;
        let prepared = Self::prepare(config, store.clone(), clock, log).await;
        if prepared.is_err() {
            store.close().await;
        }
        prepared
    }

    async fn prepare(
        config: Config,
        store: Store,
        clock: Clock,
        log: Log,
    ) -> Result<Self, BuildError> {
        let started = clock.now();
        let metrics = metrics(&config);
        let (authorities, rotator) =
            Authorities::start(&config, store.clone(), clock.clone(), metrics.clone())
                .await
                .map_err(|error| BuildError::Authorities(error.into()))?;
        let entries = Entries::load(store.clone(), &config.trust_domain).await?;
        let attestors = Attestors::build(
            &config.node_attestors,
            &config.trust_domain,
            store.clone(),
            authorities.bundle(),
        )
        .await?;
        let endpoints = Endpoints::bind(&config, authorities.server_svid()).await?;
        Ok(Self {
            config,
            store,
            entries,
            authorities,
            attestors: Arc::new(attestors),
            rotator,
            endpoints,
            clock,
            log,
            metrics,
            started,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        self.endpoints.addresses()
    }

    /// Starts serving; goes on until `tasks` are asked to end.
    pub fn run(self, tasks: &Tasks) -> Running {
        let running = Running {
            store: self.store.clone(),
        };
        let readiness = Readiness::new();
        let authorities = self.authorities.clone();
        readiness.check("server.ca", move || authorities.health());
        let shared = Arc::new(Shared {
            callers: Callers {
                trust_domain: self.config.trust_domain.clone(),
                admin_ids: self.config.admin_ids.clone(),
                bundle: self.authorities.bundle(),
                entries: self.entries.clone(),
                store: self.store.clone(),
            },
            limiter: Arc::new(Limiter::new(self.config.rate_limit)),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            audit: self.config.audit_log,
        });
        let remote = self.remote();
        let local = self.local(remote.clone(), readiness.clone());
        let addresses = self.endpoints.addresses();
        tracing::info!(
            trust_domain = %self.config.trust_domain,
            address = %addresses.tcp,
            socket = %addresses.socket.display(),
            "Starting Server APIs"
        );
        tasks.spawn("rotation", self.rotator.run(tasks.shutdown()));
        tasks.spawn("entries", follow(self.entries, tasks.shutdown()));
        let agents = self.config.prune_agents;
        let pruning = prune::run(self.store, agents, self.clock, tasks.shutdown());
        tasks.spawn("pruning", pruning);
        self.endpoints
            .serve(&shared, remote, local, &readiness, &self.metrics, tasks);
        running
    }

    /// The services of the TCP endpoint.
    fn remote(&self) -> Routes {
        let trust_domain = &self.config.trust_domain;
        let entries = EntryService::new(
            self.store.clone(),
            self.entries.clone(),
            trust_domain.clone(),
            self.clock.clone(),
        );
        let agents = AgentService::new(agent::Parts {
            store: self.store.clone(),
            entries: self.entries.clone(),
            authorities: self.authorities.clone(),
            attestors: Arc::clone(&self.attestors),
            trust_domain: trust_domain.clone(),
            agent_ttl: self.config.ca.agent_ttl,
            clock: self.clock.clone(),
        });
        let bundle = BundleService {
            authorities: self.authorities.clone(),
            store: self.store.clone(),
            entries: self.entries.clone(),
            trust_domain: trust_domain.clone(),
        };
        let trust_domains = TrustDomainService {
            store: self.store.clone(),
            trust_domain: trust_domain.clone(),
        };
        let svid = SvidService {
            authorities: self.authorities.clone(),
            entries: self.entries.clone(),
            trust_domain: trust_domain.clone(),
            ca: self.config.ca.clone(),
        };
        Routes::default()
            .add_service(AgentServer::new(agents).max_decoding_message_size(MAX_MESSAGE))
            .add_service(BundleServer::new(bundle).max_decoding_message_size(MAX_MESSAGE))
            .add_service(EntryServer::new(entries).max_decoding_message_size(MAX_MESSAGE))
            .add_service(SvidServer::new(svid).max_decoding_message_size(MAX_MESSAGE))
            .add_service(
                TrustDomainServer::new(trust_domains).max_decoding_message_size(MAX_MESSAGE),
            )
    }

    /// Those, and the services that only this machine's processes may call.
    fn local(&self, remote: Routes, readiness: Readiness) -> Routes {
        let debug = DebugService {
            store: self.store.clone(),
            svid: self.authorities.server_svid(),
            clock: self.clock.clone(),
            started: self.started,
        };
        remote
            .add_service(DebugServer::new(debug).max_decoding_message_size(MAX_MESSAGE))
            .add_service(LoggerServer::new(LoggerService::new(self.log.clone())))
            .add_service(HealthServer::new(HealthService::new(readiness)))
    }
}

/// What is left of a server once its tasks run.
pub struct Running {
    store: Store,
}

impl Running {
    /// Lets go of the datastore's file, so that another server in this process may open it; for after the tasks' end.
    pub async fn close(self) {
        self.store.close().await;
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

/// SPIRE's `started` and the names its dashboards know.
fn metrics(config: &Config) -> Metrics {
    let telemetry = &config.telemetry;
    let host = nix::unistd::gethostname().unwrap_or_default();
    let host = host.to_string_lossy();
    let trust_domain = config.trust_domain.as_str();
    let mut labels = Vec::new();
    if telemetry.host_label {
        labels.push(("host", &*host));
    }
    if telemetry.trust_domain_label {
        labels.push(("trust_domain_id", trust_domain));
    }
    let metrics = Metrics::with_labels(&telemetry.prefix, &labels);
    let started = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("trust_domain_id", trust_domain),
    ];
    metrics.gauge("started", &started).set(1.0);
    metrics
}

async fn open(config: &Config) -> Result<Store, BuildError> {
    private_folder(&config.data_dir)?;
    let DataStore::Sqlite { path } = &config.data_store;
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        private_folder(folder)?;
    }
    Ok(Store::open(path).await?)
}

/// Keeps the index of entries up to date; a store that cannot be read is tried again a second later.
async fn follow(entries: Entries, shutdown: Shutdown) -> Result<(), BoxError> {
    loop {
        let failed = tokio::select! {
            followed = entries.clone().follow() => followed,
            () = shutdown.cancelled() => return Ok(()),
        };
        let Err(error) = failed else {
            return Ok(());
        };
        tracing::error!(%error, "cannot follow the entries; trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
