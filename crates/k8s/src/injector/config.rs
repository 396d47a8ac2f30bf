//! The injector's configuration file: YAML or JSON; every mistake is reported with its path.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use identity::SpiffeId;
use runtime::config::{Problems, Section};
use serde_json::{Map, Value};

use super::NAME;
use crate::admission::ca_bundle::{Target, TargetKind};
use crate::admission::server::Limits;
use crate::admission::serving::{Serving, Source, TlsOptions, client_roots};
use crate::config_file;
use crate::inject::Rules;

/// A review may be as large as the largest object etcd takes twice over; less would refuse good pods.
const BODY: std::ops::RangeInclusive<usize> = 3 << 20..=10 << 20;
const LONGEST_DRAIN: Duration = Duration::from_secs(8);
const DAY: Duration = Duration::from_secs(86_400);

/// What the injector runs by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where reviews are taken.
    pub listen: SocketAddr,
    /// On which path.
    pub path: String,
    /// Where `/live` and `/ready` answer, if anywhere.
    pub health_address: Option<SocketAddr>,
    /// Where figures are shown, if anywhere.
    pub metrics_address: Option<SocketAddr>,
    /// `debug`, `info`, `warn` or `error`.
    pub log_level: Option<String>,
    /// `text` or `json`.
    pub log_format: Option<String>,
    /// The certificate.
    pub serving: Serving,
    /// What callers may do.
    pub limits: Limits,
    /// What pods get.
    pub rules: Rules,
}

/// Reads a configuration.
///
/// # Errors
/// Every mistake in it.
pub fn read(
    text: &str,
    environment: Option<&BTreeMap<String, String>>,
) -> Result<Config, Problems> {
    config_file::read(text, environment, "the injector's keys", build)
}

fn build(root: &mut Section) -> Option<Config> {
    let listen = root
        .get("listen")
        .unwrap_or_else(|| SocketAddr::from(([0; 4], 9443)));
    let path = root
        .get("path")
        .unwrap_or_else(|| "/mutate-pods".to_owned());
    if !path.starts_with('/') {
        root.problem("path", "begin it with a slash, such as /mutate-pods");
    }
    let serving = serving(root);
    let limits = limits(root);
    let rules = rules(root);
    Some(Config {
        listen,
        path,
        health_address: root.get("health_address"),
        metrics_address: root.get("metrics_address"),
        log_level: root.get("log_level"),
        log_format: root.get("log_format"),
        serving: serving?,
        limits,
        rules: rules?,
    })
}

fn limits(root: &mut Section) -> Limits {
    let default = Limits::default();
    let body = root.get("max_body").unwrap_or(default.body);
    if !BODY.contains(&body) {
        root.problem(
            "max_body",
            format_args!("give {} to {} bytes", BODY.start(), BODY.end()),
        );
    }
    let drain = root.get("drain").unwrap_or(default.drain);
    if drain > LONGEST_DRAIN {
        root.problem(
            "drain",
            "give 8s at most: a program is cut off 10 s after SIGTERM",
        );
    }
    Limits {
        body,
        drain,
        request: root.get("request_timeout").unwrap_or(default.request),
        ..default
    }
}

fn serving(root: &mut Section) -> Option<Serving> {
    let tls = tls(root);
    let targets = targets(root);
    let mut certificate = root.required_section("certificate");
    let dns_names = certificate.required::<Vec<String>>("dns_names");
    let (has_agent, has_server) = (certificate.has("workload_api"), certificate.has("server"));
    let source = match (has_agent, has_server) {
        (true, false) => {
            let mut agent = certificate.section("workload_api");
            let socket = agent.required::<PathBuf>("socket");
            socket.map(|socket| Source::WorkloadApi {
                socket: socket.into(),
            })
        }
        (false, true) => server(&mut certificate.section("server")),
        _ => {
            certificate.problem("", "give one of workload_api and server");
            certificate.ignore_rest();
            None
        }
    };
    Some(Serving {
        source: source?,
        dns_names: dns_names?,
        targets: targets?,
        field_manager: NAME.to_owned(),
        tls: tls?,
    })
}

fn server(section: &mut Section) -> Option<Source> {
    let socket = section.required::<PathBuf>("socket");
    let id = section.required_parse("spiffe_id", SpiffeId::parse);
    let ttl = section.get("ttl").unwrap_or(DAY);
    Some(Source::Server {
        socket: socket?.into(),
        id: id?,
        ttl,
    })
}

