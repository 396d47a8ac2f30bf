//! The gRPC services, one file each. By the time a service is called, the caller is known and permitted.

mod agent;
mod bundle;
mod debug;
mod entry;
mod svid;
