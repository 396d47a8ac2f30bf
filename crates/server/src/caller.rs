//! Who is calling: made for each request from the peer of its connection.

use identity::{RegistrationEntry, SpiffeId};
use tonic::Request;

use crate::rpc::RpcError;

/// Who is calling, as far as the method asked for cares: the role in which `policy` admitted the request.
///
/// Services find it in the request's extensions with [`Caller::of`] and [`Caller::agent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A process on this machine, over the private unix socket.
    Local {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its process, where the kernel told.
        pid: Option<i32>,
    },
    /// An identity of `admin_ids`, or of an entry with `admin`.
    Admin(SpiffeId),
    /// A nested server: an identity of an entry with `downstream`.
    Downstream {
        /// Who it is.
        id: SpiffeId,
        /// The entry that makes it one.
        entry: Box<RegistrationEntry>,
    },
    /// An attested agent whose SVID is the current one.
    Agent {
        /// Who it is.
        id: SpiffeId,
        /// The serial number of its SVID, decimal.
        serial: String,
    },
    /// Nobody in particular: the method is open to all.
    Anyone,
}

impl Caller {
    /// The caller of a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<&Self, RpcError> {
        request
            .extensions()
            .get()
            .ok_or_else(|| RpcError::internal("the request has no caller", "no policy layer"))
    }

    /// The ID of the agent that calls, for methods which only agents may call.
    pub(crate) fn agent<T>(request: &Request<T>) -> Result<&SpiffeId, RpcError> {
        match Self::of(request)? {
            Self::Agent { id, .. } => Ok(id),
            _ => Err(RpcError::PermissionDenied(
                "only an agent may call this method".into(),
            )),
        }
    }
}
