//! Frames by the view they show, so that streams with the same view share one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tonic::Status;

use super::compose;
use super::frames::encode;
use crate::workloads::WorkloadView;

/// What of a view is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Content {
    /// `X509SVIDResponse`.
    X509Svids,
    /// `X509BundlesResponse`.
    X509Bundles,
    /// `JWTBundlesResponse`.
    JwtBundles,
}

/// Frames in use. One that shows private keys is shared only by streams of the very same view.
#[derive(Default)]
pub(super) struct SharedFrames(Mutex<HashMap<(usize, Content), Shared>>);

struct Shared {
    /// As long as this is held, no other view has its address.
    view: Weak<WorkloadView>,
    frame: Bytes,
}

impl SharedFrames {
    /// The frame that shows `content` of `view`.
    pub(super) fn frame(
        &self,
        content: Content,
        view: &Arc<WorkloadView>,
    ) -> Result<Bytes, Status> {
        let key = (Arc::as_ptr(view).addr(), content);
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shared.get(&key) {
            return Ok(known.frame.clone());
        }
        // Views change seldom, and each change comes by here: no need to look for old ones at other times.
        shared.retain(|_, known| known.view.strong_count() > 0);
        let frame = match content {
            Content::X509Svids => encode(&compose::x509_svids(view)),
            Content::X509Bundles => encode(&compose::x509_bundles(view)),
            Content::JwtBundles => encode(&compose::jwt_bundles(view)),
        }?;
        let known = Shared {
            view: Arc::downgrade(view),
            frame: frame.clone(),
        };
        shared.insert(key, known);
        Ok(frame)
    }
}
