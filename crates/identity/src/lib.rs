//! The field's words as types: trust domain, SPIFFE ID, selector, registration entry, X.509-SVID, JWT-SVID, bundle,
//! federation relationship.
//!
//! No I/O, no async, no clock: whatever depends on the time takes `now`. Nothing here fails except by being given bad
//! input, and each error says what was wrong and what would be right.

mod bundle;
mod der;
mod endpoint;
mod entry;
mod federation;
mod hex;
mod id;
mod json;
mod jwk;
mod jwt;
mod key;
mod selector;
mod x509;

pub use bundle::{Bundle, BundleError, BundleSet, JwtAuthority, X509Authority};
pub use endpoint::{EndpointAddress, EndpointAddressError};
pub use entry::{EntryError, EntryId, MAX_HINT_LEN, RegistrationEntry, check_dns_name};
pub use federation::{
    EndpointProfile, EndpointUrl, EndpointUrlError, FederationRelationship, MAX_ENDPOINT_URL_LEN,
};
pub use hex::hex;
pub use id::{IdError, MAX_ID_LEN, MAX_TRUST_DOMAIN_LEN, SpiffeId, TrustDomain};
pub use jwt::{JwtError, JwtSvid, LEEWAY};
pub use key::{KeyError, KeyType, PrivateKey};
pub use selector::{Selector, SelectorError, Selectors};
pub use x509::{Certificate, X509Error, X509Svid, check_leaf, verify_x509_svid};
