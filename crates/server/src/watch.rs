//! What is looked at now and then while the server runs.

use std::time::Duration;

use runtime::{BoxError, Metrics, Shutdown};
use store::Store;
use tokio::time::{Instant, interval, sleep};

/// As often as SPIRE looks at its health.
const DATASTORE: Duration = Duration::from_secs(60);
/// As long as it is not well: what mends it (room on the disk) should show soon.
const DATASTORE_AGAIN: Duration = Duration::from_secs(5);
/// As often as SPIRE tells its uptime.
const UPTIME: Duration = Duration::from_secs(10);

/// Finds out whether the datastore can be written, until shutdown; the store remembers it as its health.
pub(crate) async fn datastore(store: Store, shutdown: Shutdown) -> Result<(), BoxError> {
    let mut well = true;
    loop {
        let wait = if well { DATASTORE } else { DATASTORE_AGAIN };
        tokio::select! {
            () = sleep(wait) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let checked = store.check().await;
        match &checked {
            Ok(()) if !well => tracing::info!("the datastore can be written again"),
            Err(error) if well => tracing::error!(%error, "the datastore cannot be written"),
            _ => {}
        }
        well = checked.is_ok();
    }
}

/// Keeps SPIRE's `uptime_in_ms` up to date, until shutdown.
pub(crate) async fn uptime(metrics: Metrics, shutdown: Shutdown) -> Result<(), BoxError> {
    let gauge = metrics.gauge("uptime_in_ms", &[]);
    let started = Instant::now();
    let mut ticks = interval(UPTIME);
    loop {
        tokio::select! {
            _ = ticks.tick() => gauge.set(started.elapsed().as_secs_f64() * 1e3),
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}
