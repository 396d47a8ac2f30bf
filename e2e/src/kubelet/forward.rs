//! Ports of this machine's loopback that lead into pods.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;

use super::node::Node;
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
    tokio::spawn(async move {
        while let Ok((mut outer, _)) = listener.accept().await {
            let network = network.clone();
            tokio::spawn(async move {
                if let Ok(mut inner) = network.connect(ports::local(port)).await {
                    let _ = copy_bidirectional(&mut outer, &mut inner).await;
                }
            });
        }
    });
    Ok(address)
}
