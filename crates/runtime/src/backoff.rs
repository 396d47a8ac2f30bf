//! Pauses between tries: longer and longer, and never everybody's at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.1;

/// The pauses of one loop.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    current: Option<Duration>,
}

impl Backoff {
    /// Pauses from `first` to `longest`, each half as long again as the one before, a tenth more or less.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            current: None,
        }
    }

    /// It failed: how long to wait.
    pub fn fail(&mut self) -> Duration {
        let next = self
            .current
            .map_or(self.first, |current| current.mul_f64(FACTOR));
        self.current = Some(next.min(self.longest));
        self.pause()
    }

    /// It worked.
    pub const fn reset(&mut self) {
        self.current = None;
    }

    /// How long to wait now; nothing after a success.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.current
            .map_or(Duration::ZERO, |current| jittered(current, JITTER))
    }
}

/// The duration, more or less by up to this part of it.
#[must_use]
pub fn jittered(duration: Duration, part: f64) -> Duration {
    // Spreads callers out; nobody has to be unable to guess it.
    let [low, .., high] = RandomState::new().hash_one(()).to_le_bytes();
    let spread = f64::from(u16::from_le_bytes([low, high])) / f64::from(u16::MAX) * 2.0 - 1.0;
    duration.mul_f64(part.mul_add(spread, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
        assert_eq!(backoff.pause(), Duration::ZERO);
        for expected in [1.0, 1.5, 2.25, 3.0, 3.0] {
            let pause = backoff.fail().as_secs_f64();
            assert!(
                (pause - expected).abs() <= expected * JITTER + 1e-6,
                "{pause}"
            );
        }
        backoff.reset();
        assert!(backoff.fail() < Duration::from_secs(2));
    }
}
