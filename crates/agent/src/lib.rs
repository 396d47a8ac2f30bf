//! The node agent: attest, sync, cache, and the two public endpoints, Workload API and SDS.

pub mod workloads;
