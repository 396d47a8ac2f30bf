//! The Kubernetes programs: injector, controller, CSI driver.

pub mod admission;
pub mod api_server;
pub mod bundle;
pub mod capture;
mod config_file;
pub mod controller;
pub mod csi;
pub mod files;
pub mod inject;
pub mod injector;
pub mod lease;
pub mod offline;
pub mod policy;
pub mod signet;
pub mod workload;
