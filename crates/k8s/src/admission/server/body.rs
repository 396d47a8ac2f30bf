//! Reading a body, no further than it may go.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Why a body is not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge,
    Lost,
}

/// A body, and its share of what all bodies may take.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Reads at most `most` bytes. Waits while other bodies take all of `budget`.
pub(super) async fn read(
    mut body: Incoming,
    most: usize,
    budget: &Arc<Semaphore>,
) -> Result<Body, BodyError> {
    let mut share: Option<OwnedSemaphorePermit> = None;
    let mut first = Bytes::new();
    let mut whole: Vec<u8> = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Lost)?.into_data() else {
            continue;
        };
        length += data.len();
        if length > most {
            return Err(BodyError::TooLarge);
        }
        let needed = u32::try_from(data.len()).map_err(|_| BodyError::TooLarge)?;
        let more = Arc::clone(budget).acquire_many_owned(needed).await;
        let more = more.map_err(|_| BodyError::Lost)?;
        match &mut share {
            Some(share) => share.merge(more),
            None => share = Some(more),
        }
        // Most reviews come in one piece, which is then not copied.
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    let bytes = if whole.is_empty() {
        first
    } else {
        whole.into()
    };
    Ok(Body {
        bytes,
        _share: share,
    })
}
