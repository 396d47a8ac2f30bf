//! The outcome of one item of a batch, and the details of a refusal.

use prost::{Message as _, Name as _};
use tonic::{Code, Status};

use crate::spire::api::types;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use envoy_types::util::pack_any;

pub use types::permission_denied_details::Reason;

/// An item's status.
#[must_use]
pub fn status(code: Code, message: impl Into<String>) -> types::Status {
    types::Status {
        code: code.into(),
        message: message.into(),
    }
}

/// The status of an item that went well. SPIRE says `OK`, and clients print it.
#[must_use]
pub fn ok_status() -> types::Status {
    status(Code::Ok, "OK")
}

/// PERMISSION_DENIED with the reason in its details, by which agents decide what to do next.
#[must_use]
pub fn denied(message: &str, reason: Reason) -> Status {
    let detail = pack_any(types::PermissionDeniedDetails {
        reason: reason.into(),
    });
    let details = RpcStatus {
        code: Code::PermissionDenied.into(),
        message: message.to_owned(),
        details: vec![detail],
    };
    Status::with_details(
        Code::PermissionDenied,
        message,
        details.encode_to_vec().into(),
    )
}

/// Why a server denied a call, where its answer says so.
#[must_use]
pub fn denied_reason(status: &Status) -> Option<Reason> {
    if status.code() != Code::PermissionDenied {
        return None;
    }
    let details = RpcStatus::decode(status.details()).ok()?.details;
    details.iter().find_map(reason)
}

fn reason(detail: &Any) -> Option<Reason> {
    if detail.type_url != types::PermissionDeniedDetails::type_url() {
        return None;
    }
    let details = types::PermissionDeniedDetails::decode(&*detail.value).ok()?;
    Reason::try_from(details.reason).ok()
}

impl From<&Status> for types::Status {
    fn from(outcome: &Status) -> Self {
        status(outcome.code(), outcome.message())
    }
}
