//! The agent's configuration, typed. SPIRE's `agent.conf` as it is written becomes this.

use std::{path::PathBuf, time::Duration};

use identity::{KeyType, SpiffeId, TrustDomain};
use zeroize::Zeroizing;

/// Everything an agent is told. Nothing is optional that the agent needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agent's and its server's trust domain.
    pub trust_domain: TrustDomain,
    /// Where the server is.
    pub server: ServerAddress,
    /// Where the agent keeps its SVID, keys and cache. Made with mode 0700.
    pub data_dir: PathBuf,
    /// The public socket, on which Workload API and SDS are served.
    pub socket_path: PathBuf,
    /// The first trust in the server.
    pub bootstrap: Bootstrap,
    /// How the agent proves its node.
    pub node_attestor: NodeAttestor,
    /// Where the agent's own key is kept.
    pub key_manager: KeyManager,
    /// How workloads are told apart.
    pub workload_attestors: WorkloadAttestors,
    /// The names by which Envoy asks.
    pub sds: SdsConfig,
    /// What the Workload API allows.
    pub workload_api: WorkloadApiConfig,
    /// How often the server is asked for changes.
    pub sync_interval: Duration,
    /// The type of workloads' X.509-SVID keys.
    pub workload_key_type: KeyType,
    /// How many X.509-SVIDs are kept for which nobody waits.
    pub x509_svid_cache_max_size: usize,
    /// How many JWT-SVIDs are kept.
    pub jwt_svid_cache_max_size: usize,
    /// The least time for which every X.509-SVID must hold out when the server goes away; at least a day.
    pub availability_target: Option<Duration>,
    /// Whether workloads' SVIDs are kept, sealed, over a restart.
    pub keep_svids: bool,
    /// Host and port where Prometheus may read metrics.
    pub metrics: Option<String>,
    /// Where `/live` and `/ready` are answered.
    pub health: Option<HealthConfig>,
    /// How the agent logs.
    pub log: LogConfig,
}

/// The server's host (a name or an address) and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Name, IPv4 or IPv6 address (without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Where the first trust comes from. Once the agent has a bundle of its own, that counts instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// A bundle in a file.
    File {
        /// Where.
        path: PathBuf,
        /// How it is written.
        format: BundleFormat,
    },
    /// A bundle behind an `https` URL, proven by Web PKI.
    Url {
        /// Where.
        url: String,
        /// How it is written.
        format: BundleFormat,
    },
    /// Whoever answers first is trusted, and from then on nobody else.
    Insecure,
}

/// How a bundle is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleFormat {
    /// CA certificates as PEM.
    Pem,
    /// A SPIFFE bundle: a JWK set.
    Spiffe,
}

/// One node attestor.
#[derive(Debug, Clone)]
pub enum NodeAttestor {
    /// A token good for one attestation; without one only a stored SVID helps.
    JoinToken(Option<JoinToken>),
    /// An existing X.509 certificate and its key.
    X509Pop {
        /// PEM file of the key.
        private_key_path: PathBuf,
        /// PEM file of the certificate, and of the chain behind it.
        certificate_path: PathBuf,
        /// PEM file of further intermediates.
        intermediates_path: Option<PathBuf>,
    },
}

/// A join token: a secret.
#[derive(Clone)]
pub struct JoinToken(Zeroizing<String>);

/// Where the agent's own key lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyManager {
    /// Nowhere but here: a restart attests anew.
    Memory,
    /// In a file of this folder.
    Disk {
        /// The folder.
        directory: PathBuf,
    },
}

/// The workload attestors in use.
#[derive(Debug, Clone, Default)]
pub struct WorkloadAttestors {
    /// `unix`: by user, group and program.
    pub unix: Option<UnixAttestorConfig>,
}

/// What `unix` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixAttestorConfig {
    /// Whether `unix:path` and `unix:sha256` are found out.
    pub discover_workload_path: bool,
    /// Up to how large a program is hashed, in bytes; `None`: of any size; `Some(0)`: never.
    pub workload_size_limit: Option<u64>,
}

/// The names by which Envoy asks, and what it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdsConfig {
    /// Whether SDS is served at all.
    pub enabled: bool,
    /// Names the first identity's certificate.
    pub default_svid_name: String,
    /// Names the own trust domain's bundle.
    pub default_bundle_name: String,
    /// Names all bundles at once.
    pub default_all_bundles_name: String,
    /// Whether bundles are sent as plain CA lists instead of for Envoy's SPIFFE validator.
    pub disable_spiffe_cert_validation: bool,
}

impl Default for SdsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            default_svid_name: "default".to_owned(),
            default_bundle_name: "ROOTCA".to_owned(),
            default_all_bundles_name: "ALL".to_owned(),
            disable_spiffe_cert_validation: false,
        }
    }
}

/// What the Workload API allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadApiConfig {
    /// Whether it is served at all.
    pub enabled: bool,
    /// Whether callers without an identity may fetch bundles.
    pub allow_unauthenticated_verifiers: bool,
    /// Which claims of a foreign trust domain's JWT-SVID the caller may see, besides `sub`, `aud` and `exp`.
    pub allowed_foreign_jwt_claims: Vec<String>,
    /// Who may call the delegated identity API.
    pub authorized_delegates: Vec<SpiffeId>,
}

impl Default for WorkloadApiConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            allow_unauthenticated_verifiers: false,
            allowed_foreign_jwt_claims: Vec::new(),
            authorized_delegates: Vec::new(),
        }
    }
}

/// The health listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// Host and port to listen on, `localhost:80` unless said otherwise.
    pub address: String,
    /// Path of the liveness probe.
    pub live_path: String,
    /// Path of the readiness probe.
    pub ready_path: String,
}

/// How the agent logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// JSON lines instead of text.
    pub json: bool,
    /// A file instead of standard error.
    pub file: Option<PathBuf>,
}

impl JoinToken {
    /// Takes a token.
    #[must_use]
    pub fn new(token: String) -> Self {
        Self(Zeroizing::new(token))
    }

    /// The token itself.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinToken(<redacted>)")
    }
}
