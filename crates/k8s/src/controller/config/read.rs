use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use identity::TrustDomain;
use regex::Regex;
use runtime::config::{Problems, Section, Value};
use serde_json::Value as Json;

use super::source::{manifests, spiffe_id_labels};
use super::{Class, Config, LeaderElection, MassDelete, OwnershipRule, Reconcile, Webhook};
use crate::bundle::config as bundle;
use crate::config_file;
use crate::controller::template::{Scope, Sees, Template};
use crate::controller::tenants;

/// The parent of a pod's entry unless the file says otherwise: what the `k8s_psat` node attestor calls an agent.
const DEFAULT_PARENT: &str =
    "spiffe://{{ .TrustDomain }}/spire/agent/k8s_psat/{{ .ClusterName }}/{{ .NodeMeta.UID }}";

/// Reads a config file: YAML, or JSON. With `environment`, `$NAME` and `${NAME}` stand for its values (`-expand-env`).
///
/// # Errors
/// Every mistake of the file, with its path.
pub fn read(
    text: &str,
    environment: Option<&BTreeMap<String, String>>,
) -> Result<Config, Problems> {
    config_file::read(text, environment, "a ControllerManagerConfig", build)
}

fn build(root: &mut Section) -> Option<Config> {
    check_kind(root);
    let cluster_name = root.required::<String>("clusterName");
    let trust_domain = root.required_parse("trustDomain", TrustDomain::parse);
    let cluster_domain = root
        .get::<String>("clusterDomain")
        .filter(|name| !name.is_empty());
    let class = Class {
        name: root.get("className").unwrap_or_default(),
        watch_classless: root.get("watchClassless").unwrap_or(false),
    };
    let parent = root
        .get::<String>("parentIDTemplate")
        .filter(|text| !text.is_empty());
    let parent_id = Template::compile(parent.as_deref().unwrap_or(DEFAULT_PARENT), Sees::Node);
    let parent_id = parent_id
        .map_err(|error| root.problem("parentIDTemplate", error))
        .ok();
    let ownership = ownership(root, cluster_name.as_deref().unwrap_or_default(), &class);
    let mut own = root.section("signet");
    let ready_endpoints_only = own.get("readyEndpointsOnly").unwrap_or(false);
    let mass_delete = mass_delete(&mut own);
    let tenants = tenants::read(&mut own);
    let dry_run = own.get("dryRun").unwrap_or(false);
    let adopt_federation = own.get("adoptFederation").unwrap_or(false);
    let anchored = own.get("anchoredIgnoreNamespaces").unwrap_or(false);
    let bundle = bundle::read(&mut own);
    let record = own.get::<PathBuf>("federationRecord");
    drop(own);
    let manifests = manifests(root, record);
    let config = Config {
        ignore_namespaces: ignored(root, anchored),
        reconcile: reconcile(root, manifests.is_some()),
        spiffe_id_labels: spiffe_id_labels(root, &class.name),
        manifests,
        resync: root
            .get::<Span>("gcInterval")
            .map_or_else(|| Duration::from_secs(10), |span| span.0),
        server_socket: root
            .get("spireServerSocketPath")
            .unwrap_or_else(|| PathBuf::from("/spire-server/api.sock")),
        log_level: root
            .get::<String>("logLevel")
            .filter(|level| !level.is_empty()),
        leader_election: leader_election(root),
        metrics_address: address(root, "metrics", "bindAddress"),
        health_address: health(root),
        webhook: webhook(root),
        cache_namespaces: cache_namespaces(root),
        scope: Scope {
            trust_domain: trust_domain?,
            cluster_name: cluster_name?,
            cluster_domain,
        },
        parent_id: parent_id?,
        class,
        ownership,
        ready_endpoints_only,
        mass_delete,
        adopt_federation,
        dry_run,
        tenants,
        bundle,
    };
    pass_over(root);
    Some(config)
}

fn check_kind(root: &mut Section) {
    let kind = root.get::<String>("kind").unwrap_or_default();
    if !matches!(kind.as_str(), "" | "ControllerManagerConfig") {
        root.problem("kind", "not a ControllerManagerConfig");
    }
    let version = root.get::<String>("apiVersion").unwrap_or_default();
    if !matches!(version.as_str(), "" | "spire.spiffe.io/v1alpha1") {
        root.problem("apiVersion", "write spire.spiffe.io/v1alpha1");
    }
}

/// What SPIRE's controller manager knows and this one has no use for.
fn pass_over(root: &mut Section) {
    for key in [
        "enableEntryRenderCache",
        "entryRenderCacheSize",
        "logEncoding",
        "syncPeriod",
        "gracefulShutDown",
        "cacheNamespace",
    ] {
        root.ignore(key);
    }
    for key in ["grpc", "controller"] {
        root.section(key).ignore_rest();
    }
}

fn ownership(root: &mut Section, cluster: &str, class: &Class) -> OwnershipRule {
    let prefix = root.get::<String>("entryIDPrefix").unwrap_or_default();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let prefix = if prefix.is_empty() {
        let name = match class.name.as_str() {
            "" => cluster.to_owned(),
            class => format!("{cluster}-{class}"),
        };
        // An own name may not hold the dot that ends it.
        name.chars()
            .map(|c| if legal(c) && c != '.' { c } else { '-' })
            .collect()
    } else {
        prefix
    };
    if prefix.len() > 200 || !prefix.chars().all(legal) {
        root.problem(
            "entryIDPrefix",
            "use up to 200 of A-Z, a-z, 0-9, `.`, `_` and `-`",
        );
    }
    let cleanup = root.get::<String>("entryIDPrefixCleanup");
    let dotted = |prefix: String| {
        if prefix.is_empty() || prefix.ends_with('.') {
            prefix
        } else {
            prefix + "."
        }
    };
    let rule = OwnershipRule {
        prefix: dotted(prefix),
        cleanup: cleanup.map(dotted),
    };
    if rule.cleanup.as_ref() == Some(&rule.prefix) {
        root.problem(
            "entryIDPrefixCleanup",
            "the same as the prefix in use; leave it out",
        );
    }
    rule
}

