//! The Kubernetes programs: injector, controller, CSI driver.

pub mod signet;
pub mod workload;
