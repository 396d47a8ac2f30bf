//! The Kubernetes programs against a server, an agent and a fake API server in process.

mod annotations_doc;
mod controller;
mod inject;
mod manifests;
mod signet;
mod workload;
