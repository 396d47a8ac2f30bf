//! HTTPS for admission reviews: one path per handler, limits on everything a stranger in the pod network may send, and a drain
//! that goes on serving while the API server still sends.

mod body;
mod connection;
mod respond;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use runtime::grpc::Gate;
use runtime::listen::{ListenError, bind_tcp};
use runtime::{BoxError, Metrics, Part, Shutdown, Tasks};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use super::review::{AdmissionRequest, Answer};

/// A pause when the process has no descriptor or memory left for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// What a handler gives: an answer, or why there is none now.
pub type Handling<'a> = Pin<Box<dyn Future<Output = Result<Answer, NoAnswer>> + Send + 'a>>;

/// Answers reviews.
pub trait Handler: Send + Sync + 'static {
    /// Answers one. It has no effect elsewhere when [`AdmissionRequest::dry_run`] says so.
    fn handle(&self, request: AdmissionRequest) -> Handling<'_>;
}

/// A request that cannot be answered now: the API server does as the webhook's `failurePolicy` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer(
    /// Why.
    pub String,
);

/// Handlers by path.
#[derive(Clone, Default)]
pub struct Routes(BTreeMap<String, Arc<dyn Handler>>);

impl Routes {
    /// No paths yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With `handler` at `path`.
    #[must_use]
    pub fn with(mut self, path: &str, handler: impl Handler) -> Self {
        self.0.insert(path.to_owned(), Arc::new(handler));
        self
    }

    /// With all that `other` has.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    fn get(&self, path: &str) -> Option<&Arc<dyn Handler>> {
        self.0.get(path)
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// What the server allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one body.
    pub body: usize,
    /// Bytes of all bodies being read or handled at once.
    pub bodies: usize,
    /// For one request, from its headers to the answer; below the webhook's `timeoutSeconds`.
    pub request: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_peer: usize,
    /// For a handshake.
    pub greeting: Duration,
    /// How long a connection may be without a request, the first too: longer than the 90 s for which an API server keeps one,
    /// since it opens more than it needs, and a request on one that closes is not sent again.
    pub idle: Duration,
    /// How long it goes on serving after it was asked to end: until no API server knows its address any more.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 4 << 20,
            bodies: 64 << 20,
            request: Duration::from_secs(9),
            connections: 2_048,
            // An API server has a connection for every review under way, and hundreds of them.
            connections_per_peer: 640,
            greeting: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            drain: Duration::from_secs(5),
        }
    }
}

/// A bound server.
#[derive(Debug)]
pub struct Server {
    tcp: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds `address`; port 0 takes any. Nobody is served yet.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let tcp = bind_tcp(address).await?;
        let address = tcp.local_addr().unwrap_or(address);
        Ok(Self { tcp, address })
    }

    /// The address, with its port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` under the newest of `tls`, from the first on, until shutdown and the drain after it. `ready` is let go
    /// once it serves. A connection keeps the configuration it began with.
    pub fn serve(
        self,
        routes: Routes,
        tls: watch::Receiver<Option<Arc<rustls::ServerConfig>>>,
        limits: Limits,
        metrics: Metrics,
        ready: Part,
        tasks: &Tasks,
    ) {
        let shared = Shared {
            bodies: Arc::new(Semaphore::new(limits.bodies)),
            routes,
            limits,
            metrics,
            tls,
            tasks: tasks.clone(),
        };
        tasks.spawn(
            "admission server",
            accept(self.tcp, Arc::new(shared), ready),
        );
    }
}

/// What all connections share.
struct Shared {
    routes: Routes,
    limits: Limits,
    bodies: Arc<Semaphore>,
    metrics: Metrics,
    tls: watch::Receiver<Option<Arc<rustls::ServerConfig>>>,
    tasks: Tasks,
}

impl Shared {
    /// Ready when it is time to stop serving.
    async fn drained(&self) {
        let shutdown: Shutdown = self.tasks.shutdown();
        shutdown.cancelled().await;
        sleep(self.limits.drain).await;
    }
}

/// Accepts until drained; no error of one connection, and no want of descriptors, ends it.
async fn accept(tcp: TcpListener, shared: Arc<Shared>, ready: Part) -> Result<(), BoxError> {
    let shutdown = shared.tasks.shutdown();
    let mut certified = shared.tls.clone();
    tokio::select! {
        has = certified.wait_for(Option::is_some) => drop(has?),
        () = shutdown.cancelled() => return Ok(()),
    }
    drop(ready);
    let gate: Gate<IpAddr> = Gate::new(
        shared.limits.connections,
        shared.limits.connections_per_peer,
    );
    let refused = shared.metrics.counter("admission_connections_refused", &[]);
    let mut drained = pin!(shared.drained());
    loop {
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            () = drained.as_mut() => return Ok(()),
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "connection lost before it was accepted");
                sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        match gate.enter(peer.ip()) {
            Ok(entered) => {
                let shared = Arc::clone(&shared);
                shared
                    .tasks
                    .clone()
                    .job("admission connection", async move {
                        let _entered = entered;
                        connection::serve(stream, peer, shared).await;
                    });
            }
            Err(full) => {
                refused.increment();
                tracing::debug!(%full, "connection refused");
            }
        }
    }
}
