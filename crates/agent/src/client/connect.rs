//! TCP and TLS to the server, below the HTTP/2 connection.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use identity::{SpiffeId, X509Svid};
use runtime::Clock;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::Uri;
use tower::Service;

use super::tls::{self, ServerTrust};
use crate::config::ServerAddress;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("connecting to {address}: {source}")]
    Tcp {
        /// The server.
        address: ServerAddress,
        /// What the system said.
        source: io::Error,
    },
    /// No TLS handshake.
    #[error("the TLS handshake with {address} failed: {source}")]
    Tls {
        /// The server.
        address: ServerAddress,
        /// What failed.
        source: io::Error,
    },
    /// The agent's own SVID cannot be used.
    #[error("the agent's own SVID cannot be used: {0}")]
    OwnSvid(#[from] rustls::Error),
}

/// Makes connections for a tonic channel.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) address: ServerAddress,
    pub(super) server_id: SpiffeId,
    pub(super) trust: ServerTrust,
    pub(super) svid: Option<Arc<X509Svid>>,
    pub(super) clock: Clock,
}

impl Connector {
    async fn connect(self) -> Result<TokioIo<TlsStream<TcpStream>>, ConnectError> {
        let address = self.address.clone();
        let config =
            tls::client_config(self.server_id, self.trust, self.svid.as_deref(), self.clock)?;
        let tcp = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| ConnectError::Tcp {
                address: address.clone(),
                source,
            })?;
        // Servers are known by their SPIFFE ID, so the name is only sent where it can be one.
        let name = ServerName::try_from(address.host.clone())
            .unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()));
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .map(TokioIo::new)
            .map_err(|source| ConnectError::Tls { address, source })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}
