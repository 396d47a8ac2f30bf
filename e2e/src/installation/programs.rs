//! The injector, the controller and the CSI driver of an installation.
