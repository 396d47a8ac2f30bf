//! What every long-running program here shares: clock, tasks, readiness, logs, metrics, listeners, private files, config reading. Knows no SPIFFE ID.

pub mod backoff;
mod clock;
pub mod config;
pub mod files;
pub mod grpc;
pub mod listen;
pub mod log;
mod metrics;
mod pages;
mod probes;
pub mod process;
mod readiness;
mod tasks;

pub use clock::Clock;
pub use listen::{Peer, TlsPeer};
pub use log::RequestId;
pub use metrics::{Call, Calls, Counter, Gauge, Metrics};
pub use probes::Probes;
pub use readiness::{Part, Readiness};
pub use tasks::{RunError, Shutdown, Supervisor, Tasks};

/// Any error that a task, a handler or a stream may end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
