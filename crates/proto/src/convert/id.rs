//! SPIFFE IDs, trust domains, selectors.

use std::collections::BTreeSet;

use identity::{Selector, Selectors, SpiffeId, TrustDomain};

use super::FieldError;
use crate::spire::api::types;

/// Reads a SPIFFE ID that must be there. `field` is its name, for the error.
///
/// # Errors
/// When it is unset or none.
pub fn spiffe_id(field: &str, id: Option<&types::Spiffeid>) -> Result<SpiffeId, FieldError> {
    let id = id.ok_or_else(|| FieldError::missing(field))?;
    TrustDomain::parse(&id.trust_domain)
        .and_then(|trust_domain| SpiffeId::new(&trust_domain, &id.path))
        .map_err(|error| FieldError::new(field, error))
}

/// Reads a trust domain, a bare name or an ID without a path.
///
/// # Errors
/// When it is empty or none.
pub fn trust_domain(field: &str, name: &str) -> Result<TrustDomain, FieldError> {
    TrustDomain::parse(name).map_err(|error| FieldError::new(field, error))
}

/// Reads the trust domains an entry federates with.
///
/// # Errors
/// The first that is none.
pub fn federated(field: &str, names: &[String]) -> Result<BTreeSet<TrustDomain>, FieldError> {
    names
        .iter()
        .enumerate()
        .map(|(number, name)| trust_domain(&format!("{field}[{number}]"), name))
        .collect()
}

/// Reads a set of selectors, which may be empty.
///
/// # Errors
/// The first that is none.
pub fn selectors(field: &str, selectors: &[types::Selector]) -> Result<Selectors, FieldError> {
    selectors
        .iter()
        .enumerate()
        .map(|(number, selector)| {
            Selector::new(&selector.r#type, &selector.value)
                .map_err(|error| FieldError::new(format!("{field}[{number}]"), error))
        })
        .collect()
}

/// A set of selectors as it travels.
#[must_use]
pub fn wire_selectors(selectors: &Selectors) -> Vec<types::Selector> {
    selectors.iter().map(Into::into).collect()
}

impl From<&SpiffeId> for types::Spiffeid {
    fn from(id: &SpiffeId) -> Self {
        Self {
            trust_domain: id.trust_domain().as_str().to_owned(),
            path: id.path().to_owned(),
        }
    }
}

impl From<&Selector> for types::Selector {
    fn from(selector: &Selector) -> Self {
        Self {
            r#type: selector.kind().to_owned(),
            value: selector.value().to_owned(),
        }
    }
}
