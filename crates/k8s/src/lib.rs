//! The Kubernetes programs: injector, controller, CSI driver.
