//! The public socket: Workload API, SDS, health and reflection.
//!
//! ```text
//! accept → Peer (pid, uid, gid, pidfd) → Callers::attest → Selectors → Workloads::subscribe → WorkloadView → stream
//! ```

pub mod caller;
mod compose;
mod frames;
mod health;
pub mod sds;
mod shared;
pub mod uds;
pub mod workload;
