//! Two-way conversions between wire messages and `identity`'s types.
//!
//! On the wire a SPIFFE ID is a trust domain and a path, a time is int64 unix seconds, a TTL is int32 seconds with 0 for
//! the default. What comes in is checked, and a [`FieldError`] names the field that is wrong; what goes out cannot fail.

mod bundle;
mod entry;
mod error;
mod federation;
mod id;
mod mask;
mod status;
mod svid;
mod time;

pub use bundle::{bundle, jwt_authorities, jwt_authority, x509_authorities};
pub use entry::{entry, new_entry, updated_entry};
pub use error::{Fault, FieldError};
pub use federation::{FederationChange, federation_change, federation_relationship};
pub use id::{federated, selectors, spiffe_id, trust_domain, wire_selectors};
pub use mask::{mask_agent, mask_bundle, mask_entry, mask_federation_relationship};
pub use status::{Reason, denied, denied_reason, ok_status, status};
pub use svid::{
    claims, jwt_svid, wire_claims, wire_x509_svid, workload_x509_svid, x509_chain, x509_svid,
};
pub use time::{seconds, time, wire_time, wire_ttl};

#[cfg(test)]
mod tests;
