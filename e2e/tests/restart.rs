//! E4: the agent dies, and a new one goes on where it was.

use std::env;
use std::path::Path;

use anyhow::{Result, ensure};
use bytes::Bytes;
use e2e::bench::h2::Connection;
use e2e::{Domain, Settings, wait};

/// An entry alone takes less in the agent's copy, an entry with its certificate and key more.
const SVID_SIZE: u64 = 600;

const METHOD: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

async fn first_message(socket: &Path) -> Result<Bytes> {
    let mut stream = Connection::open(socket).await?.stream(METHOD).await?;
    stream.message().await
}

async fn served(socket: &Path) -> Result<Bytes> {
    wait::until("the agent serves", || async {
        first_message(socket).await.map(Some)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_after_kill_9_the_same_svids_are_served_with_the_server_down() -> Result<()> {
    let mut domain = Domain::start(Settings::default()).await?;
    let copy = domain.path("agent/svid-cache.sealed");
    let size = || Ok(std::fs::metadata(&copy).map(|copy| copy.len()).ok());
    let empty = wait::until("a first copy", || async { size() }).await?;
    domain.register("/web", &env::current_exe()?).await?;
    let socket = domain.agent_socket();
    let before = served(&socket).await?;
    wait::until("the copy holds the SVID", || async {
        Ok(size()?.filter(|size| *size >= empty + SVID_SIZE))
    })
    .await?;

    domain.agent()?.kill().await?;
    domain.server()?.kill().await?;
    domain.spawn_agent(&[])?;
    let after = served(&socket).await?;
    ensure!(
        after == before,
        "another SVID, where nothing was to be sent again"
    );

    // And a damaged copy is no reason not to start.
    domain.agent()?.kill().await?;
    std::fs::write(&copy, "damaged")?;
    domain.spawn_agent(&[])?;
    domain.start_server().await?;
    let renewed = served(&socket).await?;
    ensure!(
        renewed != before,
        "the copy was damaged, so this SVID must be new"
    );
    let log = domain.agent()?.log()?;
    ensure!(
        log.contains("the copy of an earlier run is not used"),
        "{log}"
    );
    Ok(())
}
