//! Notices that the wall clock was set.

use std::time::{Duration, SystemTime};

use runtime::Clock;
use tokio::time::Instant;

/// A clock that was set by less than this is let be.
const LEEWAY: Duration = Duration::from_mins(2);

/// Holds the wall clock against the one that is never set.
#[derive(Debug)]
pub(crate) struct ClockWatch {
    clock: Clock,
    wall: SystemTime,
    steady: Instant,
}

/// How the clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockSet {
    /// It shows so much less than it would.
    Back(Duration),
    /// It shows so much more; a machine that slept looks the same.
    Forward(Duration),
}

impl ClockWatch {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            wall: clock.now(),
            steady: Instant::now(),
            clock,
        }
    }

    /// Whether and how the clock was set since the last look.
    pub(crate) fn look(&mut self) -> Option<ClockSet> {
        let (now, steady) = (self.clock.now(), Instant::now());
        let expected = self.wall + (steady - self.steady);
        (self.wall, self.steady) = (now, steady);
        let set = match now.duration_since(expected) {
            Ok(forward) => ClockSet::Forward(forward),
            Err(back) => ClockSet::Back(back.duration()),
        };
        (set.by() > LEEWAY).then_some(set)
    }
}

impl ClockSet {
    const fn by(self) -> Duration {
        match self {
            Self::Back(by) | Self::Forward(by) => by,
        }
    }

    /// A time that was to come after so long, as the clock shows it now.
    pub(crate) fn shift(self, time: SystemTime) -> SystemTime {
        let shifted = match self {
            Self::Back(by) => time.checked_sub(by),
            Self::Forward(by) => time.checked_add(by),
        };
        shifted.unwrap_or(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::noon;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_is_noticed_once_and_one_that_goes_is_not() {
        let clock = Clock::at(noon());
        let mut watch = ClockWatch::new(clock.clone());
        let hour = Duration::from_hours(1);
        for (by, seen) in [
            (0, None),
            (-3600, Some(ClockSet::Back(hour))),
            (3600, Some(ClockSet::Forward(hour))),
            (119, None),
            (-119, None),
        ] {
            tokio::time::advance(hour).await;
            clock.set_by(by);
            assert_eq!(watch.look(), seen, "set by {by} s");
            assert_eq!(watch.look(), None);
        }
    }
}
