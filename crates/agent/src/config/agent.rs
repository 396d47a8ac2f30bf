//! The block `agent`.

use std::{path::PathBuf, time::Duration};

use identity::{KeyType, SpiffeId, TrustDomain};
use runtime::{config::Section, log};

use super::{
    Bootstrap, BundleFormat, Config, DEFAULT_CACHE_SIZE, DEFAULT_DATA_DIR, DEFAULT_SOCKET_PATH,
    DEFAULT_SYNC_INTERVAL, FIGURES, JoinToken, KeyManager, NodeAttestor, Overrides, ServerAddress,
    Telemetry, WorkloadApiConfig, WorkloadAttestors, refuse, sds, warn,
};

/// Below this the target would have SVIDs renewed all the time (SPIRE's bound).
const LEAST_AVAILABILITY: Duration = Duration::from_hours(24);

/// Reads the block; the rest is left for the caller to fill in. The node attestor is the join token, if there is one.
pub(super) fn read(
    agent: &mut Section,
    mut overrides: Overrides,
    warnings: &mut Vec<String>,
) -> Option<Config> {
    let trust_domain = match overrides.trust_domain.take() {
        Some(given) => {
            agent.ignore("trust_domain");
            Some(given)
        }
        None => agent.required_parse("trust_domain", TrustDomain::new),
    };
    let server = server(agent, &mut overrides);
    let bootstrap = bootstrap(agent, &mut overrides);
    let join_token = join_token(agent, &mut overrides);
    let data_dir = or(overrides.data_dir, agent.get("data_dir"));
    let socket_path = or(overrides.socket_path, agent.get("socket_path"));
    let log = log::Options {
        level: or(overrides.log_level, agent.parse("log_level", str::parse)).unwrap_or_default(),
        format: or(
            overrides.log_format,
            agent.choice(
                "log_format",
                &[("text", log::Format::Text), ("json", log::Format::Json)],
            ),
        )
        .unwrap_or_default(),
        file: or(overrides.log_file, agent.get("log_file")),
    };
    let sds = sds::read(agent);
    let workload_api = workload_api(agent);
    let availability_target = availability_target(agent);
    let key_type = agent.parse("workload_x509_svid_key_type", str::parse::<KeyType>);
    let x509_size = cache_size(agent, "x509_svid_cache_max_size");
    let jwt_size = cache_size(agent, "jwt_svid_cache_max_size");
    let keep_svids = agent.get("keep_svids").unwrap_or(true);
    let sync_interval = experimental(&mut agent.section("experimental"), warnings);
    without_effect(agent, warnings);
    Some(Config {
        trust_domain: trust_domain?,
        server: server?,
        data_dir: data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
        socket_path: socket_path.unwrap_or_else(|| DEFAULT_SOCKET_PATH.into()),
        bootstrap: bootstrap?,
        node_attestor: NodeAttestor::JoinToken(join_token?),
        key_manager: KeyManager::Memory,
        workload_attestors: WorkloadAttestors::default(),
        sds,
        workload_api: workload_api?,
        sync_interval: sync_interval?,
        workload_key_type: key_type.unwrap_or_default(),
        x509_svid_cache_max_size: x509_size?,
        jwt_svid_cache_max_size: jwt_size?,
        availability_target: availability_target?,
        keep_svids,
        telemetry: Telemetry::new(FIGURES),
        health: None,
        log,
        warnings: Vec::new(),
    })
}

fn server(agent: &mut Section, overrides: &mut Overrides) -> Option<ServerAddress> {
    let host = match overrides.server_address.take() {
        Some(given) => {
            agent.ignore("server_address");
            Some(given)
        }
        None => agent.required::<String>("server_address"),
    };
    let port = match overrides.server_port {
        Some(given) => {
            agent.ignore("server_port");
            Some(given)
        }
        None => agent.required::<u16>("server_port"),
    };
    let host = host?;
    let host = host.strip_prefix('[').map_or(host.as_str(), |inner| {
        inner.strip_suffix(']').unwrap_or(inner)
    });
    if host.is_empty() || host.contains(['/', ' ']) {
        let expected = "give a host name or an IP address, without scheme and port";
        agent.problem("server_address", expected);
        return None;
    }
    Some(ServerAddress {
        host: host.to_owned(),
        port: port?,
    })
}

fn bootstrap(agent: &mut Section, overrides: &mut Overrides) -> Option<Bootstrap> {
    let path = or(
        overrides.trust_bundle_path.take(),
        agent.get("trust_bundle_path"),
    );
    let url: Option<String> = or(
        overrides.trust_bundle_url.take(),
        agent.get("trust_bundle_url"),
    );
    let format = or(
        overrides.trust_bundle_format,
        agent.choice(
            "trust_bundle_format",
            &[("pem", BundleFormat::Pem), ("spiffe", BundleFormat::Spiffe)],
        ),
    );
    let insecure = or(
        overrides.insecure_bootstrap,
        agent.get("insecure_bootstrap"),
    );
    for key in [
        "trust_bundle_unix_socket",
        "trust_bundle_spiffe_workload_api",
    ] {
        refuse(agent, key, "use trust_bundle_path or trust_bundle_url");
    }
    let format = format.unwrap_or(BundleFormat::Pem);
    match (path, url, insecure.unwrap_or(false)) {
        (Some(path), None, false) => Some(Bootstrap::File { path, format }),
        (None, Some(url), false) => {
            if !url.starts_with("https://") {
                agent.problem("trust_bundle_url", "give a URL that starts with https://");
                return None;
            }
            Some(Bootstrap::Url { url, format })
        }
        (None, None, true) => Some(Bootstrap::Insecure),
        (None, None, false) => {
            agent.problem(
                "trust_bundle_path",
                "missing: the agent cannot know its server; give trust_bundle_path, trust_bundle_url, or, to try things \
                 out, insecure_bootstrap = true",
            );
            None
        }
        _ => {
            agent.problem(
                "trust_bundle_path",
                "give only one of trust_bundle_path, trust_bundle_url and insecure_bootstrap",
            );
            None
        }
    }
}

