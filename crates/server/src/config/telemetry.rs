//! The blocks `telemetry` and `health_checks`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use runtime::config::Section;

use super::{HealthListener, Telemetry, refuse, warn};

/// As SPIRE names its figures, so that its dashboards and alerts work.
const DEFAULT_PREFIX: &str = "spire_server";
/// SPIRE's port of the health listener.
const DEFAULT_HEALTH_PORT: u16 = 80;

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            prometheus: None,
            prefix: DEFAULT_PREFIX.into(),
            host_label: true,
            trust_domain_label: false,
        }
    }
}

pub(super) fn read(section: &mut Section, warnings: &mut Vec<String>) -> Option<Telemetry> {
    let default = Telemetry::default();
    let prefix = section.get("MetricPrefix").unwrap_or(default.prefix);
    let host_label = section.get("EnableHostnameLabel");
    let trust_domain_label = section.get("EnableTrustDomainLabel");
    warn(
        section,
        "InMem",
        "ask Prometheus' endpoint instead",
        warnings,
    );
    for sink in ["DogStatsd", "Statsd", "M3"] {
        refuse(section, sink, "use Prometheus { port = 9988 }");
    }
    for key in [
        "AllowedLabels",
        "AllowedPrefixes",
        "BlockedLabels",
        "BlockedPrefixes",
    ] {
        refuse(
            section,
            key,
            "leave it out, and drop figures where they are collected",
        );
    }
    Some(Telemetry {
        prometheus: prometheus(&mut section.section("Prometheus"))?,
        prefix,
        host_label: host_label.unwrap_or(default.host_label),
        trust_domain_label: trust_domain_label.unwrap_or(default.trust_domain_label),
    })
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

pub(super) fn read_health(section: &mut Section) -> Option<Option<HealthListener>> {
    if !section.is_present() {
        return Some(None);
    }
    let on = section.get("listener_enabled").unwrap_or(false);
    let host = host(section, "bind_address");
    let port = section.get("bind_port").unwrap_or(DEFAULT_HEALTH_PORT);
    let live_path = path(section, "live_path", "/live");
    let ready_path = path(section, "ready_path", "/ready");
    let listener = HealthListener {
        address: SocketAddr::new(host?, port),
        live_path: live_path?,
        ready_path: ready_path?,
    };
    Some(on.then_some(listener))
}

/// An address to bind; `localhost` where none is given.
fn host(section: &mut Section, key: &str) -> Option<IpAddr> {
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if !section.has(key) {
        return Some(localhost);
    }
    section.parse(key, |text| match text {
        "localhost" | "" => Ok(localhost),
        _ => text
            .parse()
            .map_err(|_| "give an IP address such as \"0.0.0.0\", or \"localhost\""),
    })
}

fn path(section: &mut Section, key: &str, default: &str) -> Option<String> {
    let path: String = section.get(key).unwrap_or_else(|| default.into());
    if !path.starts_with('/') {
        section.problem(key, format_args!("give a path such as \"{default}\""));
        return None;
    }
    Some(path)
}
