//! The workload of the tests, for pods: the app that answers with its caller, a client that asks, and one that waits.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::net::TcpListener;

/// `shim app PORT`
pub(crate) fn serve(port: &str) -> Result<()> {
    let port: u16 = port.parse().context("a port")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let address = SocketAddr::from(([0, 0, 0, 0], port));
        let listener = TcpListener::bind(address).await?;
        e2e::app::serve(listener).await;
        Ok(())
    })
}
