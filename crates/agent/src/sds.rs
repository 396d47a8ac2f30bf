//! Secret discovery for Envoy (SDS v3): which secret a name stands for, and what a stream answers. All of it is pure;
//! `endpoints::sds` moves the bytes.
//!
//! A name has one kind for ever, certificate or trust bundle. What cannot be given now is held and pushed later: no
//! name ends a stream, none delays another, and no private key leaves that was not asked for by name. Versions are
//! content hashes, so that a restart of the agent costs nothing.

mod allow;
mod encode;
mod form;
mod gate;
mod name;
mod secrets;
pub mod session;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use allow::{AllowError, AllowList, Allowed};
pub use encode::{Certified, Resource, Version};
pub use form::{Form, STREAM_KEY, Style, read_bool};
pub use name::Name;
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
    /// The hint of the identity that is a workload's first, whatever its age.
    pub default_svid_hint: Option<String>,
    /// By name, which peers a validation context of that name lets in.
    pub allow_lists: BTreeMap<String, Arc<AllowList>>,
    /// After how long a stream ends that could not be given anything; zero: never.
    pub hold_max: Duration,
    /// For how long certificates of a new authority wait at most until all Envoys have accepted it; zero: not at all.
    pub authority_ack_timeout: Duration,
    /// Whether an Envoy whose workload may no longer have a bundle is told to trust nobody.
    pub deny_when_revoked: bool,
    /// Whether a workload without an identity gets the own bundle all the same.
    pub allow_unauthenticated_verifiers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self::new(&SdsConfig::default(), &WorkloadApiConfig::default())
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
            default_svid_hint: sds.default_svid_hint.clone(),
            allow_lists: sds.allow_lists.clone(),
            hold_max: sds.hold_max,
            authority_ack_timeout: sds.authority_ack_timeout,
            deny_when_revoked: sds.deny_when_revoked,
            allow_unauthenticated_verifiers: workload_api.allow_unauthenticated_verifiers,
        }
    }
}

#[cfg(test)]
mod fixtures;
