//! Times and durations as they are kept: whole seconds, times since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().try_into().unwrap_or(i64::MAX)
}

pub(crate) fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + duration(seconds)
}

pub(crate) fn duration(seconds: i64) -> Duration {
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

pub(crate) fn duration_seconds(duration: Duration) -> i64 {
    duration.as_secs().try_into().unwrap_or(i64::MAX)
}