fn tls(root: &mut Section) -> Option<TlsOptions> {
    let versions = [("1.2", true), ("1.3", false)];
    let allow_1_2 = root.choice("min_tls_version", &versions).unwrap_or(false);
    let Some(path) = root.get::<PathBuf>("client_ca_file") else {
        return Some(TlsOptions {
            allow_1_2,
            client_roots: None,
        });
    };
    let read = std::fs::read(&path).map_err(|error| error.to_string());
    let roots = read.and_then(|pem| client_roots(&pem).map_err(|error| error.to_string()));
    match roots {
        Ok(roots) => Some(TlsOptions {
            allow_1_2,
            client_roots: Some(roots),
        }),
        Err(error) => {
            root.problem(
                "client_ca_file",
                format_args!("{}: {error}", path.display()),
            );
            None
        }
    }
}

fn targets(root: &mut Section) -> Option<Vec<Target>> {
    const KEY: &str = "webhook_configurations";
    let list = match root.get::<Value>(KEY) {
        None => return Some(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => {
            root.problem(KEY, "give a list of {kind, name}");
            return None;
        }
    };
    let mut targets = Vec::new();
    for (number, item) in list.iter().enumerate() {
        match target(item) {
            Ok(target) => targets.push(target),
            Err(message) => {
                root.problem(&format!("{KEY}[{number}]"), message);
                return None;
            }
        }
    }
    Some(targets)
}

fn target(item: &Value) -> Result<Target, String> {
    let item = item.as_object().ok_or("give {kind, name}")?;
    if let Some(unknown) = item
        .keys()
        .find(|key| !["kind", "name"].contains(&key.as_str()))
    {
        return Err(format!("unknown key {unknown}; known here are kind, name"));
    }
    let kind = match item.get("kind").and_then(Value::as_str) {
        Some("MutatingWebhookConfiguration") => TargetKind::Mutating,
        Some("ValidatingWebhookConfiguration") => TargetKind::Validating,
        _ => {
            let kinds = "MutatingWebhookConfiguration or ValidatingWebhookConfiguration";
            return Err(format!("kind must be {kinds}"));
        }
    };
    let name = item.get("name").and_then(Value::as_str);
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or("name is missing")?.to_owned();
    Ok(Target { kind, name })
}

/// The section `inject`, and what of the program's own keys belongs to it.
fn rules(root: &mut Section) -> Option<Rules> {
    let mut section = match root.get::<Value>("inject") {
        None => Map::new(),
        Some(Value::Object(section)) => section,
        Some(_) => {
            root.problem("inject", "give a block of rules");
            return None;
        }
    };
    let namespace = root.required::<String>("namespace").map(Value::from);
    let strict = root.get::<bool>("strict").map(Value::from);
    let excluded = root
        .get::<Vec<String>>("exclude_namespaces")
        .map(Value::from);
    for (key, value) in [
        ("ownNamespace", namespace),
        ("strict", strict),
        ("excludedNamespaces", excluded),
    ] {
        if let Some(value) = value {
            section.entry(key).or_insert(value);
        }
    }
    let rules: Rules = match serde_json::from_value(Value::Object(section)) {
        Ok(rules) => rules,
        Err(error) => {
            root.problem("inject", error);
            return None;
        }
    };
    let problems = rules.validate();
    for problem in &problems {
        root.problem("inject", problem);
    }
    problems.is_empty().then_some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
namespace: spire-system
certificate:
  workload_api: { socket: /run/agent.sock }
  dns_names: [injector.spire-system.svc]
webhook_configurations:
  - { kind: MutatingWebhookConfiguration, name: signet }
strict: true
drain: 3s
inject: { trustDomain: prod.example, defaultMode: envoy }
"#;

    fn refused(text: &str, expected: &[&str]) {
        let problems = read(text, None).expect_err(text).to_string();
        for expected in expected {
            assert!(
                problems.contains(expected),
                "{expected} not in:\n{problems}"
            );
        }
    }

    #[test]
    fn a_file_with_the_least_gives_the_defaults() {
        let config = read(GOOD, None).unwrap();
        assert_eq!(config.listen.port(), 9443);
        assert_eq!(config.path, "/mutate-pods");
        assert_eq!(config.rules.own_namespace, "spire-system");
        assert!(config.rules.strict);
        assert_eq!(config.limits.drain, Duration::from_secs(3));
        assert_eq!(config.serving.targets.len(), 1);
    }

    #[test]
    fn all_mistakes_are_told_with_their_paths() {
        let text = GOOD
            .replace("drain: 3s", "drain: soon\nmax_body: 5\nlissten: x")
            .replace("name: signet", "nam: signet")
            .replace("defaultMode: envoy", "defaultMod: envoy");
        refused(
            &text,
            &[
                "drain: ",
                "max_body: ",
                "lissten: ",
                "webhook_configurations[0]: ",
                "inject: ",
                "defaultMod",
            ],
        );
        refused("namespace: a", &["certificate: "]);
        refused(
            "certificate: {dns_names: [a]}",
            &["namespace: ", "certificate: give one of"],
        );
        refused("[]", &["key: value"]);
        refused("a: [", &["YAML"]);
    }
}
