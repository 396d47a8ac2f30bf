//! gRPC responses made of ready frames. A message that goes to many streams is encoded once, and a stream holds no
//! encode buffer of its own: that is what a thousand idle streams are paid in.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes};
use futures_util::{Stream, StreamExt as _, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec as _, Streaming};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

/// The largest request the Workload API reads: a token, and an audience.
const MAX_REQUEST_LEN: usize = 256 << 10;

/// One byte for compression (none), four for the length (big-endian).
const PREFIX_LEN: usize = 5;

type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// Encodes `message` as one frame, wiped when the last copy goes.
pub(super) fn encode(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let prefix = u32::try_from(length)
        .map_err(|_| Status::resource_exhausted("the answer is larger than 4 GiB"))?;
    // Exactly as large as needed: growing would leave a copy behind.
    let mut frame = Zeroizing::new(Vec::with_capacity(PREFIX_LEN + length));
    frame.put_u8(0);
    frame.put_u32(prefix);
    message.encode_raw(&mut *frame);
    Ok(Bytes::from_owner(frame))
}

/// Reads the one message of a unary or server-streaming request.
pub(super) async fn decode<M>(request: Request<Body>) -> Result<M, Status>
where
    M: Message + Default + 'static,
{
    let decoder = ProstCodec::<M, M>::default().decoder();
    let mut messages =
        Streaming::new_request(decoder, request.into_body(), None, Some(MAX_REQUEST_LEN));
    let missing = || Status::invalid_argument("the request holds no message");
    messages.message().await?.ok_or_else(missing)
}

/// A response of one frame.
pub(super) fn unary(frame: Bytes) -> Response<Body> {
    streaming(stream::iter([Ok(frame)]))
}

/// A response whose frames come when they come.
pub(super) fn streaming(
    frames: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(Body::new(FrameBody(Some(Box::pin(frames)))));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

/// The frames, then the status as trailers.
struct FrameBody(Option<Frames>);

impl http_body::Body for FrameBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frames) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let status = match ready!(frames.poll_next_unpin(context)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.0 = None;
        let mut trailers = HeaderMap::with_capacity(2);
        let added = status.add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
