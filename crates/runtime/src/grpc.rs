//! Serves gRPC over the streams of a listener, within limits, and drains at shutdown.

mod gate;
mod greeting;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use tokio::time::{Instant, sleep, timeout};
use tonic::body::Body;
use tower::util::Oneshot;
use tower::{Service, ServiceExt};
use tracing::Instrument;
use tracing::field::Empty;
use tracing::instrument::Instrumented;

use crate::listen::Listen;
use crate::{BoxError, RequestId, Shutdown, Tasks};

pub use gate::{Entered, Full, Gate};
use greeting::greeted;

/// The longest message a service should take, in bytes; pass it to the generated `max_decoding_message_size`.
pub const MAX_MESSAGE: usize = 4 << 20;

/// A client that has not sent HTTP/2's preface by then is closed.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long calls may go on at shutdown: a client that takes nothing of an answer would hold it up for good. Less than
/// programs have for all of their end.
const DRAIN: Duration = Duration::from_secs(5);
/// How long to wait when the process has no descriptor or memory left for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How often the same trouble at accept is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What one listener allows.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; more are closed unserved.
    pub connections: usize,
    /// Connections at once from one uid or one address.
    pub connections_per_peer: usize,
    /// Streams at once on one connection.
    pub streams: u32,
    /// Bytes of headers in one request, uncompressed.
    pub header_list: u32,
    /// How long a connection may be silent before it is pinged.
    pub keepalive: Duration,
    /// How long the answer to a ping may take.
    pub keepalive_timeout: Duration,
    /// How old a connection may become before it is asked to end (± 10 %), so that clients spread over servers anew.
    pub age: Option<Duration>,
    /// How long it then has.
    pub age_grace: Duration,
}

impl Limits {
    /// For a unix socket: no age.
    pub const fn unix() -> Self {
        Self {
            connections: 16_384,
            connections_per_peer: 8_192,
            // Envoy opens a stream for each secret, and a connection for each so many streams.
            streams: 4_096,
            header_list: 16 << 10,
            keepalive: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            age: None,
            age_grace: Duration::from_secs(10),
        }
    }

    /// For TCP.
    pub const fn tcp() -> Self {
        Self {
            age: Some(Duration::from_secs(3_600)),
            ..Self::unix()
        }
    }
}

/// Serves `service` on every stream of `listener`, until shutdown.
///
/// Each request carries in its extensions a [`RequestId`], and the [`Peer`](crate::Peer) (unix) or [`TlsPeer`](crate::TlsPeer) (TLS)
/// on the other end; it runs in a span `rpc` with the fields `request_id`, `method` and, for the service to fill in, `caller`. At
/// shutdown no new stream is accepted, and each connection ends with its last stream, or five seconds later: services must
/// end theirs when [`Tasks::shutdown`] says so.
pub fn serve<L, S>(listener: L, service: S, limits: Limits, tasks: &Tasks)
where
    L: Listen,
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send + 'static,
{
    let name = format!("listener {listener}");
    let server = Server {
        service,
        http2: http2(&limits, tasks),
        limits,
        tasks: tasks.clone(),
    };
    tasks.spawn(name, accept(listener, Arc::new(server)));
}

struct Server<S> {
    service: S,
    http2: http2::Builder<Tasks>,
    limits: Limits,
    tasks: Tasks,
}

/// Accepts until shutdown; no error of one connection, and no want of descriptors, ends it.
async fn accept<L, S>(mut listener: L, server: Arc<Server<S>>) -> Result<(), BoxError>
where
    L: Listen,
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send + 'static,
{
    let gate = Gate::new(
        server.limits.connections,
        server.limits.connections_per_peer,
    );
    let shutdown = server.tasks.shutdown();
    let mut complaints = Complaints::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return Ok(()),
        };
        match accepted {
            Ok((key, handshake)) => match gate.enter(key) {
                Ok(entered) => {
                    let server = server.clone();
                    server.tasks.clone().job("connection", async move {
                        let _entered = entered;
                        server.connection::<L>(handshake).await;
                    });
                }
                Err(full) => complaints.log(|| {
                    tracing::warn!(listener = %listener, %full, "connection refused");
                }),
            },
            Err(error) if is_exhausted(&error) => {
                complaints.log(|| {
                    tracing::warn!(listener = %listener, %error, "cannot accept; raise the limit of open files if this stays");
                });
                sleep(EXHAUSTED_PAUSE).await;
            }
            Err(error) => {
                tracing::debug!(listener = %listener, %error, "connection lost before it was accepted")
            }
        }
    }
}

impl<S> Server<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send + 'static,
{
    async fn connection<L: Listen>(&self, handshake: L::Handshake) {
        let shutdown = self.tasks.shutdown();
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = shutdown.cancelled() => return,
        };
        let (stream, peer) = match shaken {
            Ok(shaken) => shaken,
            Err(error) => return tracing::debug!(%error, "handshake failed"),
        };
        let requests = Requests {
            service: self.service.clone(),
            peer: peer.clone(),
        };
        let (stream, greeting) = greeted(stream);
        let connection = self.http2.serve_connection(TokioIo::new(stream), requests);
        let mut connection = pin!(connection);
        let end = async {
            let greeted = tokio::select! {
                came = timeout(GREETING_TIMEOUT, greeting) => came.is_ok(),
                () = shutdown.cancelled() => false,
            };
            if greeted {
                self.end_of_time(&shutdown).await
            } else {
                End::Silent
            }
        };
        let end = tokio::select! {
            ended = connection.as_mut() => return log_end(ended),
            end = end => end,
        };
        let grace = match end {
            End::Silent => return tracing::debug!(?peer, "closed: no HTTP/2 in time"),
            End::Shutdown => DRAIN,
            End::Old => self.limits.age_grace,
        };
        connection.as_mut().graceful_shutdown();
        match timeout(grace, connection).await {
            Ok(ended) => log_end(ended),
            Err(_) => tracing::debug!(?peer, "closed: asked to end, its streams did not"),
        }
    }

    /// When the connection has to be asked to end, and why.
    async fn end_of_time(&self, shutdown: &Shutdown) -> End {
        let age = async {
            match self.limits.age {
                Some(age) => sleep(jittered(age)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = age => End::Old,
            () = shutdown.cancelled() => End::Shutdown,
        }
    }
}

enum End {
    Old,
    Shutdown,
    Silent,
}

/// The service of one connection: tells each request who is on the other end.
struct Requests<S, P> {
    service: S,
    peer: P,
}

impl<S, P> hyper::service::Service<Request<Incoming>> for Requests<S, P>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
    P: Clone + Send + Sync + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Instrumented<Oneshot<S, Request<Body>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        let request_id = RequestId::next();
        let method = request.uri().path().trim_start_matches('/');
        let span = tracing::info_span!("rpc", %request_id, method, caller = Empty);
        request.extensions_mut().insert(request_id);
        request.extensions_mut().insert(self.peer.clone());
        self.service.clone().oneshot(request).instrument(span)
    }
}

fn http2(limits: &Limits, tasks: &Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks.clone());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_list)
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "connection ended");
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

/// Somewhere between 90 and 110 percent of `age`.
fn jittered(age: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 201;
    age * (900 + u32::try_from(random).unwrap_or_default()) / 1000
}

/// Lets the same trouble be logged only now and then.
#[derive(Default)]
struct Complaints(Option<Instant>);

impl Complaints {
    fn log(&mut self, log: impl FnOnce()) {
        let now = Instant::now();
        if self.0.is_none_or(|last| now - last >= LOG_EVERY) {
            self.0 = Some(now);
            log();
        }
    }
}
