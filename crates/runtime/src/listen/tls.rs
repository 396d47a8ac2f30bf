use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Listen, ListenError};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The other end of a TLS connection.
#[derive(Clone, Debug)]
pub struct TlsPeer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificates it proved, leaf first; empty when it showed none. Verified as the configuration asks.
    pub chain: Arc<[CertificateDer<'static>]>,
}

/// TLS over TCP. Each connection takes the configuration that is newest when it is accepted, and has ten seconds for its handshake.
#[derive(Debug)]
pub struct TlsListener {
    tcp: TcpListener,
    address: SocketAddr,
    config: watch::Receiver<Arc<ServerConfig>>,
}

impl TlsListener {
    /// Binds `address`; port 0 takes any.
    pub async fn bind(
        address: SocketAddr,
        config: watch::Receiver<Arc<ServerConfig>>,
    ) -> Result<Self, ListenError> {
        let tcp = bind_tcp(address).await?;
        let address = tcp.local_addr().unwrap_or(address);
        Ok(Self {
            tcp,
            address,
            config,
        })
    }

    /// The address, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Binds a TCP address, with errors that say what to do.
pub async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| ListenError {
            address: address.to_string(),
            reason: match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "the port is in use by another process; stop that one or use another port"
                        .to_owned()
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this machine does not have that address; 0.0.0.0 listens on all it has"
                        .to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    format!("{error}; ports below 1024 need CAP_NET_BIND_SERVICE")
                }
                _ => error.to_string(),
            },
        })
}

impl Listen for TlsListener {
    type Stream = TlsStream<TcpStream>;
    type Peer = TlsPeer;
    type Key = IpAddr;
    type Handshake = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, TlsPeer)>> + Send>>;

    async fn accept(&mut self) -> io::Result<(IpAddr, Self::Handshake)> {
        let (tcp, address) = self.tcp.accept().await?;
        let acceptor = TlsAcceptor::from(self.config.borrow_and_update().clone());
        let handshake = async move {
            tcp.set_nodelay(true)?;
            let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await??;
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let peer = TlsPeer {
                address,
                chain: chain.into(),
            };
            Ok((stream, peer))
        };
        Ok((address.ip(), Box::pin(handshake)))
    }
}

impl fmt::Display for TlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
