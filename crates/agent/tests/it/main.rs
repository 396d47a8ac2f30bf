//! The agent's endpoints from outside.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod attestation;
mod domain;
mod federation;
mod k8s;
mod life;
mod sds;
mod socket;
mod workload_api;
