//! The node agent: attest, sync, cache, and the two public endpoints, Workload API and SDS.
//!
//! [`Config::parse`] reads an `agent.conf`; [`Agent::build`] reads what an earlier run left on the disk and
//! binds the socket; [`Agent::run`] attests, syncs and serves until the tasks are asked to end. Who
//! connects before the server has answered waits, unless the disk knows what it may have.

pub mod attest;
pub mod cache;
pub mod client;
mod clock_watch;
pub mod config;
pub mod disk;
pub mod endpoints;
mod fetch;
pub mod jwt;
pub mod sds;
pub mod svid;
pub mod sync;
pub mod workload;
pub mod workloads;

#[cfg(test)]
mod fixtures;

use std::{io::ErrorKind, net::SocketAddr, path::Path, sync::Arc, time::SystemTime};

use identity::{BundleSet, SpiffeId, X509Svid};
use runtime::{
    Clock, Metrics, Probes, Readiness, Tasks, backoff,
    files::{self, FileError, FolderLock},
    listen::ListenError,
};
use tokio::sync::{Notify, watch};
use tonic::Code;

use self::{
    attest::{
        keeper::{Keeper, Orders, Setup},
        proof::{Proof, ProofError},
        store::AgentStore,
    },
    cache::Cache,
    client::ServerClient,
    config::KeyManager,
    disk::Disk,
    endpoints::uds::{PublicSocket, Services},
    svid::Rotation,
    sync::{Syncer, issue::Issuer},
    workload::Attestors,
    workloads::{Workloads, living::Living},
};

