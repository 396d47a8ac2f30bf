//! Watches that some pods have an identity all the time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Entries;

const EVERY: Duration = Duration::from_millis(200);

/// Looks again and again until it is asked what it saw.
#[derive(Debug)]
pub struct Witness {
    looking: JoinHandle<Result<usize>>,
    stop: watch::Sender<bool>,
}

impl Witness {
    /// Begins to look at these pods, by their UIDs: each has an entry from now on.
    #[must_use]
    pub fn start(entries: Entries, pods: Vec<String>) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self {
            looking: tokio::spawn(look(entries, Arc::from(pods), stopped)),
            stop,
        }
    }

    /// How many looks it took.
    ///
    /// # Errors
    /// When a pod was without an entry, or the server never answered.
    pub async fn end(self) -> Result<usize> {
        let _ = self.stop.send(true);
        let looks = self.looking.await.context("the witness")??;
        ensure!(looks > 0, "the witness saw nothing");
        Ok(looks)
    }
}

async fn look(
    entries: Entries,
    pods: Arc<[String]>,
    mut stopped: watch::Receiver<bool>,
) -> Result<usize> {
    let mut looks = 0;
    loop {
        for pod in pods.iter() {
            // A server that is away says nothing about its entries.
            if let Ok(found) = entries.of_pod(pod).await {
                ensure!(!found.is_empty(), "pod {pod} is without an entry");
                looks += 1;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(looks),
        }
    }
}
