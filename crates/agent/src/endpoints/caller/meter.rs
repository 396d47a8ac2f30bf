//! How many streams and calls one process may begin.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use runtime::{Counter, Metrics};
use tokio::time::Instant;
use tonic::Status;
use tracing::warn;

/// How many a process may begin at once. An Envoy that connects anew begins one for each secret, a large one a few thousand.
const BURST: u32 = 8_192;

/// After how long it may begin one more: for a process that begins and ends streams without a pause.
const ONE_MORE_AFTER: Duration = Duration::from_millis(1);

/// How many processes are remembered before those are forgotten that may begin their whole burst again.
const FIRST_SWEEP: usize = 1_024;

/// What processes have begun of late. Asking costs less than anything that is done for a stream.
#[derive(Debug)]
pub(super) struct Meter {
    processes: Mutex<Processes>,
    refused: Counter,
}

#[derive(Debug)]
struct Processes {
    /// By PID: when the process would have its whole burst again.
    full_at: HashMap<Option<u32>, Instant>,
    sweep_at: usize,
}

impl Meter {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            processes: Mutex::new(Processes {
                full_at: HashMap::new(),
                sweep_at: FIRST_SWEEP,
            }),
            refused: metrics.counter("workload_api_calls_refused", &[]),
        }
    }

    /// Lets a process begin one more.
    ///
    /// # Errors
    /// Resource exhausted, when it began too many.
    pub(super) fn admit(&self, pid: Option<u32>) -> Result<(), Status> {
        let now = Instant::now();
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        processes.sweep(now);
        let full_at = processes.full_at.entry(pid).or_insert(now);
        let next = (*full_at).max(now) + ONE_MORE_AFTER;
        if next <= now + BURST * ONE_MORE_AFTER {
            *full_at = next;
            return Ok(());
        }
        drop(processes);
        self.refused.increment();
        warn!(
            caller = pid,
            "the process begins too many streams and calls; refusing some"
        );
        Err(Status::resource_exhausted(
            "this process begins too many streams and calls; keep those it has, and wait before trying again",
        ))
    }
}

impl Processes {
    fn sweep(&mut self, now: Instant) {
        if self.full_at.len() >= self.sweep_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = FIRST_SWEEP.max(2 * self.full_at.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> Meter {
        Meter::new(&Metrics::new("spire_agent"))
    }

    #[tokio::test(start_paused = true)]
    async fn s_5_43_a_process_that_begins_too_much_is_slowed_down_alone() {
        let meter = meter();
        for _ in 0..BURST {
            meter.admit(Some(7)).unwrap();
        }
        let status = meter.admit(Some(7)).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        meter.admit(Some(8)).unwrap();
        tokio::time::advance(2 * ONE_MORE_AFTER).await;
        meter.admit(Some(7)).unwrap();
        meter.admit(Some(7)).unwrap();
        meter.admit(Some(7)).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn processes_are_forgotten() {
        let meter = meter();
        for pid in 0..10_000 {
            meter.admit(Some(pid)).unwrap();
            tokio::time::advance(ONE_MORE_AFTER).await;
        }
        let processes = meter.processes.lock().unwrap();
        assert!(processes.full_at.len() <= FIRST_SWEEP);
    }
}
