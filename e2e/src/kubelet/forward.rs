//! Ports of this machine's loopback that lead into pods.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;

use super::node::Node;
use crate::netns::NetNs;
use crate::ports;

pub(super) async fn start(
    node: &Node,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<SocketAddr> {
    let network = node.running(namespace, pod)?.network;
    let listener = TcpListener::bind(ports::local(0)).await?;
    let address = listener.local_addr()?;
    // Ends with the runtime; after the pod's end its connections are refused.
    tokio::spawn(pass(listener, network, port));
    Ok(address)
}

/// Passes connections on to `port` of a network's loopback.
pub(super) async fn pass(listener: TcpListener, network: NetNs, port: u16) {
    while let Ok((mut outer, _)) = listener.accept().await {
        let network = network.clone();
        tokio::spawn(async move {
            if let Ok(mut inner) = network.connect(ports::local(port)).await {
                let _ = copy_bidirectional(&mut outer, &mut inner).await;
            }
        });
    }
}
