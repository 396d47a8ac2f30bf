//! See [`Metrics`].

mod call;
mod histogram;
mod naming;
mod summary;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{TextEncoder, proto};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::Tasks;
use crate::pages::{self, Page};

use histogram::Histogram;
use naming::sanitize;
use summary::Summary;

pub use call::{Call, Calls};

/// The program's figures, in Prometheus' text format and under SPIRE's naming: `<prefix>_<name>`, counters without
/// `_total`, samples as summaries (0.5, 0.9, 0.99 over the last ten seconds) in milliseconds, label values with every run of other
/// characters than letters, digits and `_` replaced by one `_`. Figures that SPIRE does not have may be histograms of seconds.
///
/// A figure's kind is given by its first use.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    prefix: String,
    labels: Labels,
    families: Mutex<BTreeMap<String, Family>>,
    process: ProcessCollector,
}

type Labels = Vec<(String, String)>;

enum Family {
    Counters(HashMap<Labels, Arc<AtomicU64>>),
    /// As the bits of an `f64`.
    Gauges(HashMap<Labels, Arc<AtomicU64>>),
    Summaries(HashMap<Labels, Arc<Mutex<Summary>>>),
    Histograms(HashMap<Labels, Arc<Mutex<Histogram>>>),
}

impl Metrics {
    /// Figures under `prefix` (`spire_server`), each with the label `host`, this machine's name.
    pub fn new(prefix: &str) -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default();
        Self::with_labels(prefix, &[("host", &host.to_string_lossy())])
    }

    /// Figures under `prefix`, each with exactly these labels beside its own.
    pub fn with_labels(prefix: &str, labels: &[(&str, &str)]) -> Self {
        Self(Arc::new(Inner {
            prefix: prefix.to_owned(),
            labels: owned(labels),
            families: Mutex::default(),
            process: ProcessCollector::for_self(),
        }))
    }

    /// Begins a call: when finished, `<name>{status}` counts it and `<name>_elapsed_time{status}` takes its duration.
    pub fn call(&self, name: &str, labels: &[(&str, &str)]) -> Call {
        Call::begin(self, name, owned(labels))
    }

    /// Begins the call of the gRPC method at `path` (`/package.Service/Method`), named as SPIRE names it: `rpc_…`.
    pub fn rpc(&self, path: &str) -> Call {
        self.call(&naming::rpc_name(path), &[])
    }

    /// Begins a caller's wait for the turn that the limits give it to call the method at `path`, named as SPIRE names it:
    /// `rateLimit_…`.
    pub fn rate_limit(&self, path: &str) -> Call {
        self.call(&naming::rate_limit_name(path), &[])
    }

    /// Calls that are made so often that their figures are looked up beforehand.
    pub fn calls(&self, name: &str) -> Calls {
        Calls::new(self, name)
    }

    /// A figure that only grows.
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> Counter {
        self.counter_of(name, owned(labels))
    }

    /// A figure that goes up and down.
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Gauge {
        let gauge = self.0.family(
            name,
            || Family::Gauges(HashMap::new()),
            |family| match family {
                Family::Gauges(gauges) => Some(gauges.entry(owned(labels)).or_default().clone()),
                _ => None,
            },
        );
        Gauge(gauge.unwrap_or_default())
    }

    /// Adds one value to a summary.
    pub fn sample(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.sample_of(name, owned(labels), value);
    }

    /// Adds one duration, in milliseconds, to a summary.
    pub fn elapsed(&self, name: &str, labels: &[(&str, &str)], elapsed: Duration) {
        self.sample(name, labels, elapsed.as_secs_f64() * 1e3);
    }

    /// Adds one duration, in seconds, to a histogram.
    pub fn observe(&self, name: &str, labels: &[(&str, &str)], elapsed: Duration) {
        let histogram = self.0.family(
            name,
            || Family::Histograms(HashMap::new()),
            |family| match family {
                Family::Histograms(all) => Some(all.entry(owned(labels)).or_default().clone()),
                _ => None,
            },
        );
        if let Some(histogram) = histogram {
            let mut histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
            histogram.add(elapsed.as_secs_f64());
        }
    }

    /// All figures, with `process_*`, in Prometheus' text format.
    pub fn render(&self) -> String {
        let now = Instant::now();
        let families = self
            .0
            .families
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = families
            .iter()
            .map(|(name, family)| self.0.encode(name, family, now))
            .collect();
        drop(families);
        all.extend(self.0.process.collect());
        TextEncoder::new()
            .encode_to_string(&all)
            .unwrap_or_else(|error| {
                tracing::error!(%error, "figures cannot be shown");
                String::new()
            })
    }

    /// Answers every path on `listener` with [`Metrics::render`].
    pub fn serve(&self, listener: TcpListener, tasks: &Tasks) {
        let metrics = self.clone();
        pages::serve("metrics endpoint", listener, tasks, move |_| Page {
            status: StatusCode::OK,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: metrics.render(),
        });
    }

    fn counter_of(&self, name: &str, labels: Labels) -> Counter {
        let counter = self.0.family(
            name,
            || Family::Counters(HashMap::new()),
            |family| match family {
                Family::Counters(counters) => Some(counters.entry(labels).or_default().clone()),
                _ => None,
            },
        );
        Counter(counter.unwrap_or_default())
    }

    fn summary_of(&self, name: &str, labels: Labels) -> Arc<Mutex<Summary>> {
        let summary = self.0.family(
            name,
            || Family::Summaries(HashMap::new()),
            |family| match family {
                Family::Summaries(summaries) => Some(summaries.entry(labels).or_default().clone()),
                _ => None,
            },
        );
        summary.unwrap_or_default()
    }

    fn sample_of(&self, name: &str, labels: Labels, value: f64) {
        add(&self.summary_of(name, labels), value);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics({})", self.0.prefix)
    }
}

