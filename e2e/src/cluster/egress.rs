//! The API server's way to webhooks. It runs on the machine's loopback, from where pods cannot be reached; so it is told
//! (`--egress-selector-config-file`, as with konnectivity) to ask a proxy on a unix socket, and the proxy makes the
//! connection inside the node's network when one is there. Loopback addresses are reached as they are.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::netns::NetNs;
use crate::ports;

/// Longer than any request of the API server.
const MOST: usize = 4096;

/// The proxy; it ends when dropped.
#[derive(Debug)]
pub(super) struct Egress {
    config: PathBuf,
    node: Arc<Mutex<NetNs>>,
    _stop: oneshot::Sender<()>,
}

impl Egress {
    /// Starts it on a thread of its own: a shared cluster outlives the runtime of the test that started it.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let socket = folder.join("egress.sock");
        let config = folder.join("egress.json");
        let text = json!({
            "apiVersion": "apiserver.k8s.io/v1beta1",
            "kind": "EgressSelectorConfiguration",
            "egressSelections": [{"name": "cluster", "connection": {
                "proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": socket}},
            }}],
        });
        super::private(&config, &text.to_string())?;
        let listener = std::os::unix::net::UnixListener::bind(&socket)
            .with_context(|| format!("listen on {}", socket.display()))?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let node = Arc::new(Mutex::new(NetNs::machine()));
        let (stop, stopped) = oneshot::channel();
        let network = Arc::clone(&node);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = serve(listener, network) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            config,
            node,
            _stop: stop,
        })
    }

    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// From now on, what is not loopback is looked for in this network.
    pub(super) fn lead_into(&self, network: NetNs) {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = network;
    }
}

async fn serve(listener: std::os::unix::net::UnixListener, node: Arc<Mutex<NetNs>>) -> Result<()> {
    let listener = UnixListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let network = node.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::spawn(async move {
            let _ = pass(stream, network).await;
        });
    }
}

async fn pass(mut from: UnixStream, network: NetNs) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await?);
        if head.len() > MOST {
            bail!("no request ends here");
        }
    }
    let head = String::from_utf8_lossy(&head);
    let target = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
        .context("a CONNECT request")?;
    match connect(target, &network).await {
        Ok(mut to) => {
            from.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?;
            copy_bidirectional(&mut from, &mut to).await?;
        }
        Err(error) => {
            let answer = format!("HTTP/1.1 502 {error:#}\r\n\r\n").replace('\n', " ");
            from.write_all(answer.as_bytes()).await?;
        }
    }
    Ok(())
}

async fn connect(target: &str, network: &NetNs) -> Result<TcpStream> {
    let (host, port) = target.rsplit_once(':').context("host and port")?;
    let port: u16 = port.parse().context("a port")?;
    if host == "localhost" {
        return Ok(TcpStream::connect(ports::local(port)).await?);
    }
    let host: IpAddr = host
        .trim_matches(['[', ']'])
        .parse()
        .with_context(|| format!("{host} is no address"))?;
    let address = SocketAddr::from((host, port));
    if host.is_loopback() {
        return Ok(TcpStream::connect(address).await?);
    }
    network.connect(address).await
}
