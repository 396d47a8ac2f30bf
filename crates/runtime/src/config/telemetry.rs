//! The blocks `telemetry` and `health_checks`, the same in every program that SPIRE's files configure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Section, refuse, warn};
use crate::Metrics;

/// SPIRE's port of the health listener.
const DEFAULT_HEALTH_PORT: u16 = 80;

/// The figures a program shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Where Prometheus may fetch them.
    pub prometheus: Option<SocketAddr>,
    /// What their names begin with.
    pub prefix: String,
    /// Label each with the machine's name.
    pub host_label: bool,
    /// Label each with the trust domain.
    pub trust_domain_label: bool,
}

/// Where health is told over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthListener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Path of the liveness probe.
    pub live_path: String,
    /// Path of the readiness probe.
    pub ready_path: String,
}

impl Telemetry {
    /// What holds without a block; `prefix` as SPIRE names the program's figures, so that its dashboards and alerts work.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            prometheus: None,
            prefix: prefix.to_owned(),
            host_label: true,
            trust_domain_label: false,
        }
    }

    /// Reads the block; what it does not say is as in [`Telemetry::new`].
    pub fn read(section: &mut Section, prefix: &str, warnings: &mut Vec<String>) -> Option<Self> {
        let default = Self::new(prefix);
        let prefix = section.get("MetricPrefix").unwrap_or(default.prefix);
        let host_label = section.get("EnableHostnameLabel");
        let trust_domain_label = section.get("EnableTrustDomainLabel");
        let ask = "ask Prometheus' endpoint instead";
        warn(section, "InMem", ask, warnings);
        for sink in ["DogStatsd", "Statsd", "M3"] {
            refuse(section, sink, "use Prometheus { port = 9988 }");
        }
        for key in [
            "AllowedLabels",
            "AllowedPrefixes",
            "BlockedLabels",
            "BlockedPrefixes",
        ] {
            let instead = "leave it out, and drop figures where they are collected";
            refuse(section, key, instead);
        }
        Some(Self {
            prometheus: prometheus(&mut section.section("Prometheus"))?,
            prefix,
            host_label: host_label.unwrap_or(default.host_label),
            trust_domain_label: trust_domain_label.unwrap_or(default.trust_domain_label),
        })
    }

    /// The figures, with the labels that were asked for.
    #[must_use]
    pub fn metrics(&self, trust_domain: &str) -> Metrics {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let host = host.to_string_lossy();
        let labels = [
            (self.host_label, ("host", &*host)),
            (self.trust_domain_label, ("trust_domain_id", trust_domain)),
        ];
        let labels = labels
            .into_iter()
            .filter_map(|(on, label)| on.then_some(label));
        Metrics::with_labels(&self.prefix, &labels.collect::<Vec<_>>())
    }
}

impl HealthListener {
    /// Reads the block; `None` in it where the listener is off.
    pub fn read(section: &mut Section) -> Option<Option<Self>> {
        if !section.is_present() {
            return Some(None);
        }
        let on = section.get("listener_enabled").unwrap_or(false);
        let host = host(section, "bind_address");
        let port = section.get("bind_port").unwrap_or(DEFAULT_HEALTH_PORT);
        let live_path = path(section, "live_path", "/live");
        let ready_path = path(section, "ready_path", "/ready");
        let listener = Self {
            address: SocketAddr::new(host?, port),
            live_path: live_path?,
            ready_path: ready_path?,
        };
        Some(on.then_some(listener))
    }
}

fn prometheus(section: &mut Section) -> Option<Option<SocketAddr>> {
    if !section.is_present() {
        return Some(None);
    }
    refuse(section, "tls", "leave it out, and bind to localhost");
    let host = host(section, "host");
    let port = section.required("port");
    Some(Some(SocketAddr::new(host?, port?)))
}

/// An address to bind; `localhost` where none is given.
fn host(section: &mut Section, key: &str) -> Option<IpAddr> {
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match section.get::<String>(key).as_deref() {
        None | Some("" | "localhost") => Some(localhost),
        Some(_) => section.parse(key, |text| {
            let wrong = |_| "give an IP address such as \"0.0.0.0\", or \"localhost\"";
            text.parse().map_err(wrong)
        }),
    }
}

fn path(section: &mut Section, key: &str, default: &str) -> Option<String> {
    let path: String = section.get(key).unwrap_or_else(|| default.to_owned());
    if !path.starts_with('/') {
        section.problem(key, format_args!("give a path such as \"{default}\""));
        return None;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;

    fn telemetry(text: &str) -> Telemetry {
        let mut warnings = Vec::new();
        read(text, None, |root| {
            Telemetry::read(&mut root.section("telemetry"), "p", &mut warnings)
        })
        .unwrap()
    }

    #[test]
    fn each_label_is_there_when_asked_for_whatever_the_other() {
        for (host, trust_domain) in [(true, true), (true, false), (false, true), (false, false)] {
            let shown = telemetry(&format!(
                "telemetry {{\n EnableHostnameLabel = {host}\n EnableTrustDomainLabel = {trust_domain}\n}}"
            ));
            let metrics = shown.metrics("example.org");
            metrics.counter("calls", &[]).increment();
            let text = metrics.render();
            assert!(text.contains("p_calls"), "{text}");
            assert_eq!(text.contains("host=\""), host, "{text}");
            assert_eq!(text.contains("trust_domain_id=\""), trust_domain, "{text}");
        }
    }

    #[test]
    fn an_empty_host_is_localhost() {
        let shown = telemetry("telemetry {\n Prometheus {\n host = \"\"\n port = 9988\n }\n}");
        assert_eq!(shown.prometheus, Some(([127, 0, 0, 1], 9988).into()));
    }
}
