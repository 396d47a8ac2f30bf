//! The agent's endpoints from outside.

mod domain;
mod workload_api;
