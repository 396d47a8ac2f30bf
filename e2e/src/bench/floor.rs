//! The limit for streams: a server that knows nothing and answers each stream with the same ready bytes.

use std::convert::Infallible;
use std::env;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};

use crate::Process;
use crate::wait;

/// Starts the server in a process of its own: this program, told `floor SOCKET LENGTH`.
///
/// # Errors
/// When it does not start.
pub async fn start(socket: &Path, length: usize, log: &Path) -> Result<Process> {
    let length = length.to_string();
    let args = ["floor".as_ref(), socket.as_os_str(), length.as_ref()];
    let process = Process::start("floor", &env::current_exe()?, args, log)?;
    wait::until("the floor server listens", || async {
        Ok(UnixStream::connect(socket).await.ok())
    })
    .await?;
    Ok(process)
}

/// Serves until it is ended.
///
/// # Errors
/// When the socket cannot be bound.
pub async fn serve(socket: &Path, length: usize) -> Result<()> {
    let mut frame = vec![0; 5 + length];
    frame[1..5].copy_from_slice(&u32::try_from(length)?.to_be_bytes());
    let frame = Bytes::from(frame);
    let listener = UnixListener::bind(socket)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let frame = frame.clone();
        let answer = service_fn(move |_: Request<Incoming>| {
            let response = Response::new(Constant(Some(frame.clone())));
            async { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(
            http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(2048)
                .serve_connection(TokioIo::new(stream), answer),
        );
    }
}

/// One frame, and then nothing for ever.
struct Constant(Option<Bytes>);

impl Body for Constant {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            None => Poll::Pending,
        }
    }
}
