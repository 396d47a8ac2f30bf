//! The agent's endpoints from outside.

mod attestation;
mod domain;
mod socket;
mod workload_api;
