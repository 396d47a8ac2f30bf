//! The linter that reads each certificate before it is signed.

use std::time::SystemTime;

use identity::{SpiffeId, X509Error};
use thiserror::Error;

/// What is wrong with a certificate that was about to be signed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LintError {
    /// It breaks a rule of X509-SVID.md.
    #[error(transparent)]
    Rule(#[from] X509Error),
    /// Another ID than the one asked for.
    #[error("the certificate names {found}, not {wanted}")]
    Id {
        /// What it should name.
        wanted: SpiffeId,
        /// What it names.
        found: SpiffeId,
    },
    /// Some other field differs from what was asked for.
    #[error("the certificate's {0} is not what was asked for")]
    Field(&'static str),
    /// It would outlive its issuer.
    #[error("the certificate would be valid until after its issuer expires")]
    Validity {
        /// When the issuer expires.
        issuer: SystemTime,
    },
}
