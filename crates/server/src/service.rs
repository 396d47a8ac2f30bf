//! The gRPC services, one file each. By the time a service is called, the caller is known and permitted.

pub(crate) mod agent;
pub(crate) mod bundle;
pub(crate) mod debug;
pub(crate) mod entry;
pub(crate) mod health;
mod incoming;
mod list;
pub(crate) mod logger;
pub(crate) mod svid;
pub(crate) mod trust_domain;
