//! What a stream answers: state machines without a socket.
//!
//! A session is asked for one response at a time, when there is room to send it, and makes it from the newest view: a
//! slow reader never has more than one version of a secret waiting. Each response carries one secret, so that one that
//! Envoy refuses does not keep others away.

mod asker;
mod delta;
mod fetch;
mod nonces;
mod sotw;
mod subscription;
mod subscriptions;

use std::sync::Arc;

use proto::discovery::{ControlPlane, Node};

use super::{Absent, Certified, MAX_NAMES, TYPE_URL, Version};

pub use delta::DeltaSecrets;
pub use fetch::{FetchError, fetch};
pub use sotw::StreamSecrets;
pub use subscriptions::Subscriptions;

/// Why a request ends its stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Another type of resource.
    #[error("the agent serves {TYPE_URL} alone, not {0:?}")]
    Type(String),
    /// Too many names.
    #[error("one stream may ask for at most {MAX_NAMES} secrets; open another for more")]
    TooManyNames,
}

/// What the log should know of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A name is not served. Told once, and again when the reason changes.
    Withheld {
        /// The name.
        name: Arc<str>,
        /// Why.
        why: Absent,
    },
    /// The client rejected a secret and goes on with the last good one, if any.
    Rejected {
        /// The secret's name.
        name: Arc<str>,
        /// Its version.
        version: Option<Version>,
        /// The certificate in it.
        certificate: Option<Arc<Certified>>,
        /// The client's words.
        message: String,
    },
    /// The client has neither accepted nor rejected a secret for 10 s.
    Unanswered {
        /// The secret's name.
        name: Arc<str>,
        /// The certificate in it.
        certificate: Option<Arc<Certified>>,
    },
    /// Half of what was left of a certificate has gone by since the client was offered a newer one, and it still uses
    /// the old one.
    Overdue {
        /// The secret's name.
        name: Arc<str>,
        /// The old one.
        certificate: Arc<Certified>,
    },
    /// The certificate that the client uses has expired.
    Expired {
        /// The secret's name.
        name: Arc<str>,
        /// The certificate.
        certificate: Arc<Certified>,
    },
    /// The client asks for resources of a type that nobody serves here, and gets no answer to that.
    ForeignType(String),
    /// The client asked for everything there is, and gets nothing for that.
    Wildcard,
}

/// Checks the type a request asks for; a stream of secrets alone may leave it out.
fn check_type(type_url: &str) -> Result<(), RequestError> {
    if type_url.is_empty() || type_url == TYPE_URL {
        return Ok(());
    }
    Err(RequestError::Type(shortened(type_url)))
}

/// A foreign text, cut to a length that a log can bear.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 256;
    text.chars().take(LONGEST).collect()
}

/// Who answers, as Envoy shows it in its statistics.
fn control_plane() -> ControlPlane {
    ControlPlane {
        identifier: concat!("signet-agent/", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// The operator's names for an Envoy.
fn describe(node: &Node) -> String {
    shortened(&format!("{}/{}", node.cluster, node.id))
}

#[cfg(test)]
mod choices;
#[cfg(test)]
mod later;
#[cfg(test)]
mod model;
#[cfg(test)]
mod replies;
#[cfg(test)]
mod tests;
