use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::ListenError;

/// The other end of a TLS connection.
#[derive(Clone, Debug)]
pub struct TlsPeer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificates it proved, leaf first; empty when it showed none. Verified as the configuration asks.
    pub chain: Arc<[CertificateDer<'static>]>,
}

/// TLS over TCP. Each connection takes the configuration that is newest when it is accepted.
#[derive(Debug)]
pub struct TlsListener {
    tcp: TcpListener,
    address: SocketAddr,
    config: watch::Receiver<Arc<ServerConfig>>,
    handshake: Duration,
}

impl TlsListener {
    /// Binds `address`; port 0 takes any.
    pub async fn bind(
        address: SocketAddr,
        config: watch::Receiver<Arc<ServerConfig>>,
    ) -> Result<Self, ListenError> {
        todo!()
    }

    /// The address, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
