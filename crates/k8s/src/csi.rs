//! The CSI driver (`csi.spiffe.io`): shows the agent's socket to pods that name it as an inline volume.
//!
//! It serves the kubelet on a unix socket, registers itself, and does nothing but bind mounts. Containers have the volume
//! read-only; the folder's own rules stay what the agent made them.

mod driver;
mod label;
mod mounts;
mod registration;
mod target;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::csi::v1::identity_server::IdentityServer;
use proto::csi::v1::node_server::NodeServer;
use runtime::grpc::{self, Limits};
use runtime::listen::{ListenError, UnixListener, bind_tcp};
use runtime::{Metrics, Part, Readiness, Shutdown, Tasks};
use serde::Deserialize;
use tokio::net::TcpListener;
use tonic::service::Routes;

pub use label::{Label, LabelError};
pub use mounts::{Health, MountError, Mounts, Usage};
pub use target::TargetError;

use driver::Driver;
use registration::About;

/// How often volumes are looked at.
const HEAL_EVERY: Duration = Duration::from_secs(10);

/// A container that starts anew has the new folder mounted; and it takes up the volumes that are there.
const REMOVED: &str =
    "the agent's folder was removed on the node; this container must start anew to see the new one";

/// All the driver is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The driver's name; pods name it.
    pub driver_name: String,
    /// The Kubernetes node's name.
    pub node_id: String,
    /// The driver's socket.
    pub socket: PathBuf,
    /// The same, as the kubelet sees it.
    pub kubelet_socket_path: PathBuf,
    /// The kubelet's folder of plugins, in which the driver makes itself known.
    pub registration_dir: PathBuf,
    /// The kubelet's folder of pods, under the path that the kubelet uses.
    pub pods_dir: PathBuf,
    /// The agent's folder, which pods get to see.
    pub workload_api_socket_dir: PathBuf,
    /// How the agent's folder is labelled for SELinux, if at all.
    pub selinux: Option<Label>,
    /// Where health is told over HTTP.
    pub health: Option<SocketAddr>,
    /// Where figures are told over HTTP.
    pub metrics: Option<SocketAddr>,
}

/// Why the driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A path will not do.
    #[error("{option} {path}: {reason}")]
    Path {
        /// Which option names it.
        option: &'static str,
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The agent's folder cannot be labelled.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A listener cannot be set up.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// The driver, ready to run.
#[derive(Debug)]
pub struct Csi {
    config: Config,
    driver: Driver,
    listener: UnixListener,
    readiness: Readiness,
    registered: Part,
    metrics: Metrics,
    health_listener: Option<TcpListener>,
    metrics_listener: Option<TcpListener>,
}

impl Csi {
    /// Binds the sockets, and takes up the volumes of an earlier run.
    ///
    /// # Errors
    /// When a path or a listener will not do.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        check(&config)?;
        let mounts = Mounts::new(
            config.workload_api_socket_dir.clone(),
            config.pods_dir.clone(),
        )
        .labelled(config.selinux.clone());
        let (pods, name) = (config.pods_dir.clone(), config.driver_name.clone());
        mounts.adopt(published(&pods, &name));
        mounts.label()?;
        let metrics = Metrics::new("signet_csi");
        let readiness = Readiness::new();
        let registered = readiness.part("registration");
        let listener = UnixListener::bind(&config.socket, 0o600)?;
        let health_listener = listen(config.health).await?;
        let metrics_listener = listen(config.metrics).await?;
        let driver = Driver {
            name: config.driver_name.clone(),
            node_id: config.node_id.clone(),
            mounts: Arc::new(mounts),
            metrics: metrics.clone(),
        };
        Ok(Self {
            config,
            driver,
            listener,
            readiness,
            registered,
            metrics,
            health_listener,
            metrics_listener,
        })
    }

    /// Starts serving; goes on until `tasks` are asked to end. Volumes stay: pods go on without the driver.
    pub fn run(self, tasks: &Tasks) {
        let Self { config, driver, .. } = self;
        tracing::info!(
            driver = config.driver_name,
            socket = %config.socket.display(),
            workload_api_socket_dir = %config.workload_api_socket_dir.display(),
            volumes = driver.mounts.count(),
            "Starting CSI driver"
        );
        if let Some(listener) = self.health_listener {
            self.readiness.serve(listener, "/live", "/ready", tasks);
        }
        if let Some(listener) = self.metrics_listener {
            self.metrics.serve(listener, tasks);
        }
        let mounts = driver.mounts.clone();
        let services = Routes::new(IdentityServer::new(driver.clone()));
        let services = services.add_service(NodeServer::new(driver));
        grpc::serve(self.listener, services.prepare(), Limits::unix(), tasks);
        let about = About {
            name: config.driver_name,
            endpoint: config.kubelet_socket_path.display().to_string(),
        };
        let folder = config.registration_dir;
        let registration = registration::run(folder, about, self.registered, tasks.shutdown());
        tasks.spawn("registration", registration);
        tasks.spawn("volumes", heal(mounts, self.metrics, tasks.shutdown()));
    }
}

async fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>, ListenError> {
    match address {
        Some(address) => bind_tcp(address).await.map(Some),
        None => Ok(None),
    }
}

fn check(config: &Config) -> Result<(), BuildError> {
    let paths = [
        ("--pods-dir", &config.pods_dir),
        ("--registration-dir", &config.registration_dir),
        ("--workload-api-socket-dir", &config.workload_api_socket_dir),
        ("--kubelet-socket-path", &config.kubelet_socket_path),
    ];
    for (option, path) in paths {
        let bad = |reason| BuildError::Path {
            option,
            path: path.clone(),
            reason,
        };
        if !path.is_absolute() {
            return Err(bad("give an absolute path"));
        }
        // The agent's folder may come later; the kubelet's are there before its pods are.
        if matches!(option, "--pods-dir" | "--registration-dir") && !path.is_dir() {
            return Err(bad("is no folder; mount the node's at the same path"));
        }
    }
    Ok(())
}

/// What the kubelet keeps beside a volume.
#[derive(Deserialize)]
struct VolumeData {
    #[serde(rename = "driverName", default)]
    driver_name: String,
}

/// The volumes of this driver that are there, by the kubelet's notes: `<pod>/volumes/kubernetes.io~csi/<volume>/vol_data.json`.
fn published(pods: &Path, driver: &str) -> Vec<PathBuf> {
    let entries = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.filter_map(Result::ok).map(|entry| entry.path())
    };
    let volumes =
        entries(pods.to_owned()).flat_map(|pod| entries(pod.join("volumes/kubernetes.io~csi")));
    let ours = |volume: &PathBuf| {
        let data = std::fs::read(volume.join("vol_data.json")).ok();
        let data = data.and_then(|data| serde_json::from_slice::<VolumeData>(&data).ok());
        data.is_some_and(|data| data.driver_name == driver)
    };
    let volumes = volumes.filter(ours).map(|volume| volume.join("mount"));
    volumes.filter(|mount| mount.exists()).collect()
}

/// Looks at the volumes now and then, and binds anew what is stale.
async fn heal(
    mounts: Arc<Mounts>,
    metrics: Metrics,
    shutdown: Shutdown,
) -> Result<(), runtime::BoxError> {
    let healed = metrics.counter("volumes_healed", &[]);
    let published = metrics.gauge("volumes", &[]);
    let mut look = tokio::time::interval(HEAL_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let turn = mounts.clone();
        let look = move || (turn.source_is_removed(), turn.heal(), turn.count());
        let (removed, count, volumes) = tokio::task::spawn_blocking(look).await?;
        if removed {
            return Err(REMOVED.into());
        }
        healed.add(count as u64);
        #[expect(clippy::cast_precision_loss, reason = "as many as a node has pods")]
        published.set(volumes as f64);
    }
}

#[cfg(test)]
mod tests;
