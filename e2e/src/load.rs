//! A plain HTTP client: single requests, and steady load that counts what failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

const REQUEST_BOUND: Duration = Duration::from_secs(10);

/// Pause between two requests of one worker: steady load, not a stress test.
const PAUSE: Duration = Duration::from_millis(5);

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// One GET on a connection of its own.
///
/// # Errors
/// When nobody answers in time.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let mut sender = connect(address).await?;
    send(&mut sender, path, &[]).await
}

/// Load in the background; see [`Load::stop`].
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    workers: JoinSet<()>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
    first_failure: std::sync::Mutex<Option<String>>,
}

/// What a [`Load`] saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests sent.
    pub sent: u64,
    /// Requests without a right answer.
    pub failed: u64,
    /// The first failure, in words.
    pub first_failure: Option<String>,
}

impl Load {
    /// Starts `workers` that ask `address` again and again, half of them on a new connection each time; an answer is right
    /// when it has status 200 and holds `expected`.
    #[must_use]
    pub fn start(address: SocketAddr, expected: &str, workers: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let mut set = JoinSet::new();
        for worker in 0..workers {
            let job = Job {
                address,
                expected: expected.to_owned(),
                keep: worker % 2 == 0,
                counts: Arc::clone(&counts),
            };
            set.spawn(job.run(stopped.clone()));
        }
        Self {
            stop,
            workers: set,
            counts,
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let first = self
            .counts
            .first_failure
            .lock()
            .map_or(None, |failure| failure.clone());
        Report {
            sent: self.counts.sent.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
            first_failure: first,
        }
    }

    /// Lets the requests on the way finish and tells the counts.
    pub async fn stop(mut self) -> Report {
        self.stop.send_replace(true);
        while self.workers.join_next().await.is_some() {}
        self.report()
    }
}

struct Job {
    address: SocketAddr,
    expected: String,
    keep: bool,
    counts: Arc<Counts>,
}

impl Job {
    async fn run(self, stopped: watch::Receiver<bool>) {
        let mut connection = None;
        while !*stopped.borrow() {
            let outcome = self.once(&mut connection).await;
            self.counts.sent.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = outcome {
                connection = None;
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                if let Ok(mut first) = self.counts.first_failure.lock() {
                    first.get_or_insert_with(|| format!("{error:#}"));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn once(&self, connection: &mut Option<SendRequest<Empty<Bytes>>>) -> Result<()> {
        let mut sender = match connection.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => connect(self.address).await?,
        };
        let answer = send(&mut sender, "/", &[]).await?;
        if answer.status != 200 || !answer.body.contains(&self.expected) {
            bail!("status {}: {}", answer.status, answer.body.trim());
        }
        if self.keep {
            *connection = Some(sender);
        }
        Ok(())
    }
}

/// One GET on a stream that is connected already.
pub(crate) async fn get_on<S>(stream: S, path: &str) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    get_with(stream, path, &[]).await
}

/// The same with more headers.
///
/// # Errors
/// When nobody answers in time.
pub async fn get_with<S>(stream: S, path: &str, headers: &[(&str, &str)]) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    send(&mut handshake(stream).await?, path, headers).await
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Empty<Bytes>>> {
    let stream = timeout(REQUEST_BOUND, TcpStream::connect(address)).await?;
    handshake(stream.with_context(|| format!("connect to {address}"))?).await
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Empty<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn send(
    sender: &mut SendRequest<Empty<Bytes>>,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer> {
    let mut request = Request::get(path).header("host", "signet");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::new())?;
    let exchange = async {
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer {
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    };
    timeout(REQUEST_BOUND, exchange)
        .await
        .context("no answer in time")?
}
