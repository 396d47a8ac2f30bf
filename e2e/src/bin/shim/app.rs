//! The workloads of the tests, for pods: the app that answers with its caller, and a client that asks.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::net::{TcpListener, lookup_host};

/// `shim app PORT`
pub(crate) fn serve(port: &str) -> Result<()> {
    let port: u16 = port.parse().context("a port")?;
    runtime()?.block_on(async {
        let address = SocketAddr::from(([0, 0, 0, 0], port));
        let listener = TcpListener::bind(address).await?;
        e2e::app::serve(listener).await;
        Ok(())
    })
}

/// `shim get HOST:PORT PATH`: prints the body of a good answer.
#[expect(clippy::print_stdout, reason = "what it is for")]
pub(crate) fn get(host: &str, path: &str) -> Result<()> {
    runtime()?.block_on(async {
        let address = lookup_host(host).await?.next().context("an address")?;
        let answer = e2e::load::get(address, path).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        println!("{}", answer.body.trim_end());
        Ok(())
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}