pub use self::config::{Config, Overrides};

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The data folder cannot be used.
    #[error("the data folder: {0}")]
    Folder(#[from] FileError),
    /// There is no agent SVID on disk, and the node attestor has nothing to prove the node with.
    #[error(transparent)]
    Attestor(#[from] ProofError),
    /// A listener cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Reflection cannot be set up.
    #[error("setting up reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The node agent, ready to run: what the disk had is loaded, its listeners are bound.
pub struct Agent {
    config: Config,
    clock: Clock,
    metrics: Metrics,
    readiness: Readiness,
    living: Arc<Living>,
    keeper: Keeper,
    syncer: Syncer,
    issuer: Issuer,
    disk: Option<Disk>,
    svid: watch::Receiver<Option<Arc<X509Svid>>>,
    socket: PublicSocket,
    probes: Probes,
    started: SystemTime,
    folders: Vec<FolderLock>,
}

impl Agent {
    /// Loads what an earlier run left, and binds every listener.
    ///
    /// # Errors
    /// When the data folder cannot be used, there is nothing to attest with, or a listener is taken.
    pub async fn build(config: Config, clock: Clock) -> Result<Self, BuildError> {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let started = clock.now();
        let metrics = config.telemetry.metrics(config.trust_domain.as_str());
        let readiness = Readiness::new();
        let folders = take_folders(&config).await?;
        let socket = PublicSocket::bind(&config.socket_path)?;
        let probes = Probes::bind(config.telemetry.prometheus, config.health.as_ref()).await?;
        let parts = Parts::assemble(&config, &clock, &metrics, &readiness)?;
        Ok(Self {
            living: parts.living,
            keeper: parts.keeper,
            syncer: parts.syncer,
            issuer: parts.issuer,
            disk: parts.disk,
            svid: parts.svid,
            config,
            clock,
            metrics,
            readiness,
            socket,
            probes,
            started,
            folders,
        })
    }

    /// The public socket.
    #[must_use]
    pub fn socket_path(&self) -> &Path {
        self.socket.path()
    }

    /// Where Prometheus may fetch figures.
    #[must_use]
    pub fn prometheus_address(&self) -> Option<SocketAddr> {
        self.probes.figures()
    }

    /// Where health is told over HTTP.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.probes.health()
    }

    /// Ready after the first sync with the server, or at once when the disk knew enough.
    #[must_use]
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Starts serving; goes on until `tasks` are asked to end.
    ///
    /// # Errors
    /// When the socket cannot be served.
    pub fn run(self, tasks: &Tasks) -> Result<(), BuildError> {
        tracing::info!(
            trust_domain = %self.config.trust_domain,
            server = %self.config.server,
            socket = %self.socket.path().display(),
            version = env!("CARGO_PKG_VERSION"),
            "Starting Workload and SDS APIs"
        );
        let started = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("trust_domain_id", self.config.trust_domain.as_str()),
        ];
        self.metrics.gauge("started", &started).set(1.0);
        self.probes.serve(&self.metrics, &self.readiness, tasks);
        let services = Services {
            workloads: Workloads::living(self.living.clone()),
            attestors: Attestors::new(&self.config.workload_attestors),
            workload_api: self.config.workload_api,
            sds: self.config.sds,
            clock: self.clock,
            metrics: self.metrics,
            readiness: self.readiness,
        };
        self.socket.serve(services, tasks)?;
        let folders = Arc::new(self.folders);
        let (keeper, held) = (self.keeper.run(tasks.shutdown()), Arc::clone(&folders));
        tasks.spawn("agent SVID", async move {
            let _held = held;
            keeper.await
        });
        tasks.spawn("sync", self.syncer.run(tasks.shutdown(), self.started));
        tasks.spawn("X.509-SVIDs", self.issuer.run(tasks.shutdown()));
        if let Some(disk) = self.disk {
            let kept = disk.keep(self.living, self.svid, tasks.shutdown());
            tasks.spawn("SVID cache on disk", async move {
                let _held = folders;
                kept.await
            });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("socket", &self.socket.path())
            .finish_non_exhaustive()
    }
}

/// The loops and what they share.
struct Parts {
    living: Arc<Living>,
    keeper: Keeper,
    syncer: Syncer,
    issuer: Issuer,
    disk: Option<Disk>,
    svid: watch::Receiver<Option<Arc<X509Svid>>>,
}

impl Parts {
    fn assemble(
        config: &Config,
        clock: &Clock,
        metrics: &Metrics,
        readiness: &Readiness,
    ) -> Result<Self, BuildError> {
        let store = Arc::new(AgentStore::new(&config.data_dir, &config.key_manager));
        let call = metrics.call("agent_key_manager_get_keys", &[]);
        let stored = store.load(&config.trust_domain, clock.now());
        call.finish(Code::Ok);
        match &stored.svid {
            Some(found) => {
                tracing::info!(agent_id = %found.svid.id(), "taking up the agent SVID on disk")
            }
            // Better now than when the socket is open.
            None => drop(Proof::load(&config.node_attestor)?),
        }
        let trust: BundleSet = stored.bundle.into_iter().map(Arc::new).collect();
        let trust = watch::Sender::new(Arc::new(trust));
        let svid = watch::Sender::new(None);
        let client = ServerClient::new(
            config.server.clone(),
            config.trust_domain.clone(),
            trust.subscribe(),
            svid.subscribe(),
            clock.clone(),
        );
        let disk = config
            .keep_svids
            .then(|| Disk::new(&config.data_dir, &config.trust_domain));
        let rotation = Rotation {
            availability_target: config.availability_target,
        };
        let watch = svid.subscribe();
        let setup = Setup {
            server: config.server.clone(),
            trust_domain: config.trust_domain.clone(),
            bootstrap: config.bootstrap.clone(),
            node_attestor: config.node_attestor.clone(),
            rotation,
            store: store.clone(),
            client: client.clone(),
            bundles: trust.clone(),
            disk: disk.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        let (keeper, orders) = Keeper::new(setup, stored.svid, svid);
        let capacity = config.x509_svid_cache_max_size;
        let cache = Cache::new(&config.trust_domain, capacity, rotation);
        let living = Arc::new(Living::new(
            cache,
            config.jwt_svid_cache_max_size,
            client.clone(),
            orders.clone(),
            clock.clone(),
            metrics,
        ));
        let own_id = watch.borrow().as_ref().map(|svid| svid.id().clone());
        let restored = restore(disk.as_ref(), &living, own_id.as_ref(), clock);
        let ready = readiness.part("agent");
        let links = Links {
            living: living.clone(),
            client,
            svid: watch.clone(),
            orders,
            clock: clock.clone(),
            metrics: metrics.clone(),
            sync_now: Arc::new(Notify::new()),
        };
        Ok(Self {
            keeper,
            issuer: Issuer::new(links.clone(), config.workload_key_type),
            syncer: Syncer::new(links, trust, store, config.sync_interval, ready, restored),
            living,
            disk,
            svid: watch,
        })
    }
}

/// What the loops have in common.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) living: Arc<Living>,
    pub(crate) client: ServerClient,
    pub(crate) svid: watch::Receiver<Option<Arc<X509Svid>>>,
    pub(crate) orders: Orders,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Rung when the next sync should not wait.
    pub(crate) sync_now: Arc<Notify>,
}

/// Fills the cache with what an earlier run left, and tells as which agent it ran.
fn restore(
    disk: Option<&Disk>,
    living: &Living,
    own_id: Option<&SpiffeId>,
    clock: &Clock,
) -> Option<SpiffeId> {
    let disk = disk?;
    match disk.load(own_id, clock.now()) {
        Ok(Some(snapshot)) => {
            let agent = snapshot.agent.clone();
            let (entries, svids) = (snapshot.entries.len(), snapshot.svids.len());
            living.update(|cache, now| snapshot.restore(cache, now));
            tracing::info!(entries, svids, "serving what was there before the restart");
            agent
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(
                path = %disk.path().display(),
                %error,
                "the copy of an earlier run is not used; asking the server for everything"
            );
            None
        }
    }
}

/// Makes the folders and takes them, and finds out now whether the disk takes what the agent must not lose.
async fn take_folders(config: &Config) -> Result<Vec<FolderLock>, FileError> {
    files::private_folder(&config.data_dir)?;
    let KeyManager::Disk { directory } = &config.key_manager else {
        return match files::lock_folder(&config.data_dir).await {
            Ok(lock) => Ok(vec![lock]),
            Err(error) if error.source.kind() == ErrorKind::ResourceBusy => Err(error),
            // There is nothing that must not be lost.
            Err(_) => Ok(Vec::new()),
        };
    };
    files::private_folder(directory)?;
    let mut locks = vec![files::lock_folder(&config.data_dir).await?];
    if !is_same(directory, &config.data_dir) {
        locks.push(files::lock_folder(directory).await?);
    }
    for folder in [&config.data_dir, directory] {
        let probe = folder.join(".writable");
        files::write_private(&probe, b"")?;
        files::remove(&probe)?;
    }
    Ok(locks)
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
