//! The Kubernetes programs: injector, controller, CSI driver.

pub mod controller;
pub mod signet;
pub mod workload;