/// `Some(None)`: there is none.
fn join_token(agent: &mut Section, overrides: &mut Overrides) -> Option<Option<JoinToken>> {
    let given = overrides.join_token.take();
    let written = agent
        .get::<String>("join_token")
        .filter(|text| !text.is_empty());
    let token = or(given, written.map(JoinToken::new));
    let file: Option<PathBuf> = or(
        overrides.join_token_file.take(),
        agent.get("join_token_file"),
    );
    match (token, file) {
        (Some(_), Some(_)) => {
            agent.problem(
                "join_token",
                "give only one of join_token and join_token_file",
            );
            None
        }
        (Some(token), None) => Some(Some(token)),
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) => Some(Some(JoinToken::new(text.trim().to_owned()))),
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                agent.problem("join_token_file", message);
                None
            }
        },
        (None, None) => Some(None),
    }
}

fn workload_api(agent: &mut Section) -> Option<WorkloadApiConfig> {
    let disabled: Option<bool> = agent.get("disable_workload_api");
    let unauthenticated = agent.get("allow_unauthenticated_verifiers");
    let claims = agent.get("allowed_foreign_jwt_claims");
    let delegates: Vec<String> = agent.get("authorized_delegates").unwrap_or_default();
    let mut authorized = Vec::new();
    let mut sound = true;
    for delegate in &delegates {
        match SpiffeId::parse(delegate) {
            Ok(id) => authorized.push(id),
            Err(error) => {
                agent.problem(
                    "authorized_delegates",
                    format_args!("{delegate:?}: {error}"),
                );
                sound = false;
            }
        }
    }
    sound.then_some(WorkloadApiConfig {
        enabled: !disabled.unwrap_or(false),
        allow_unauthenticated_verifiers: unauthenticated.unwrap_or(false),
        allowed_foreign_jwt_claims: claims.unwrap_or_default(),
        authorized_delegates: authorized,
    })
}

fn availability_target(agent: &mut Section) -> Option<Option<Duration>> {
    let target: Option<Duration> = agent.get("availability_target");
    if target.is_some_and(|target| target < LEAST_AVAILABILITY) {
        agent.problem(
            "availability_target",
            "give at least \"24h\", or leave it out",
        );
        return None;
    }
    Some(target)
}

fn cache_size(agent: &mut Section, key: &str) -> Option<usize> {
    let size = agent.get::<i64>(key).unwrap_or(0);
    match usize::try_from(size) {
        // SPIRE's meaning of 0.
        Ok(0) => Some(DEFAULT_CACHE_SIZE),
        Ok(size) => Some(size),
        Err(_) => {
            agent.problem(key, "give a number above 0");
            None
        }
    }
}

fn experimental(experimental: &mut Section, warnings: &mut Vec<String>) -> Option<Duration> {
    let interval = experimental.get("sync_interval");
    if experimental.get("use_sync_authorized_entries") == Some(false) {
        let instead = "leave it out; entries are always synced by their revisions";
        experimental.problem("use_sync_authorized_entries", instead);
    }
    let why = "X25519MLKEM768 is offered first, and whether it is demanded is the server's say";
    warn(experimental, "require_pq_kem", why, warnings);
    for key in ["named_pipe_name", "admin_named_pipe_name"] {
        warn(experimental, key, "there are no named pipes here", warnings);
    }
    refuse(experimental, "broker", "leave it out");
    let instead = "leave it out; the socket limits connections and streams per user";
    refuse(experimental, "ratelimit", instead);
    if interval.is_some_and(|interval: Duration| interval.is_zero()) {
        experimental.problem("sync_interval", "give a time above 0, for example \"5s\"");
        return None;
    }
    Some(interval.unwrap_or(DEFAULT_SYNC_INTERVAL))
}

fn without_effect(agent: &mut Section, warnings: &mut Vec<String>) {
    let delegated = "leave it out; the delegated identity API is not served yet";
    refuse(agent, "admin_socket_path", delegated);
    let always = "the agent tries again until the server answers";
    warn(agent, "retry_bootstrap", always, warnings);
    let rebootstrap =
        "new authorities in trust_bundle_path or trust_bundle_url are taken up as needed";
    warn(agent, "rebootstrap_mode", rebootstrap, warnings);
    warn(agent, "rebootstrap_delay", rebootstrap, warnings);
    warn(
        agent,
        "log_source_location",
        "logs name the module",
        warnings,
    );
    warn(
        agent,
        "log_selectors",
        "selectors are logged at level debug",
        warnings,
    );
    for key in [
        "profiling_enabled",
        "profiling_freq",
        "profiling_names",
        "profiling_port",
    ] {
        warn(agent, key, "profile the process with perf", warnings);
    }
}

fn or<T>(given: Option<T>, written: Option<T>) -> Option<T> {
    given.or(written)
}
