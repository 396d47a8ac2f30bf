//! A gRPC client with as little in it as can be, so that what is measured is the server.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context as Waker, Poll};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;

/// A connection on which streams can be opened.
#[derive(Clone, Debug)]
pub struct Connection(SendRequest<Words>);

/// An open stream; closed when dropped.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
    read: BytesMut,
}

impl Connection {
    /// Connects to a unix socket.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Opens a stream with an empty message.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn stream(&self, method: &str) -> Result<Stream> {
        self.call(method, Words::new(&[], false)?).await
    }

    /// Opens a stream with this message, on which more may be said.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn talk(&self, method: &str, message: &[u8]) -> Result<Stream> {
        self.call(method, Words::new(message, true)?).await
    }

    async fn call(&self, method: &str, message: Words) -> Result<Stream> {
        let request = Request::post(format!("http://localhost{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("workload.spiffe.io", "true")
            .body(message)?;
        let mut sender = self.0.clone();
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        if let Some(status) = response.headers().get("grpc-status") {
            bail!(
                "{method}: grpc-status {status:?} {:?}",
                response.headers().get("grpc-message")
            );
        }
        Ok(Stream {
            body: response.into_body(),
            read: BytesMut::new(),
        })
    }
}

/// What a client says on a stream: one message, and then that this was all, or nothing for as long as the stream is open.
#[derive(Debug)]
pub struct Words {
    message: Option<Bytes>,
    open: bool,
}

impl Words {
    fn new(message: &[u8], open: bool) -> Result<Self> {
        let mut frame = BytesMut::with_capacity(5 + message.len());
        // Not compressed.
        frame.put_u8(0);
        frame.put_u32(message.len().try_into()?);
        frame.put_slice(message);
        Ok(Self {
            message: Some(frame.freeze()),
            open,
        })
    }
}

impl Body for Words {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Waker<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.message.take() {
            Some(message) => Poll::Ready(Some(Ok(Frame::data(message)))),
            None if self.open => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && !self.open
    }
}

impl Stream {
    /// The next message.
    ///
    /// # Errors
    /// When the stream ends before.
    pub async fn message(&mut self) -> Result<Bytes> {
        loop {
            if let Some(prefix) = self.read.first_chunk::<5>() {
                let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
                let length = usize::try_from(length)?;
                if self.read.len() >= 5 + length {
                    self.read.advance(5);
                    return Ok(self.read.split_to(length).freeze());
                }
            }
            let frame = self.body.frame().await.context("the stream ended")??;
            ensure!(frame.is_data(), "the stream ended: {frame:?}");
            if let Ok(data) = frame.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }
}
