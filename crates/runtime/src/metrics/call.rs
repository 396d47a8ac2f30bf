//! Calls: how often, how they end, how long they take.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::naming::code_text;
use super::summary::Summary;
use super::{Counter, Labels, Metrics, add, owned};

/// A call under way. Dropped unfinished, it counts as `Canceled`.
#[derive(Debug)]
pub struct Call {
    metrics: Metrics,
    name: String,
    labels: Labels,
    started: Instant,
    finished: bool,
}

impl Call {
    pub(super) fn begin(metrics: &Metrics, name: &str, labels: Labels) -> Self {
        Self {
            metrics: metrics.clone(),
            name: name.to_owned(),
            labels,
            started: Instant::now(),
            finished: false,
        }
    }

    /// Adds a label that is known only during the call.
    pub fn label(&mut self, name: &str, value: &str) {
        self.labels.extend(owned(&[(name, value)]));
    }

    /// Counts the call with this status.
    pub fn finish(mut self, code: tonic::Code) {
        self.end(code);
    }

    /// Counts the call with the status of `result`, and gives it back.
    pub fn record<T>(self, result: Result<T, tonic::Status>) -> Result<T, tonic::Status> {
        let code = result
            .as_ref()
            .err()
            .map_or(tonic::Code::Ok, tonic::Status::code);
        self.finish(code);
        result
    }

    fn end(&mut self, code: tonic::Code) {
        self.finished = true;
        let mut labels = std::mem::take(&mut self.labels);
        labels.push(("status".to_owned(), code_text(code).to_owned()));
        let elapsed = self.started.elapsed().as_secs_f64() * 1e3;
        self.metrics
            .counter_of(&self.name, labels.clone())
            .increment();
        self.name.push_str("_elapsed_time");
        self.metrics.sample_of(&self.name, labels, elapsed);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.finished {
            self.end(tonic::Code::Cancelled);
        }
    }
}

/// See [`Metrics::calls`].
#[derive(Clone, Debug)]
pub struct Calls {
    metrics: Metrics,
    name: String,
    counted: Counter,
    elapsed: Arc<Mutex<Summary>>,
}

impl Calls {
    pub(super) fn new(metrics: &Metrics, name: &str) -> Self {
        let ok = owned(&[("status", code_text(tonic::Code::Ok))]);
        Self {
            counted: metrics.counter_of(name, ok.clone()),
            elapsed: metrics.summary_of(&format!("{name}_elapsed_time"), ok),
            metrics: metrics.clone(),
            name: name.to_owned(),
        }
    }

    /// Does `work`, counts it, and takes its time; `code` tells the status of a failure.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn measure<T, E>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
        code: impl FnOnce(&E) -> tonic::Code,
    ) -> Result<T, E> {
        let started = Instant::now();
        let done = work();
        match &done {
            Ok(_) => {
                self.counted.increment();
                add(&self.elapsed, started.elapsed().as_secs_f64() * 1e3);
            }
            Err(error) => {
                let mut call = Call::begin(&self.metrics, &self.name, Labels::new());
                call.started = started;
                call.finish(code(error));
            }
        }
        done
    }
}
