//! What goes wrong in a call: what the caller hears and what the log hears. The only place where a gRPC status is made.

pub(crate) use proto::convert::Reason as DenyReason;
use proto::spire::api::types;
use store::StoreError;
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

impl RpcError {
    /// The status of one item of a batch; what is our fault is logged here.
    pub(crate) fn item_status(self) -> types::Status {
        let status = Status::from(self);
        proto::convert::status(status.code(), status.message())
    }
}

/// What failed underneath is ours to know; whether it helps to come again is the caller's.
impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full | StoreError::ReadOnly(_) | StoreError::Closed => {
                tracing::error!(%error, "the datastore refuses");
                Self::Unavailable("the datastore is not available; try again later".into())
            }
            _ => Self::internal("the datastore failed", error),
        }
    }
}

impl From<RpcError> for Status {
    fn from(error: RpcError) -> Self {
        match &error {
            RpcError::Denied { text, reason } => proto::convert::denied(text, *reason),
            RpcError::Internal { heard, source } => {
                tracing::error!(error = %source, "{heard}");
                Self::internal(heard)
            }
            _ => Self::new(error.code(), error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_does_not_hear_what_the_log_hears() {
        let status = Status::from(RpcError::internal(
            "failed to sign",
            "key /secret/path gone",
        ));
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), "failed to sign");
        assert!(!format!("{status:?}").contains("secret"));
    }

    #[test]
    fn a_full_disk_is_not_the_callers_fault() {
        let status = Status::from(RpcError::from(StoreError::Full));
        assert_eq!(status.code(), Code::Unavailable);
        let damaged = StoreError::Damaged("table entries, page 7".into());
        let status = Status::from(RpcError::from(damaged));
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), "the datastore failed");
    }

    #[test]
    fn a_denied_agent_hears_the_reason() {
        let error = RpcError::Denied {
            text: "no".into(),
            reason: DenyReason::AgentBanned,
        };
        let status = Status::from(error);
        assert_eq!(
            proto::convert::denied_reason(&status),
            Some(DenyReason::AgentBanned)
        );
    }
}
