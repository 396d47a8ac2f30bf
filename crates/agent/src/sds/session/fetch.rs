//! `FetchSecrets`: one request, one response. Envoy does not call it; people and scripts do.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use proto::discovery::{DiscoveryRequest, DiscoveryResponse};

use super::{RequestError, check_type, control_plane, shortened};
use crate::{
    sds::{Absent, MAX_NAMES, Name, Secrets, Style, TYPE_URL, Version},
    workloads::WorkloadView,
};

/// Why a fetch gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// A request that no stream would take either.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No names.
    #[error("name the secrets: a SPIFFE ID, a trust domain's ID, or one of the configured names")]
    NoNames,
    /// None of the names is there yet, but one may come.
    #[error("{name:?} is not served: {why}")]
    NotYet {
        /// One of the names, shortened.
        name: String,
        /// Why.
        why: Absent,
    },
    /// None of the names is this workload's.
    #[error("{name:?} is not served: {why}")]
    Refused {
        /// One of the names, shortened.
        name: String,
        /// Why.
        why: Absent,
    },
}

/// Those of the secrets asked for that the workload may have.
///
/// # Errors
/// When there is none.
pub fn fetch(
    secrets: &Secrets,
    view: &WorkloadView,
    request: &DiscoveryRequest,
    now: SystemTime,
) -> Result<DiscoveryResponse, FetchError> {
    check_type(&request.type_url)?;
    let names: BTreeSet<&str> = request.resource_names.iter().map(String::as_str).collect();
    if names.is_empty() {
        return Err(FetchError::NoNames);
    }
    if names.len() > MAX_NAMES {
        return Err(RequestError::TooManyNames.into());
    }
    let style = Style::chosen(None, request.node.as_ref(), secrets.options());
    let hint = request.node.as_ref().and_then(Name::hint_of);
    let mut found = Vec::new();
    let mut absent: Option<(&str, Absent)> = None;
    for text in names {
        let name = Name::read_for(hint, text, secrets.options());
        match secrets.lookup(view, (&Arc::from(text), &name), style, now) {
            Ok(resource) => found.push((text, resource)),
            // Of several reasons, one that may pass tells most.
            Err(why) if absent.as_ref().is_none_or(|(_, one)| one.is_certain()) => {
                absent = Some((text, why));
            }
            Err(_) => {}
        }
    }
    match absent {
        Some((name, why)) if found.is_empty() => Err(refusal(shortened(name), why)),
        _ => {
            let versions = found.iter().map(|(name, one)| (*name, one.version()));
            Ok(DiscoveryResponse {
                version_info: Version::of_set(versions).to_string(),
                resources: found.iter().map(|(_, one)| one.any()).collect(),
                type_url: TYPE_URL.to_owned(),
                control_plane: Some(control_plane()),
                ..DiscoveryResponse::default()
            })
        }
    }
}

const fn refusal(name: String, why: Absent) -> FetchError {
    if why.is_certain() {
        FetchError::Refused { name, why }
    } else {
        FetchError::NotYet { name, why }
    }
}
