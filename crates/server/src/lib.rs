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
mod watch;

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
use store::{Observer, Store, Writing};
use thiserror::Error;
use tonic::Code;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::attest::Attestors;
use crate::authority::{Authorities, Rotator};
use crate::caller::Callers;
use crate::config::DataStore;
use crate::endpoints::limits::Limiter;
use crate::endpoints::{Endpoints, Shared};
use crate::entries::Entries;
use crate::rpc::RpcError;
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
    writing: Writing,
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
        let started = clock.now();
        let metrics = metrics(&config);
        let (store, mut writing) = open(&config).await?;
        let store = store.observed(observer(&metrics));
        // Preparing writes; from `run` on a task does the writing.
        let prepared = tokio::select! {
            prepared = Prepared::new(&config, store.clone(), &clock, &metrics) => prepared,
            () = &mut writing => Err(BuildError::Entries(store::StoreError::Closed)),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                // With the last handle the writing ends, and the file is free.
                drop(store);
                writing.await;
                return Err(error);
            }
        };
        let Prepared {
            entries,
            authorities,
            attestors,
            rotator,
            endpoints,
        } = prepared;
        Ok(Self {
            config,
            store,
            writing,
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
    pub fn run(self, tasks: &Tasks) {
        let readiness = Readiness::new();
        let authorities = self.authorities.clone();
        readiness.check("server.ca", move || authorities.health());
        let store = self.store.clone();
        readiness.check("catalog.datastore", move || {
            store.health().map_err(|error| error.to_string())
        });
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
        let remote = self.remote(&tasks.shutdown());
        let local = self.local(remote.clone(), readiness.clone());
        let addresses = self.endpoints.addresses();
        tracing::info!(
            trust_domain = %self.config.trust_domain,
            address = %addresses.tcp,
            socket = %addresses.socket.display(),
            "Starting Server APIs"
        );
        let writing = self.writing;
        tasks.spawn("datastore", async {
            // To the last handle: whatever still writes while the server ends is waited for.
            writing.await;
            Ok(())
        });
        tasks.spawn(
            "datastore health",
            watch::datastore(self.store.clone(), tasks.shutdown()),
        );
        let uptime = watch::uptime(self.metrics.clone(), tasks.shutdown());
        tasks.spawn("uptime", uptime);
        tasks.spawn("rotation", self.rotator.run(tasks.shutdown()));
        tasks.spawn("entries", follow(self.entries, tasks.shutdown()));
        let agents = self.config.prune_agents;
        let pruning = prune::Pruning {
            store: self.store,
            agents,
            clock: self.clock,
            metrics: self.metrics.clone(),
        };
        let pruning = pruning.run(tasks.shutdown());
        tasks.spawn("pruning", pruning);
        self.endpoints
            .serve(&shared, remote, local, &readiness, &self.metrics, tasks);
    }

    /// The services of the TCP endpoint.
    fn remote(&self, shutdown: &Shutdown) -> Routes {
        let trust_domain = &self.config.trust_domain;
        let entries = EntryService::new(
            self.store.clone(),
            self.entries.clone(),
            trust_domain.clone(),
            self.clock.clone(),
            shutdown.clone(),
        );
        let agents = AgentService::new(agent::Parts {
            store: self.store.clone(),
            entries: self.entries.clone(),
            authorities: self.authorities.clone(),
            attestors: Arc::clone(&self.attestors),
            trust_domain: trust_domain.clone(),
            agent_ttl: self.config.ca.agent_ttl,
            clock: self.clock.clone(),
            shutdown: shutdown.clone(),
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

/// What a server is made of besides its configuration.
struct Prepared {
    entries: Entries,
    authorities: Authorities,
    attestors: Attestors,
    rotator: Rotator,
    endpoints: Endpoints,
}

impl Prepared {
    async fn new(
        config: &Config,
        store: Store,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Result<Self, BuildError> {
        let (authorities, rotator) =
            Authorities::start(config, store.clone(), clock.clone(), metrics.clone())
                .await
                .map_err(|error| BuildError::Authorities(error.into()))?;
        let entries = Entries::load(store.clone(), &config.trust_domain, metrics).await?;
        let attestors = Attestors::build(
            &config.node_attestors,
            &config.trust_domain,
            store,
            authorities.bundle(),
        )
        .await?;
        let endpoints = Endpoints::bind(config, authorities.server_svid()).await?;
        Ok(Self {
            entries,
            authorities,
            attestors,
            rotator,
            endpoints,
        })
    }
}

/// SPIRE's `started` and the names its dashboards know.
fn metrics(config: &Config) -> Metrics {
    let trust_domain = config.trust_domain.as_str();
    let metrics = config.telemetry.metrics(trust_domain);
    let started = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("trust_domain_id", trust_domain),
    ];
    metrics.gauge("started", &started).set(1.0);
    metrics
}

/// SPIRE's `datastore_*`: a counter and the time of each call.
fn observer(metrics: &Metrics) -> Observer {
    let metrics = metrics.clone();
    Observer::new(move |name| {
        let call = metrics.call(&format!("datastore_{name}"), &[]);
        Box::new(move |failure| {
            call.finish(failure.map_or(Code::Ok, |error| RpcError::from(error.clone()).code()));
        })
    })
}

async fn open(config: &Config) -> Result<(Store, Writing), BuildError> {
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
