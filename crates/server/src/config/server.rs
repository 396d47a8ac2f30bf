//! The block `server`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use identity::{KeyType, SpiffeId, TrustDomain};
use runtime::config::Section;
use runtime::log;

use super::{
    CaConfig, CaSubject, Config, DEFAULT_BIND, DEFAULT_CA_TTL, DEFAULT_DATA_DIR,
    DEFAULT_JWT_SVID_TTL, DEFAULT_KEY_TYPE, DEFAULT_SOCKET_PATH, DEFAULT_X509_SVID_TTL, DataStore,
    FIGURES, KeyManager, NodeAttestors, Overrides, PruneAgents, RateLimit, Telemetry, TlsConfig,
    refuse, warn,
};

const KEY_TYPES: &[(&str, KeyType)] = &[
    ("rsa-2048", KeyType::Rsa2048),
    ("rsa-4096", KeyType::Rsa4096),
    ("ec-p256", KeyType::EcP256),
    ("ec-p384", KeyType::EcP384),
];

/// Certificates count whole seconds: in a shorter life the next authority would be due before it is there.
const LEAST_CA_TTL: Duration = Duration::from_secs(6);

/// SPIRE's: as many agents are forgotten in one transaction.
const DEFAULT_PRUNE_BATCH: u32 = 1000;

/// Reads the block; plugins, telemetry and health are left for the caller to fill in.
pub(super) fn read(
    server: &mut Section,
    overrides: Overrides,
    warnings: &mut Vec<String>,
) -> Option<Config> {
    let trust_domain = trust_domain(server, overrides.trust_domain);
    let bind_address = SocketAddr::new(
        or(overrides.bind_address, server.get("bind_address")).unwrap_or(DEFAULT_BIND.ip()),
        or(overrides.bind_port, server.get("bind_port")).unwrap_or(DEFAULT_BIND.port()),
    );
    let socket_path = or(overrides.socket_path, server.get("socket_path"))
        .unwrap_or_else(|| DEFAULT_SOCKET_PATH.into());
    let data_dir =
        or(overrides.data_dir, server.get("data_dir")).unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    let admin_ids = admin_ids(server);
    let audit_log = server.get("audit_log_enabled").unwrap_or(false);
    let rate_limit = rate_limit(&mut server.section("ratelimit"));
    let log = log::Options {
        level: or(overrides.log_level, server.parse("log_level", str::parse)).unwrap_or_default(),
        format: or(
            overrides.log_format,
            server.choice(
                "log_format",
                &[("text", log::Format::Text), ("json", log::Format::Json)],
            ),
        )
        .unwrap_or_default(),
        file: or(overrides.log_file, server.get("log_file")),
    };
    let ca = ca(server, warnings);
    let prune_agents = prune_agents(server);
    let tls = TlsConfig {
        allow_1_2: server
            .choice("tls_min_version", &[("1.3", false), ("1.2", true)])
            .unwrap_or(false),
        require_pq: experimental(&mut server.section("experimental"), warnings),
    };
    not_ours(server, warnings);
    Some(Config {
        trust_domain: trust_domain?,
        data_dir,
        bind_address,
        socket_path,
        tls,
        admin_ids,
        audit_log,
        rate_limit,
        ca,
        prune_agents,
        data_store: DataStore::Sqlite {
            path: PathBuf::new(),
        },
        key_manager: KeyManager::Memory,
        node_attestors: NodeAttestors::default(),
        log,
        telemetry: Telemetry::new(FIGURES),
        health: None,
        warnings: Vec::new(),
    })
}

/// The command line's value if it gave one; the file's is read in any case, so that its mistakes show.
fn or<T>(overriding: Option<T>, file: Option<T>) -> Option<T> {
    overriding.or(file)
}

fn trust_domain(server: &mut Section, overriding: Option<TrustDomain>) -> Option<TrustDomain> {
    match overriding {
        Some(trust_domain) => {
            server.ignore("trust_domain");
            Some(trust_domain)
        }
        None => server.required_parse("trust_domain", TrustDomain::parse),
    }
}

fn admin_ids(server: &mut Section) -> Vec<SpiffeId> {
    let mut ids = Vec::new();
    for text in server.get::<Vec<String>>("admin_ids").unwrap_or_default() {
        match SpiffeId::parse(&text) {
            Ok(id) => ids.push(id),
            Err(error) => server.problem("admin_ids", format_args!("\"{text}\": {error}")),
        }
    }
    ids
}

fn rate_limit(section: &mut Section) -> RateLimit {
    RateLimit {
        attestation: section.get("attestation").unwrap_or(true),
        signing: section.get("signing").unwrap_or(true),
    }
}

