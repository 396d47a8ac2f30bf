//! A client that asks as an API server does: each review on an idle connection, or on a new one when there is none.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;

use crate::tls;

type Connection = SendRequest<Full<Bytes>>;

/// Reviews under way at once: an API server takes so many requests that change something. The others wait, and that counts.
const UNDER_WAY: usize = 200;

/// The client, and the one review it asks about.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    pub(super) review: Bytes,
    idle: Mutex<Vec<Connection>>,
    under_way: Semaphore,
}

impl Client {
    pub(super) fn new(address: SocketAddr, review: Bytes) -> Arc<Self> {
        Arc::new(Self {
            address,
            review,
            idle: Mutex::default(),
            under_way: Semaphore::new(UNDER_WAY),
        })
    }

    /// Asks once; gives the answer.
    pub(super) async fn ask(&self) -> Result<Bytes> {
        let _under_way = self.under_way.acquire().await?;
        let mut connection = match self.take() {
            Some(connection) => connection,
            None => self.dial().await?,
        };
        let request = Request::post("/mutate-pods?timeout=10s")
            .header(HOST, "injector.spire-system.svc:443")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(self.review.clone()))?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        ensure!(
            status == 200,
            "{status}: {}",
            String::from_utf8_lossy(&answer)
        );
        connection.ready().await?;
        self.lock().push(connection);
        Ok(answer)
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.lock();
        std::iter::from_fn(|| idle.pop()).find(|one| !one.is_closed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial(&self) -> Result<Connection> {
        let stream = tls::connect(self.address, None).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
