use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// The bytes of HTTP/2's preface (RFC 9113, section 3.4).
const PREFACE_LENGTH: usize = 24;

/// A stream that tells when it has given as many bytes as a client's first words have.
pub(super) struct Greeted<S> {
    stream: S,
    waiting: Option<(usize, oneshot::Sender<()>)>,
}

impl<S> Greeted<S> {
    /// The stream, and what is ready once the preface has come, or the stream has ended.
    pub(super) fn new(stream: S) -> (Self, oneshot::Receiver<()>) {
        let (came, greeting) = oneshot::channel();
        let waiting = Some((PREFACE_LENGTH, came));
        (Self { stream, waiting }, greeting)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some((missing, came)) = self.waiting.take() {
            let missing = missing.saturating_sub(buffer.filled().len() - before);
            if missing == 0 {
                let _ = came.send(());
            } else {
                self.waiting = Some((missing, came));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