fn ca(server: &mut Section, warnings: &mut Vec<String>) -> CaConfig {
    let ca_key_type = server.choice("ca_key_type", KEY_TYPES);
    let jwt_key_type = server.choice("jwt_key_type", KEY_TYPES);
    let mut ca_ttl = ttl(server, "ca_ttl").unwrap_or(DEFAULT_CA_TTL);
    if ca_ttl < LEAST_CA_TTL {
        server.problem("ca_ttl", "give at least \"6s\"");
        ca_ttl = DEFAULT_CA_TTL;
    }
    let default_x509_svid_ttl =
        ttl(server, "default_x509_svid_ttl").unwrap_or(DEFAULT_X509_SVID_TTL);
    let default_jwt_svid_ttl = ttl(server, "default_jwt_svid_ttl").unwrap_or(DEFAULT_JWT_SVID_TTL);
    let agent_ttl = ttl(server, "agent_ttl").unwrap_or(default_x509_svid_ttl);
    for (key, asked) in [
        ("default_x509_svid_ttl", default_x509_svid_ttl),
        ("default_jwt_svid_ttl", default_jwt_svid_ttl),
        ("agent_ttl", agent_ttl),
    ] {
        let sure = guaranteed(ca_ttl);
        if asked > sure {
            warnings.push(format!(
                "{}.{key} of {asked:?} is not always reached: with a ca_ttl of {ca_ttl:?} an SVID may end after {sure:?}; \
                 give a ca_ttl of at least six times as much",
                server.path()
            ));
        }
    }
    CaConfig {
        ca_ttl,
        ca_key_type: ca_key_type.unwrap_or(DEFAULT_KEY_TYPE),
        jwt_key_type: jwt_key_type.or(ca_key_type).unwrap_or(DEFAULT_KEY_TYPE),
        ca_subject: ca_subject(&mut server.section("ca_subject")),
        default_x509_svid_ttl,
        default_jwt_svid_ttl,
        agent_ttl,
        jwt_issuer: server.get("jwt_issuer"),
        disable_jwt_svids: server.get("disable_jwt_svids").unwrap_or(false),
    }
}

/// How long an SVID lives at least, however late in its authority's life it is issued.
fn guaranteed(ca_ttl: Duration) -> Duration {
    (ca_ttl / 6).min(Duration::from_hours(7 * 24))
}

/// A life of at least one second.
fn ttl(server: &mut Section, key: &str) -> Option<Duration> {
    let ttl: Duration = server.get(key)?;
    if ttl < Duration::from_secs(1) {
        server.problem(key, "give at least \"1s\"");
        return None;
    }
    Some(ttl)
}

fn ca_subject(section: &mut Section) -> CaSubject {
    if section.is_present() {
        return CaSubject {
            country: section.get("country").unwrap_or_default(),
            organization: section.get("organization").unwrap_or_default(),
            common_name: section.get("common_name").unwrap_or_default(),
        };
    }
    CaSubject {
        country: vec!["US".into()],
        organization: vec!["SPIFFE".into()],
        common_name: String::new(),
    }
}

fn prune_agents(server: &mut Section) -> Option<PruneAgents> {
    let batch_size = match server.get("prune_attested_nodes_batch_size") {
        Some(0_u32) => {
            server.problem("prune_attested_nodes_batch_size", "give at least 1");
            return None;
        }
        given => given.unwrap_or(DEFAULT_PRUNE_BATCH),
    };
    let non_reattestable = server.get("prune_tofu_nodes").unwrap_or(false);
    let expired_for: Duration = server.get("prune_attested_nodes_expired_for")?;
    Some(PruneAgents {
        expired_for,
        non_reattestable,
        batch_size,
    })
}

/// Tells whether post-quantum key exchange is required.
fn experimental(section: &mut Section, warnings: &mut Vec<String>) -> bool {
    const FOLLOWED: &str = "changes of entries are followed as they happen";
    for key in [
        "cache_reload_interval",
        "event_timeout",
        "events_based_cache",
        "full_cache_reload_interval",
        "prune_events_older_than",
    ] {
        warn(section, key, FOLLOWED, warnings);
    }
    warn(section, "sql_transaction_timeout", FOLLOWED, warnings);
    warn(
        section,
        "named_pipe_name",
        "there are no named pipes here",
        warnings,
    );
    warn(
        section,
        "feature_flags",
        "no features are behind flags",
        warnings,
    );
    refuse(
        section,
        "auth_opa_policy_engine",
        "leave it out; who may call what is fixed, see docs/server.md",
    );
    // Every agent has that selector.
    section.ignore("agent_spiffe_id_as_selector");
    refuse(
        section,
        "wit_key_type",
        "leave it out; no WIT-SVIDs are issued",
    );
    section.get("require_pq_kem").unwrap_or(false)
}

/// What SPIRE knows beyond the above.
fn not_ours(server: &mut Section, warnings: &mut Vec<String>) {
    const PROFILING: &str = "there is no profiling endpoint";
    for key in [
        "profiling_enabled",
        "profiling_port",
        "profiling_freq",
        "profiling_names",
    ] {
        warn(server, key, PROFILING, warnings);
    }
    warn(
        server,
        "federation",
        "bundles are neither served nor fetched yet; relationships are kept by the TrustDomain API",
        warnings,
    );
    warn(
        server,
        "log_selectors",
        "selectors are never logged",
        warnings,
    );
    warn(
        server,
        "log_source_location",
        "lines name their module instead",
        warnings,
    );
    warn(
        server,
        "max_attested_node_info_staleness",
        "agents are looked up at each call",
        warnings,
    );
    refuse(
        server,
        "proxy_protocol_trusted_cidrs",
        "leave it out, and let the load balancer keep client addresses, or turn off ratelimit",
    );
}
