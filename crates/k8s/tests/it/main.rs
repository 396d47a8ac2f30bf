//! The Kubernetes programs against a server, an agent and a fake API server in process.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
mod admission;
mod annotations_doc;
mod controller;
mod inject;
mod manifests;
mod signet;
mod static_mode;
mod workload;
