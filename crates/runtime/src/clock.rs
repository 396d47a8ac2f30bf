use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Tells the wall time. Pass it to what runs; below that, pass `now` itself.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    fixed: Option<Fixed>,
}

#[derive(Clone, Debug)]
struct Fixed {
    start: SystemTime,
    since: Instant,
    /// By how many seconds it was set since, all in all.
    set: Arc<AtomicI64>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that shows `start` now and then moves with tokio's clock, so that a paused test moves both at once.
    pub fn at(start: SystemTime) -> Self {
        let fixed = Fixed {
            start,
            since: Instant::now(),
            set: Arc::default(),
        };
        Self { fixed: Some(fixed) }
    }

    /// Sets a clock that [`Clock::at`] made, and its clones, forward or back by so many seconds, as an operator may set the
    /// machine's. The machine's own is left as it is.
    pub fn set_by(&self, seconds: i64) {
        if let Some(fixed) = &self.fixed {
            fixed.set.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    /// The time now.
    pub fn now(&self) -> SystemTime {
        match &self.fixed {
            Some(fixed) => fixed.now(),
            None => system_now(),
        }
    }
}

impl Fixed {
    fn now(&self) -> SystemTime {
        let now = self.start + self.since.elapsed();
        let set = self.set.load(Ordering::Relaxed);
        let by = Duration::from_secs(set.unsigned_abs());
        if set < 0 { now - by } else { now + by }
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

    #[tokio::test(start_paused = true)]
    async fn can_be_set_with_all_its_clones() {
        let clock = Clock::at(UNIX_EPOCH + Duration::from_secs(100));
        let same = clock.clone();
        same.set_by(-40);
        assert_eq!(clock.now(), UNIX_EPOCH + Duration::from_secs(60));
        clock.set_by(41);
        assert_eq!(clock.now(), UNIX_EPOCH + Duration::from_secs(101));
    }

    #[test]
    fn system_time_is_the_machines() {
        let clock = Clock::system();
        assert!(clock.now() > UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    }
}