fn ignored(root: &mut Section, anchored: bool) -> Vec<Regex> {
    let default = || {
        ["kube-system", "kube-public", "spire-system"]
            .map(str::to_owned)
            .to_vec()
    };
    let patterns = root
        .get::<Vec<String>>("ignoreNamespaces")
        .unwrap_or_else(default);
    let mut all = Vec::new();
    for pattern in patterns {
        let written = if anchored {
            format!("^(?:{pattern})$")
        } else {
            pattern.clone()
        };
        match Regex::new(&written) {
            Ok(regex) => all.push(regex),
            Err(error) => root.problem(
                "ignoreNamespaces",
                format_args!("{pattern:?} is not a regular expression: {error}"),
            ),
        }
    }
    all
}

fn reconcile(root: &mut Section, from_files: bool) -> Reconcile {
    let mut section = root.section("reconcile");
    // An absent block handles everything; in a block, what is absent is off.
    let absent = !section.is_present();
    let spiffe_ids = section.get("clusterSPIFFEIDs").unwrap_or(absent);
    Reconcile {
        // Without Kubernetes there are no pods.
        spiffe_ids: spiffe_ids && !from_files,
        federated_trust_domains: section
            .get("clusterFederatedTrustDomains")
            .unwrap_or(absent),
        static_entries: section.get("clusterStaticEntries").unwrap_or(absent),
    }
}

fn leader_election(root: &mut Section) -> LeaderElection {
    let mut section = root.section("leaderElection");
    let mut span = |key, default| {
        section
            .get::<Span>(key)
            .map_or_else(|| Duration::from_secs(default), |span| span.0)
    };
    let (lease, renew_deadline, retry) = (
        span("leaseDuration", 15),
        span("renewDeadline", 10),
        span("retryPeriod", 2),
    );
    let election = LeaderElection {
        enabled: section.get("leaderElect").unwrap_or(false),
        name: section
            .get::<String>("resourceName")
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "signet-controller".to_owned()),
        namespace: section
            .get::<String>("resourceNamespace")
            .filter(|name| !name.is_empty()),
        lease,
        renew_deadline,
        retry,
    };
    if retry >= renew_deadline || renew_deadline >= lease {
        section.problem(
            "",
            "retryPeriod must be shorter than renewDeadline, and that shorter than leaseDuration",
        );
    }
    if section
        .get::<String>("resourceLock")
        .is_some_and(|lock| !matches!(lock.as_str(), "" | "leases"))
    {
        section.problem("resourceLock", "only \"leases\" will do");
    }
    section.ignore("leaderElectionReleaseOnCancel");
    section.ignore("leaderElectionReleaseOnCancelled");
    election
}

fn health(root: &mut Section) -> Option<SocketAddr> {
    let mut section = root.section("health");
    section.ignore("readinessEndpointName");
    section.ignore("livenessEndpointName");
    listen(&mut section, "healthProbeBindAddress")
}

fn address(root: &mut Section, block: &str, key: &str) -> Option<SocketAddr> {
    listen(&mut root.section(block), key)
}

/// `:8080`, `127.0.0.1:8080`; "0" and nothing mean none.
fn listen(section: &mut Section, key: &str) -> Option<SocketAddr> {
    let text = section
        .get::<String>(key)
        .filter(|text| !matches!(text.as_str(), "" | "0"))?;
    let full = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.replace("localhost:", "127.0.0.1:")
    };
    let address = full.parse().ok();
    if address.is_none() {
        section.problem(
            key,
            format_args!(
                "{text:?} will not do; give an address such as \":8080\" or \"127.0.0.1:8080\""
            ),
        );
    }
    address
}

fn webhook(root: &mut Section) -> Webhook {
    let name = root
        .get::<String>("validatingWebhookConfigurationName")
        .filter(|name| !name.is_empty());
    let mut section = root.section("webhook");
    section.ignore("certDir");
    Webhook {
        configuration: name.unwrap_or_else(|| "spire-controller-manager-webhook".to_owned()),
        address: SocketAddr::new(
            section
                .parse("host", str::parse::<IpAddr>)
                .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            section.get("port").unwrap_or(9443),
        ),
    }
}

fn cache_namespaces(root: &mut Section) -> Vec<String> {
    let all: Option<BTreeMap<String, Json>> = root.get("cacheNamespaces");
    all.into_iter().flatten().map(|(name, _)| name).collect()
}

fn mass_delete(section: &mut Section) -> MassDelete {
    let percent = section.get("massDeletePercent").unwrap_or(50_u8);
    if percent > 100 {
        section.problem("massDeletePercent", "give 0 to 100; 100 never holds back");
    }
    MassDelete {
        percent,
        at_least: section.get("massDeleteAtLeast").unwrap_or(100),
    }
}

/// A duration in Go's notation, or a whole number of nanoseconds, as charts write it.
struct Span(Duration);

impl Value for Span {
    fn expected() -> String {
        "a duration such as \"10s\", or nanoseconds".to_owned()
    }

    fn read(value: &Json) -> Option<Self> {
        let span = match value {
            Json::Number(number) => Duration::from_nanos(number.as_u64()?),
            other => Duration::read(other)?,
        };
        (!span.is_zero()).then_some(Self(span))
    }
}
