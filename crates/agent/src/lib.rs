//! The node agent: attest, sync, cache, and the two public endpoints, Workload API and SDS.

pub mod attest;
pub mod cache;
pub mod client;
pub mod config;
pub mod disk;
pub mod endpoints;
pub mod jwt;
pub mod sds;
pub mod svid;
pub mod sync;
pub mod workload;
pub mod workloads;