impl Inner {
    /// What `find` gets out of the family `name`, made by `make` when it is new.
    fn family<T>(
        &self,
        name: &str,
        make: impl FnOnce() -> Family,
        find: impl FnOnce(&mut Family) -> Option<T>,
    ) -> Option<T> {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match families.get_mut(name) {
            Some(family) => find(family),
            None => find(families.entry(name.to_owned()).or_insert_with(make)),
        };
        debug_assert!(found.is_some(), "{name} is used as two kinds of figure");
        found
    }

    fn encode(&self, name: &str, family: &Family, now: Instant) -> proto::MetricFamily {
        let mut encoded = proto::MetricFamily::default();
        let full_name = format!("{}_{}", self.prefix, naming::key(name));
        encoded.set_help(full_name.clone());
        encoded.set_name(full_name);
        let metrics = match family {
            Family::Counters(counters) => {
                encoded.set_field_type(proto::MetricType::COUNTER);
                self.each(counters, |metric, counter| {
                    let mut encoded = proto::Counter::default();
                    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
                    encoded.set_value(counter.load(Relaxed) as f64);
                    metric.set_counter(encoded);
                })
            }
            Family::Gauges(gauges) => {
                encoded.set_field_type(proto::MetricType::GAUGE);
                self.each(gauges, |metric, gauge| {
                    let mut encoded = proto::Gauge::default();
                    encoded.set_value(f64::from_bits(gauge.load(Relaxed)));
                    metric.set_gauge(encoded);
                })
            }
            Family::Summaries(summaries) => {
                encoded.set_field_type(proto::MetricType::SUMMARY);
                self.each(summaries, |metric, summary| {
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    metric.set_summary(summary.encode(now));
                })
            }
            Family::Histograms(histograms) => {
                encoded.set_field_type(proto::MetricType::HISTOGRAM);
                self.each(histograms, |metric, histogram| {
                    let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
                    metric.set_histogram(histogram.encode());
                })
            }
        };
        encoded.set_metric(metrics);
        encoded
    }

    fn each<T>(
        &self,
        by_labels: &HashMap<Labels, T>,
        fill: impl Fn(&mut proto::Metric, &T),
    ) -> Vec<proto::Metric> {
        let mut sorted: Vec<_> = by_labels.iter().collect();
        sorted.sort_by_key(|(labels, _)| *labels);
        let metric = |(labels, value)| {
            let all = labels_of(labels).chain(labels_of(&self.labels));
            let mut metric = proto::Metric::from_label(all.collect());
            fill(&mut metric, value);
            metric
        };
        sorted.into_iter().map(metric).collect()
    }
}

fn add(summary: &Mutex<Summary>, value: f64) {
    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
    summary.add(value, Instant::now());
}

/// See [`Metrics::counter`].
#[derive(Clone, Debug)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
}

/// See [`Metrics::gauge`].
#[derive(Clone, Debug)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Adds to the value; a negative `delta` takes away.
    pub fn add(&self, delta: f64) {
        let plus = |bits| Some((f64::from_bits(bits) + delta).to_bits());
        let _ = self.0.fetch_update(Relaxed, Relaxed, plus);
    }

    /// Adds one until the guard is dropped: for what is open now.
    #[must_use = "dropped at once, it counts nothing"]
    pub fn hold(&self) -> Held {
        self.add(1.0);
        Held(self.clone())
    }
}

