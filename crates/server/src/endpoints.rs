//! The listeners: the TCP endpoint behind TLS, the private unix socket, figures and health over HTTP.

mod gate;
pub(crate) mod limits;
mod outcome;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use identity::X509Svid;
use runtime::grpc::{self, Limits};
use runtime::listen::{ListenError, TlsListener, UnixListener};
use runtime::{Metrics, Probes, Readiness, Tasks};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::sync::watch;
use tonic::service::Routes;

use crate::config::{Config, TlsConfig};

pub(crate) use gate::{Gate, Shared};

/// Owner and group: whoever may open it administers the server.
const SOCKET_MODE: u32 = 0o770;
/// As SPIRE's: agents spread over several servers anew every so often.
const CONNECTION_AGE: Duration = Duration::from_secs(3 * 60);
/// How long calls may go on over a connection that came of age.
const CONNECTION_GRACE: Duration = Duration::from_secs(10);

/// Why a listener cannot be set up.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// An address or a path cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The server's SVID cannot be shown.
    #[error("the server's SVID cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The TCP endpoint.
    pub tcp: SocketAddr,
    /// The private unix socket.
    pub socket: PathBuf,
    /// Prometheus' figures.
    pub prometheus: Option<SocketAddr>,
    /// Health over HTTP.
    pub health: Option<SocketAddr>,
}

/// All listeners, bound.
pub(crate) struct Endpoints {
    tcp: TlsListener,
    socket: UnixListener,
    probes: Probes,
    tls: watch::Sender<Arc<ServerConfig>>,
    allowed: TlsConfig,
    svids: watch::Receiver<Arc<X509Svid>>,
    addresses: Addresses,
}

impl Endpoints {
    /// Binds every listener that the configuration asks for.
    pub(crate) async fn bind(
        config: &Config,
        mut svids: watch::Receiver<Arc<X509Svid>>,
    ) -> Result<Self, EndpointError> {
        let first = tls::server_config(&svids.borrow_and_update(), config.tls)?;
        let (tls, configs) = watch::channel(first);
        let tcp = TlsListener::bind(config.bind_address, configs).await?;
        let socket = UnixListener::bind(&config.socket_path, SOCKET_MODE)?;
        let probes = Probes::bind(config.telemetry.prometheus, config.health.as_ref()).await?;
        let addresses = Addresses {
            tcp: tcp.address(),
            socket: socket.path().to_owned(),
            prometheus: probes.figures(),
            health: probes.health(),
        };
        Ok(Self {
            tcp,
            socket,
            probes,
            tls,
            allowed: config.tls,
            svids,
            addresses,
        })
    }

    pub(crate) const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves: `remote` over TCP, `local` over the unix socket.
    pub(crate) fn serve(
        self,
        shared: &Arc<Shared>,
        remote: Routes,
        local: Routes,
        readiness: &Readiness,
        metrics: &Metrics,
        tasks: &Tasks,
    ) {
        let limits = Limits {
            age: Some(CONNECTION_AGE),
            age_grace: CONNECTION_GRACE,
            ..Limits::tcp()
        };
        let gate = Gate::new(Arc::clone(shared), remote);
        grpc::serve(self.tcp, gate, limits, tasks);
        let gate = Gate::new(Arc::clone(shared), local);
        grpc::serve(self.socket, gate, Limits::unix(), tasks);
        self.probes.serve(metrics, readiness, tasks);
        let following = tls::follow(self.svids, self.allowed, self.tls);
        let shutdown = tasks.shutdown();
        tasks.spawn("tls identity", async move {
            tokio::select! {
                () = following => {}
                () = shutdown.cancelled() => {}
            }
            Ok(())
        });
    }
}
