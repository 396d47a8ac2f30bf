//! Times and TTLs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Fault, FieldError};

/// The latest time that is read, in unix seconds: the end of the year 9999, as X.509 has it.
const MAX_TIME: i64 = 253_402_300_799;

/// Reads a time; `None` for 0, which says that there is none.
///
/// # Errors
/// When it lies before 1970 or beyond the year 9999.
pub fn time(field: &str, unix_seconds: i64) -> Result<Option<SystemTime>, FieldError> {
    match u64::try_from(unix_seconds) {
        Ok(0) => Ok(None),
        Ok(after) if unix_seconds <= MAX_TIME => {
            Ok(UNIX_EPOCH.checked_add(Duration::from_secs(after)))
        }
        _ => Err(FieldError::new(field, Fault::Time(unix_seconds))),
    }
}

/// A time as it travels: whole unix seconds, rounded down; 0 for what lies before 1970.
#[must_use]
pub fn wire_time(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Reads a TTL; `None` for 0, the default.
///
/// # Errors
/// When it is negative.
pub fn seconds(field: &str, ttl: i32) -> Result<Option<Duration>, FieldError> {
    match u64::try_from(ttl) {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        Err(_) => Err(FieldError::new(field, Fault::NegativeTtl(ttl))),
    }
}

/// A TTL as it travels: whole seconds, rounded up, so that a short one does not become the default; 0 for `None`.
#[must_use]
pub fn wire_ttl(ttl: Option<Duration>) -> i32 {
    let Some(ttl) = ttl else { return 0 };
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}
