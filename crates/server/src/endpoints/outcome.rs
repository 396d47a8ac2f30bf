//! How a call ended: counted and logged once, whether its status came with the headers or behind the last message.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use runtime::Call;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Span;

/// A call under way.
pub(super) struct Outcome {
    call: Option<Call>,
    audit: bool,
    span: Span,
}

impl Outcome {
    /// Counts with `call`, logs in the current span; with `audit` also what went well.
    pub(super) fn new(call: Option<Call>, audit: bool, span: Span) -> Self {
        Self { call, audit, span }
    }

    /// Follows a response to its end.
    pub(super) fn follow(mut self, response: Response<Body>) -> Response<Body> {
        if self.ends_with(response.headers()) {
            return response;
        }
        response.map(|body| {
            Body::new(Followed {
                body,
                outcome: self,
            })
        })
    }

    /// Whether the headers, or trailers, hold the status; if so, it is noted.
    fn ends_with(&mut self, headers: &HeaderMap) -> bool {
        let Some(status) = Status::from_header_map(headers) else {
            return false;
        };
        let _entered = self.span.enter();
        let code = status.code();
        if let Some(call) = self.call.take() {
            call.finish(code);
        }
        match code {
            Code::Ok if self.audit => {
                tracing::info!(r#type = "audit", status = "OK", "API accessed")
            }
            Code::Ok => tracing::debug!(status = "OK", "call served"),
            Code::PermissionDenied => {
                tracing::warn!(status = ?code, reason = status.message(), "call denied")
            }
            _ => tracing::info!(status = ?code, reason = status.message(), "call failed"),
        }
        true
    }
}

/// A body that notes the status in its trailers. Dropped before, the call counts as cancelled.
struct Followed {
    body: Body,
    outcome: Outcome,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.outcome.ends_with(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
