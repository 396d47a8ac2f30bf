//! What goes wrong in a call: what the caller hears and what the log hears. The only place where a gRPC status is made.

use thiserror::Error;
use tonic::{Code, Status};

/// Why a call, or one item of a batch, fails. Every text but the source of [`RpcError::Internal`] reaches the caller.
#[derive(Debug, Error)]
pub(crate) enum RpcError {
    /// The caller sent something wrong.
    #[error("{0}")]
    InvalidArgument(String),
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// What was to be made is there.
    #[error("{0}")]
    AlreadyExists(String),
    /// Not for this caller.
    #[error("{0}")]
    PermissionDenied(String),
    /// Not for this agent, and why: agents act on the reason.
    #[error("{text}")]
    Denied {
        /// What the caller reads.
        text: String,
        /// What an agent acts on.
        reason: DenyReason,
    },
    /// Not in the state things are in.
    #[error("{0}")]
    FailedPrecondition(String),
    /// Over a limit.
    #[error("{0}")]
    ResourceExhausted(String),
    /// Not offered.
    #[error("{0}")]
    Unimplemented(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
    /// Our fault: the caller hears `heard`, the log hears `source` too.
    #[error("{heard}")]
    Internal {
        /// What the caller hears.
        heard: String,
        /// What the log hears.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// `spire.api.types.PermissionDeniedDetails.Reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DenyReason {
    /// Its SVID has expired.
    AgentExpired = 1,
    /// Never attested, or evicted.
    AgentNotAttested = 2,
    /// Its SVID was replaced by a newer one.
    AgentNotActive = 3,
    /// Banned.
    AgentBanned = 4,
    /// It has to attest again instead of renewing.
    AgentMustReattest = 5,
}

impl RpcError {
    /// Our fault: what the caller hears, and why.
    pub(crate) fn internal(
        heard: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Internal {
            heard: heard.into(),
            source: source.into(),
        }
    }

    /// The gRPC code.
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::InvalidArgument(_) => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::PermissionDenied(_) | Self::Denied { .. } => Code::PermissionDenied,
            Self::FailedPrecondition(_) => Code::FailedPrecondition,
            Self::ResourceExhausted(_) => Code::ResourceExhausted,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Internal { .. } => Code::Internal,
        }
    }
}

impl From<RpcError> for Status {
    fn from(error: RpcError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
