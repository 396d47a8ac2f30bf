//! Secret discovery for Envoy (SDS v3): which secret a name stands for, and what a stream answers. All of it is pure;
//! `endpoints::sds` moves the bytes.
//!
//! A name has one kind for ever, certificate or trust bundle. What cannot be given now is held and pushed later: no
//! name ends a stream, none delays another, and no private key leaves that was not asked for by name. Versions are
//! content hashes, so that a restart of the agent costs nothing.

mod encode;
mod name;
mod secrets;
pub mod session;

pub use encode::{Resource, Version};
pub use name::{Form, Name};
pub use secrets::{Absent, Secrets};
pub use session::{DeltaSecrets, Note, RequestError, StreamSecrets};

use crate::config::{SdsConfig, WorkloadApiConfig};

/// The one type of resource there is here.
pub const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// How many names one stream may ask for. Envoy asks for one; one of these streams for a large gateway, a few thousand.
pub const MAX_NAMES: usize = 4096;

/// What the operator chose. The names are SPIRE's, and so are their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Stands for the workload's first certificate.
    pub default_svid_name: String,
    /// Stands for the bundle of the agent's own trust domain.
    pub default_bundle_name: String,
    /// Stands for all bundles the workload may have, in one validation context.
    pub default_all_bundles_name: String,
    /// Whether bundles are given as plain CA certificates, unless an Envoy's own metadata says otherwise.
    pub disable_spiffe_cert_validation: bool,
    /// Whether a workload without an identity gets the own bundle all the same.
    pub allow_unauthenticated_verifiers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            default_svid_name: "default".to_owned(),
            default_bundle_name: "ROOTCA".to_owned(),
            default_all_bundles_name: "ALL".to_owned(),
            disable_spiffe_cert_validation: false,
            allow_unauthenticated_verifiers: false,
        }
    }
}

impl Options {
    /// What the configuration says.
    #[must_use]
    pub fn new(sds: &SdsConfig, workload_api: &WorkloadApiConfig) -> Self {
        Self {
            default_svid_name: sds.default_svid_name.clone(),
            default_bundle_name: sds.default_bundle_name.clone(),
            default_all_bundles_name: sds.default_all_bundles_name.clone(),
            disable_spiffe_cert_validation: sds.disable_spiffe_cert_validation,
            allow_unauthenticated_verifiers: workload_api.allow_unauthenticated_verifiers,
        }
    }
}

#[cfg(test)]
mod fixtures;
