//! Waiting for what another process does: a bound, a short poll, and an error that says what was expected.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

/// How long anything here may take before it counts as failed: generous, since machines are noisy.
pub const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// Asks `probe` until it answers `Ok(Some(_))`, for at most [`PATIENCE`].
///
/// # Errors
/// When time is up: what was waited for, and the last error `probe` gave.
pub async fn until<T, F, Fut>(what: &str, probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    within(PATIENCE, what, probe).await
}

/// As [`until`], with a bound of its own.
///
/// # Errors
/// When time is up: what was waited for, and the last error `probe` gave.
pub async fn within<T, F, Fut>(bound: Duration, what: &str, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + bound;
    loop {
        let answer = probe().await;
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return match answer {
                Err(error) => Err(error).with_context(|| format!("waited {bound:?} for {what}")),
                Ok(_) => bail!("waited {bound:?} for {what}; it did not happen"),
            };
        }
        sleep(POLL).await;
    }
}