/// See [`Gauge::hold`].
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

fn owned(labels: &[(&str, &str)]) -> Labels {
    let owned = |(name, value): &(&str, &str)| (naming::key(name), sanitize(value));
    labels.iter().map(owned).collect()
}

fn labels_of(labels: &Labels) -> impl Iterator<Item = proto::LabelPair> {
    labels.iter().map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.clone());
        pair.set_value(value.clone());
        pair
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::with_labels("spire_agent", &[("host", "node-1.example")])
    }

    #[test]
    fn figures_have_spires_names_and_labels() {
        let metrics = metrics();
        metrics.counter("sds_api_connection", &[]).add(2);
        metrics
            .gauge(
                "started",
                &[("version", "1.2.3"), ("trust_domain_id", "example.org")],
            )
            .set(1.0);
        let text = metrics.render();
        let expected = [
            "# HELP spire_agent_sds_api_connection spire_agent_sds_api_connection\n",
            "# TYPE spire_agent_sds_api_connection counter\n",
            "spire_agent_sds_api_connection{host=\"node_1_example\"} 2\n",
            "spire_agent_started{version=\"1_2_3\",trust_domain_id=\"example_org\",host=\"node_1_example\"} 1\n",
            "process_resident_memory_bytes ",
        ];
        for line in expected {
            assert!(text.contains(line), "{line} not in:\n{text}");
        }
        assert!(!text.contains("_connection_total"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_counted_and_timed_by_status() {
        let metrics = metrics();
        let call = metrics.rpc("/spire.api.server.agent.v1.Agent/AttestAgent");
        tokio::time::advance(Duration::from_millis(20)).await;
        call.finish(tonic::Code::PermissionDenied);
        drop(metrics.call("node_attest", &[]));
        let text = metrics.render();
        let expected = [
            "spire_agent_rpc_agent_v1_agent_attest_agent{status=\"PermissionDenied\",host=\"node_1_example\"} 1\n",
            "spire_agent_rpc_agent_v1_agent_attest_agent_elapsed_time{status=\"PermissionDenied\",host=\"node_1_example\",quantile=\"0.5\"} 20\n",
            "spire_agent_rpc_agent_v1_agent_attest_agent_elapsed_time_count{status=\"PermissionDenied\",host=\"node_1_example\"} 1\n",
            "spire_agent_node_attest{status=\"Canceled\",host=\"node_1_example\"} 1\n",
        ];
        for line in expected {
            assert!(text.contains(line), "{line} not in:\n{text}");
        }
    }

    #[test]
    fn calls_that_are_made_often_count_as_others() {
        let metrics = metrics();
        let calls = metrics.calls("sign");
        let work = |result: Result<u8, u8>| calls.measure(|| result, |_| tonic::Code::Internal);
        assert_eq!(
            (work(Ok(1)), work(Err(2)), work(Ok(3))),
            (Ok(1), Err(2), Ok(3))
        );
        let text = metrics.render();
        for line in [
            "spire_agent_sign{status=\"OK\",host=\"node_1_example\"} 2\n",
            "spire_agent_sign{status=\"Internal\",host=\"node_1_example\"} 1\n",
            "spire_agent_sign_elapsed_time_count{status=\"OK\",host=\"node_1_example\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} not in:\n{text}");
        }
    }

    #[test]
    fn a_histogram_is_shown_by_bucket() {
        let metrics = metrics();
        let elapsed = Duration::from_millis(2);
        metrics.observe("admission_duration_seconds", &[("path", "/x")], elapsed);
        let text = metrics.render();
        let expected = [
            "# TYPE spire_agent_admission_duration_seconds histogram\n",
            "_bucket{path=\"_x\",host=\"node_1_example\",le=\"0.001\"} 0\n",
            "_bucket{path=\"_x\",host=\"node_1_example\",le=\"0.0025\"} 1\n",
            "_bucket{path=\"_x\",host=\"node_1_example\",le=\"+Inf\"} 1\n",
            "_sum{path=\"_x\",host=\"node_1_example\"} 0.002\n",
        ];
        for line in expected {
            assert!(text.contains(line), "{line} not in:\n{text}");
        }
    }

    #[test]
    fn a_gauge_counts_what_is_held() {
        let metrics = metrics();
        let open = metrics.gauge("sds_api_connections", &[]);
        let held = open.hold();
        assert!(
            metrics
                .render()
                .contains("connections{host=\"node_1_example\"} 1\n")
        );
        drop(held);
        assert!(
            metrics
                .render()
                .contains("connections{host=\"node_1_example\"} 0\n")
        );
    }
}
