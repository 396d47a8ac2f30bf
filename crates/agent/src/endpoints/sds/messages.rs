//! The messages of a request's body, one by one.
//!
//! Envoy's first request on a stream has 61 kB and the rest a few dozen bytes. So the buffer goes with each message,
//! rather than stay as large as the largest: a thousand idle streams are paid in that.

use std::{
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use http::Request;
use http_body::Body as _;
use prost::Message;
use tonic::{Status, body::Body};

/// The largest request: many times what the largest Envoy says of itself.
const MAX_LEN: usize = 1 << 20;

/// One byte for compression (none), four for the length (big-endian).
const PREFIX_LEN: usize = 5;

pub(super) struct Messages<M> {
    body: Body,
    buffer: BytesMut,
    message: PhantomData<fn() -> M>,
}

impl<M> Messages<M> {
    /// Those of a request.
    ///
    /// # Errors
    /// When they are compressed, which nobody does on a unix socket.
    pub(super) fn of(request: Request<Body>) -> Result<Self, Status> {
        let encoding = request.headers().get("grpc-encoding");
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(Status::unimplemented(
                "the agent reads no compressed messages",
            ));
        }
        Ok(Self {
            body: request.into_body(),
            buffer: BytesMut::new(),
            message: PhantomData,
        })
    }
}

impl<M: Message + Default> Messages<M> {
    /// The next message; `None` after the last. Nothing is lost when this is dropped before it is done.
    pub(super) async fn next(&mut self) -> Result<Option<M>, Status> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<M>, Status>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None if self.buffer.is_empty() => return Poll::Ready(Ok(None)),
                None => {
                    let cut = "the request ends in the middle of a message";
                    return Poll::Ready(Err(Status::invalid_argument(cut)));
                }
                Some(Err(status)) => return Poll::Ready(Err(status)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// A message out of the buffer, when one is there as a whole.
    fn take(&mut self) -> Result<Option<M>, Status> {
        let Some(mut prefix) = self.buffer.get(..PREFIX_LEN) else {
            return Ok(None);
        };
        if prefix.get_u8() != 0 {
            return Err(Status::unimplemented(
                "the agent reads no compressed messages",
            ));
        }
        let length = usize::try_from(prefix.get_u32()).unwrap_or(usize::MAX);
        if length > MAX_LEN {
            let text = format!("a request of {length} bytes; at most {MAX_LEN} are read");
            return Err(Status::out_of_range(text));
        }
        let end = PREFIX_LEN + length;
        if self.buffer.len() < end {
            self.buffer.reserve(end - self.buffer.len());
            return Ok(None);
        }
        let message = M::decode(&self.buffer[PREFIX_LEN..end]);
        self.buffer.advance(end);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        let broken =
            |error| Status::invalid_argument(format!("the request cannot be read: {error}"));
        message.map(Some).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::{BufMut as _, Bytes};
    use futures_util::{FutureExt as _, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use proto::discovery::DiscoveryRequest;
    use tonic::Code;

    use super::*;

    fn named(name: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            resource_names: vec![name.to_owned()],
            ..DiscoveryRequest::default()
        }
    }

    fn framed(message: &DiscoveryRequest) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.put_u32(message.encoded_len().try_into().unwrap());
        message.encode(&mut bytes).unwrap();
        bytes
    }

    fn messages(parts: Vec<Vec<u8>>) -> Messages<DiscoveryRequest> {
        let frames = parts
            .into_iter()
            .map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from(part))));
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        Messages::of(Request::new(body)).unwrap()
    }

    fn read(parts: Vec<Vec<u8>>) -> Result<Vec<DiscoveryRequest>, Status> {
        let mut messages = messages(parts);
        let mut all = Vec::new();
        while let Some(message) = messages.next().now_or_never().unwrap()? {
            assert!(!messages.buffer.is_empty() || messages.buffer.capacity() == 0);
            all.push(message);
        }
        Ok(all)
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut(names in proptest::collection::vec("[a-z]{0,40}", 0..6), size in 1usize..50) {
            let wanted: Vec<_> = names.iter().map(|name| named(name)).collect();
            let bytes: Vec<u8> = wanted.iter().flat_map(framed).collect();
            let parts = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(read(parts).unwrap(), wanted);
        }

        #[test]
        fn nothing_read_panics(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..6)) {
            let _ = read(parts);
        }
    }

    #[test]
    fn bad_input_is_a_clear_error() {
        let whole = framed(&named("spiffe://example.org/web"));
        for (bytes, code, text) in [
            (
                whole[..10].to_vec(),
                Code::InvalidArgument,
                "in the middle of a message",
            ),
            (
                whole[..3].to_vec(),
                Code::InvalidArgument,
                "in the middle of a message",
            ),
            (vec![1, 0, 0, 0, 0], Code::Unimplemented, "compressed"),
            (
                vec![0, 0xff, 0xff, 0xff, 0xff],
                Code::OutOfRange,
                "at most 1048576",
            ),
            (
                vec![0, 0, 0, 0, 1, 0xff],
                Code::InvalidArgument,
                "cannot be read",
            ),
        ] {
            let status = read(vec![bytes]).unwrap_err();
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(text), "{status}");
        }
        let mut request = Request::new(Body::empty());
        request
            .headers_mut()
            .insert("grpc-encoding", "gzip".parse().unwrap());
        let refused = Messages::<DiscoveryRequest>::of(request).err().unwrap();
        assert_eq!(refused.code(), Code::Unimplemented);
    }
}
