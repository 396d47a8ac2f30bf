//! What is wrong with a message, and where.

use std::fmt;

use identity::{EndpointUrlError, EntryError, IdError, JwtError, SelectorError, X509Error};
use thiserror::Error;

/// A message is refused because of one of its fields.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: {fault}")]
pub struct FieldError {
    /// The field, by its path from the message that was converted, such as `selectors[2]`.
    pub field: String,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What may be wrong with a field.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Unset or empty.
    #[error("is missing")]
    Missing,
    /// Below zero.
    #[error("is {0}; write 0 for the default, or a positive number of seconds")]
    NegativeTtl(i32),
    /// No time that can be told.
    #[error("is {0}; write unix seconds, or 0 for none")]
    Time(i64),
    /// No SPIFFE ID or trust domain.
    #[error(transparent)]
    Id(#[from] IdError),
    /// No selector.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// Breaks a rule of entries.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// No URL of a bundle endpoint.
    #[error(transparent)]
    EndpointUrl(#[from] EndpointUrlError),
    /// Neither of the ways an endpoint may prove itself.
    #[error("is missing; give https_web or https_spiffe")]
    NoProfile,
    /// Of another trust domain than the relationship.
    #[error("is of the trust domain {bundle}, but the relationship is with {relationship}")]
    ForeignBundle {
        /// The bundle's.
        bundle: String,
        /// The relationship's.
        relationship: String,
    },
    /// No certificate, or not a fitting one.
    #[error(transparent)]
    X509(#[from] X509Error),
    /// No token.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// Says another thing than the document it comes with.
    #[error("says {said}, but the SVID is for {is}")]
    Mismatch {
        /// The message's word.
        said: String,
        /// The document's.
        is: String,
    },
}

impl FieldError {
    pub(super) fn new(field: impl Into<String>, fault: impl Into<Fault>) -> Self {
        Self {
            field: field.into(),
            fault: fault.into(),
        }
    }

    pub(super) fn missing(field: &str) -> Self {
        Self::new(field, Fault::Missing)
    }

    /// The same error, seen from the message that holds the field's message as `outer`, such as `entries[3]`.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}
