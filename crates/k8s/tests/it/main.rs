//! The Kubernetes programs against a server, an agent and a fake API server in process.

mod signet;
mod workload;
