//! How others have the keeper's attention.

use std::sync::Arc;

use identity::Bundle;
use proto::spire::api::types::permission_denied_details::Reason;
use tokio::sync::mpsc;
use tonic::{Code, Status};

/// What others must do to have the keeper's attention.
#[derive(Debug, Clone)]
pub struct Orders(pub(super) mpsc::Sender<Order>);

/// What the keeper is told.
#[derive(Debug)]
pub(super) enum Order {
    /// The server answered with this.
    Denied(Reason, String),
    /// The bundle changed; the SVID may be under a tainted authority.
    Bundle(Arc<Bundle>),
}

impl Orders {
    /// Tells the keeper what the server said, if it is about the agent itself.
    pub fn report(&self, status: &Status) {
        if status.code() == Code::PermissionDenied {
            // Without a reason it is about the call, not about the agent.
            let Some(reason) = proto::convert::denied_reason(status) else {
                return;
            };
            // When the queue is full, the keeper looks at its SVID anyway.
            let _ = self
                .0
                .try_send(Order::Denied(reason, status.message().to_owned()));
        }
    }

    /// Orders that nobody obeys.
    #[cfg(test)]
    pub(crate) fn to_nobody() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Tells the keeper of a new bundle.
    pub fn bundle(&self, bundle: Arc<Bundle>) {
        let _ = self.0.try_send(Order::Bundle(bundle));
    }
}
