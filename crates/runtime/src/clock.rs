use std::time::SystemTime;

use tokio::time::Instant;

/// Tells the wall time. Pass it to what runs; below that, pass `now` itself.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    fixed: Option<(SystemTime, Instant)>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that shows `start` now and then moves with tokio's clock, so that a paused test moves both at once.
    pub fn at(start: SystemTime) -> Self {
        Self {
            fixed: Some((start, Instant::now())),
        }
    }

    /// The time now.
    pub fn now(&self) -> SystemTime {
        match self.fixed {
            Some((start, since)) => start + since.elapsed(),
            None => system_now(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks the machine for the time"
)]
fn system_now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moves_with_tokio() {
        let clock = Clock::at(UNIX_EPOCH);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now(), UNIX_EPOCH + Duration::from_secs(90));
    }

    #[test]
    fn system_time_is_the_machines() {
        let clock = Clock::system();
        assert!(clock.now() > UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    }
}
