use std::time::Duration;

use tokio::net::TcpListener;

use crate::Tasks;

/// The program's figures, in Prometheus' text format and under SPIRE's naming: `<prefix>_<name>`, counters without
/// `_total`, samples as summaries (0.5, 0.9, 0.99) in milliseconds, label values with every run of other characters than
/// letters, digits and `_` replaced by one `_`.
#[derive(Clone, Debug)]
pub struct Metrics {}

impl Metrics {
    /// Figures under `prefix` (`spire_server`), each with the label `host`.
    pub fn new(prefix: &str) -> Self {
        todo!()
    }

    /// Figures under `prefix`, each with exactly these labels.
    pub fn with_labels(prefix: &str, labels: &[(&str, &str)]) -> Self {
        todo!()
    }

    /// Begins a call: when finished, `<name>{status}` counts it and `<name>_elapsed_time{status}` takes its duration.
    pub fn call(&self, name: &str, labels: &[(&str, &str)]) -> Call {
        todo!()
    }

    /// A figure that only grows.
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> Counter {
        todo!()
    }

    /// A figure that goes up and down.
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Gauge {
        todo!()
    }

    /// Adds one value to a summary.
    pub fn sample(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        todo!()
    }

    /// Adds one duration, in milliseconds, to a summary.
    pub fn elapsed(&self, name: &str, labels: &[(&str, &str)], elapsed: Duration) {
        self.sample(name, labels, elapsed.as_secs_f64() * 1e3);
    }

    /// All figures, with `process_*`, in Prometheus' text format.
    pub fn render(&self) -> String {
        todo!()
    }

    /// Answers every path on `listener` with [`Metrics::render`].
    pub fn serve(&self, listener: TcpListener, tasks: &Tasks) {
        todo!()
    }
}

/// A call under way. Dropped unfinished, it counts as `Canceled`.
#[derive(Debug)]
pub struct Call {}

impl Call {
    /// Counts the call with this status.
    pub fn finish(self, code: tonic::Code) {
        todo!()
    }

    /// Counts the call with the status of `result`, and gives it back.
    pub fn record<T>(self, result: Result<T, tonic::Status>) -> Result<T, tonic::Status> {
        self.finish(
            result
                .as_ref()
                .err()
                .map_or(tonic::Code::Ok, tonic::Status::code),
        );
        result
    }
}

/// See [`Metrics::counter`].
#[derive(Clone, Debug)]
pub struct Counter {}

impl Counter {
    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        todo!()
    }
}

/// See [`Metrics::gauge`].
#[derive(Clone, Debug)]
pub struct Gauge {}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        todo!()
    }

    /// Adds to the value; a negative `delta` takes away.
    pub fn add(&self, delta: f64) {
        todo!()
    }
}
