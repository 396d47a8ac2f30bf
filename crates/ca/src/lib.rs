//! Keys, authorities and issuing: what turns an entry and a public key into an SVID. No database, no gRPC.
//!
//! All of it is synchronous and takes `now`; the one I/O is the disk key manager's file.
//!
//! - [`KeyManager`] keeps the private keys of the authorities.
//! - [`csr::parse`] takes the public key, and nothing else, out of a certificate signing request.
//! - [`X509Authority`] and [`JwtAuthority`] sign SVIDs. No certificate is signed that a linter has not read first.
//! - [`Rotation`] says when an authority is to be prepared and activated; it does neither itself.

mod certificate;
pub mod csr;
mod der;
mod jwt;
mod key_manager;
mod lint;
mod public_key;
mod rotation;
mod subject;
mod x509;

pub use jwt::{IssuedJwt, JwtAuthority, JwtError, JwtSpec};
pub use key_manager::{KeyManager, KeyManagerError};
pub use lint::LintError;
pub use public_key::{PublicKey, PublicKeyError};
pub use rotation::{JournalError, Kind, Record, Rotation, Slot, Status, Step};
pub use subject::{Attribute, Subject};
pub use x509::{BACKDATE, CaSpec, IssuedX509, LeafSpec, X509Authority, X509AuthorityError};
