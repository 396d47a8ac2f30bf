//! The Kubernetes programs: injector, controller, CSI driver.

pub mod controller;
pub mod lease;
pub mod signet;
pub mod workload;
