//! Serves gRPC over the streams of a listener, within limits, and drains at shutdown.

use std::time::Duration;

use tonic::body::Body;
use tower::Service;

use crate::listen::Listen;
use crate::{BoxError, Tasks};

/// The longest message a service should take, in bytes; pass it to the generated `max_decoding_message_size`.
pub const MAX_MESSAGE: usize = 4 << 20;

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
            streams: 1_024,
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
/// Each request carries in its extensions a [`RequestId`](crate::RequestId), and the [`Peer`](crate::Peer) (unix) or
/// [`TlsPeer`](crate::TlsPeer) (TLS) on the other end. At shutdown no new stream is accepted, and each connection ends with its last
/// stream: services must end theirs when [`Tasks::shutdown`] says so.
pub fn serve<L, S>(listener: L, service: S, limits: Limits, tasks: &Tasks)
where
    L: Listen,
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    todo!()
}
