//! The agent's configuration: `agent.conf` in SPIRE's keys and blocks, typed, with every default and its reason.
//!
//! What SPIRE knows and this agent does not do is refused, or accepted with a warning where leaving it
//! out harms nobody. What neither knows is refused. All mistakes are told in one run.

mod agent;
mod attestors;
mod k8s;
mod plugins;
mod sds;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use identity::{KeyType, SpiffeId, TrustDomain};
use runtime::{
    config::{Problems, Section, refuse, warn},
    log,
};
use zeroize::Zeroizing;

pub use runtime::config::{HealthListener, Telemetry};

use crate::sds::AllowList;

pub use attestors::{
    K8sAttestorConfig, KubeletAuth, KubeletPort, UnixAttestorConfig, WorkloadAttestors,
};

/// SPIRE's path, which its tools and charts expect.
const DEFAULT_SOCKET_PATH: &str = "/tmp/spire-agent/public/api.sock";
/// As SPIRE names its figures.
const FIGURES: &str = "spire_agent";
/// Beside the working directory, as in SPIRE's examples.
const DEFAULT_DATA_DIR: &str = ".";
/// SPIRE's interval: the server is asked for changes this often.
const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// Long enough for an entry to be written by hand; then Envoy's own retries take over.
const DEFAULT_HOLD_MAX: Duration = Duration::from_mins(10);
/// Envoy accepts a bundle within milliseconds; who takes this long does not answer at all.
const DEFAULT_AUTHORITY_ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// SPIRE's number: an SVID with its key is about 2 KiB.
const DEFAULT_CACHE_SIZE: usize = 1000;

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
    /// The figures it shows.
    pub telemetry: Telemetry,
    /// Health over HTTP.
    pub health: Option<HealthListener>,
    /// The program's log.
    pub log: log::Options,
    /// What was accepted and has no effect: a path and why, one line each.
    pub warnings: Vec<String>,
}

/// What the command line says, which wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `-serverAddress`.
    pub server_address: Option<String>,
    /// `-serverPort`.
    pub server_port: Option<u16>,
    /// `-socketPath`.
    pub socket_path: Option<PathBuf>,
    /// `-trustDomain`.
    pub trust_domain: Option<TrustDomain>,
    /// `-trustBundle`.
    pub trust_bundle_path: Option<PathBuf>,
    /// `-trustBundleUrl`.
    pub trust_bundle_url: Option<String>,
    /// `-trustBundleFormat`.
    pub trust_bundle_format: Option<BundleFormat>,
    /// `-insecureBootstrap`.
    pub insecure_bootstrap: Option<bool>,
    /// `-joinToken`.
    pub join_token: Option<JoinToken>,
    /// `-joinTokenFile`.
    pub join_token_file: Option<PathBuf>,
    /// `-dataDir`.
    pub data_dir: Option<PathBuf>,
    /// `-logFile`.
    pub log_file: Option<PathBuf>,
    /// `-logFormat`.
    pub log_format: Option<log::Format>,
    /// `-logLevel`.
    pub log_level: Option<log::Level>,
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
    X509Pop(X509PopFiles),
    /// A Kubernetes service account's token.
    K8sPsat {
        /// The cluster's name at the server.
        cluster: String,
        /// File of the projected token.
        token_path: PathBuf,
    },
}

/// An existing X.509 certificate and its key, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509PopFiles {
    /// The key.
    pub private_key_path: PathBuf,
    /// The certificate, and the chain behind it.
    pub certificate_path: PathBuf,
    /// Further intermediates.
    pub intermediates_path: Option<PathBuf>,
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
    /// The hint of the identity that a workload's default name stands for.
    pub default_svid_hint: Option<String>,
    /// By name, which peers a validation context of that name lets in.
    pub allow_lists: BTreeMap<String, Arc<AllowList>>,
    /// After how long a stream ends that could not be given anything; zero: never.
    pub hold_max: Duration,
    /// For how long certificates of a new authority wait at most until all Envoys have accepted it; zero: not at all.
    pub authority_ack_timeout: Duration,
    /// Whether an Envoy whose workload may no longer have a bundle is told to trust nobody.
    pub deny_when_revoked: bool,
}

impl Default for SdsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            default_svid_name: "default".to_owned(),
            default_bundle_name: "ROOTCA".to_owned(),
            default_all_bundles_name: "ALL".to_owned(),
            disable_spiffe_cert_validation: false,
            default_svid_hint: None,
            allow_lists: BTreeMap::new(),
            hold_max: DEFAULT_HOLD_MAX,
            authority_ack_timeout: DEFAULT_AUTHORITY_ACK_TIMEOUT,
            deny_when_revoked: false,
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

impl Config {
    /// Reads `agent.conf`, HCL or JSON. With `environment`, `$NAME` and `${NAME}` stand for its values.
    ///
    /// # Errors
    /// Every mistake of the file, each with its path.
    pub fn parse(
        text: &str,
        environment: Option<&BTreeMap<String, String>>,
        overrides: Overrides,
    ) -> Result<Self, Problems> {
        runtime::config::read(text, environment, |root| read(root, overrides))
    }
}

fn read(root: &mut Section, overrides: Overrides) -> Option<Config> {
    let mut warnings = Vec::new();
    let agent = agent::read(
        &mut root.required_section("agent"),
        overrides,
        &mut warnings,
    );
    let plugins = plugins::read(&mut root.section("plugins"), agent.as_ref());
    let telemetry = Telemetry::read(&mut root.section("telemetry"), FIGURES, &mut warnings);
    let health = HealthListener::read(&mut root.section("health_checks"));
    let plugins = plugins?;
    Some(Config {
        node_attestor: plugins.node_attestor,
        key_manager: plugins.key_manager,
        workload_attestors: plugins.workload_attestors,
        telemetry: telemetry?,
        health: health?,
        warnings,
        ..agent?
    })
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

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests;
