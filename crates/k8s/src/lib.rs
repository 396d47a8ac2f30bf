//! The Kubernetes programs: injector, controller, CSI driver.

pub mod controller;
pub mod inject;
pub mod csi;
pub mod lease;
pub mod offline;
pub mod policy;
pub mod signet;
pub mod workload;
