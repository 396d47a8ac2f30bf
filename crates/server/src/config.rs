//! The server's configuration: `server.conf` in SPIRE's keys and blocks, typed, with every default and its reason.
//!
//! What SPIRE knows and this server does not do yet is refused, or accepted with a warning where leaving it out harms
//! nobody. What neither knows is refused. All mistakes are told in one run.

mod plugins;
mod server;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use identity::{KeyType, SpiffeId, TrustDomain};
use runtime::config::{Problems, Section, refuse, warn};
use runtime::log;

pub use runtime::config::{HealthListener, Telemetry};

/// Life of an authority: a day, as SPIRE's. Long enough for agents that were away, short enough to matter.
const DEFAULT_CA_TTL: Duration = Duration::from_hours(24);
/// Life of an X.509-SVID: an hour, as SPIRE's; agents renew at half of it.
const DEFAULT_X509_SVID_TTL: Duration = Duration::from_hours(1);
/// Life of a JWT-SVID: five minutes, as SPIRE's: a bearer token cannot be taken back.
const DEFAULT_JWT_SVID_TTL: Duration = Duration::from_mins(5);
/// P-256: every Envoy and every client takes it, and it signs fastest.
const DEFAULT_KEY_TYPE: KeyType = KeyType::EcP256;
/// All addresses, SPIRE's port: agents come from other machines.
const DEFAULT_BIND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8081);
/// SPIRE's path, which its tools and charts expect.
const DEFAULT_SOCKET_PATH: &str = "/tmp/spire-server/private/api.sock";
/// As SPIRE names its figures.
const FIGURES: &str = "spire_server";
/// Beside the working directory, as in SPIRE's examples.
const DEFAULT_DATA_DIR: &str = "./.data";

/// All the server is told, defaults applied.
#[derive(Clone, Debug)]
pub struct Config {
    /// The trust domain it issues for.
    pub trust_domain: TrustDomain,
    /// Where its files live.
    pub data_dir: PathBuf,
    /// The TCP endpoint.
    pub bind_address: SocketAddr,
    /// The private unix socket.
    pub socket_path: PathBuf,
    /// What the TCP endpoint's TLS allows.
    pub tls: TlsConfig,
    /// Identities that may call as admins over TCP.
    pub admin_ids: Vec<SpiffeId>,
    /// Log every call with its caller.
    pub audit_log: bool,
    /// Which calls are limited by client address.
    pub rate_limit: RateLimit,
    /// What it issues and for how long.
    pub ca: CaConfig,
    /// When agents that are gone are forgotten.
    pub prune_agents: Option<PruneAgents>,
    /// The datastore.
    pub data_store: DataStore,
    /// Where keys are kept.
    pub key_manager: KeyManager,
    /// How agents may attest.
    pub node_attestors: NodeAttestors,
    /// The program's log.
    pub log: log::Options,
    /// The figures it shows.
    pub telemetry: Telemetry,
    /// Health over HTTP.
    pub health: Option<HealthListener>,
    /// What was accepted and has no effect: a path and why, one line each.
    pub warnings: Vec<String>,
}

/// What the command line says, which wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `-bindAddress`.
    pub bind_address: Option<IpAddr>,
    /// `-serverPort`.
    pub bind_port: Option<u16>,
    /// `-socketPath`.
    pub socket_path: Option<PathBuf>,
    /// `-trustDomain`.
    pub trust_domain: Option<TrustDomain>,
    /// `-dataDir`.
    pub data_dir: Option<PathBuf>,
    /// `-logFile`.
    pub log_file: Option<PathBuf>,
    /// `-logFormat`.
    pub log_format: Option<log::Format>,
    /// `-logLevel`.
    pub log_level: Option<log::Level>,
}

/// What the TCP endpoint's TLS allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Allow TLS 1.2 besides 1.3, for old agents.
    pub allow_1_2: bool,
    /// Refuse clients without post-quantum key exchange.
    pub require_pq: bool,
}

/// Which calls are limited by client address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Attestations: one a second.
    pub attestation: bool,
    /// Issuing: 500 SVIDs a second.
    pub signing: bool,
}

/// What is issued, with which keys, for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaConfig {
    /// Life of an X.509 authority and of a JWT key.
    pub ca_ttl: Duration,
    /// Key of X.509 authorities and of the server's own SVID.
    pub ca_key_type: KeyType,
    /// Key of JWT authorities.
    pub jwt_key_type: KeyType,
    /// Subject of X.509 authorities.
    pub ca_subject: CaSubject,
    /// Life of X.509-SVIDs whose entry does not say.
    pub default_x509_svid_ttl: Duration,
    /// Life of JWT-SVIDs whose entry does not say.
    pub default_jwt_svid_ttl: Duration,
    /// Life of agents' SVIDs.
    pub agent_ttl: Duration,
    /// The `iss` claim of JWT-SVIDs.
    pub jwt_issuer: Option<String>,
    /// Issue no JWT-SVIDs, keep no JWT keys.
    pub disable_jwt_svids: bool,
}

/// Subject of X.509 authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSubject {
    /// C.
    pub country: Vec<String>,
    /// O.
    pub organization: Vec<String>,
    /// CN, left out when empty.
    pub common_name: String,
}

/// When agents that are gone are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneAgents {
    /// So long after their SVID expired.
    pub expired_for: Duration,
    /// Also those that cannot attest again by the same means.
    pub non_reattestable: bool,
    /// At most so many in one transaction.
    pub batch_size: u32,
}

/// The datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataStore {
    /// SQLite in a file.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
}

/// Where keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyManager {
    /// In memory: new authorities with every start.
    Memory,
    /// In a file.
    Disk {
        /// The file.
        keys_path: PathBuf,
    },
}

/// How agents may attest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAttestors {
    /// By join token.
    pub join_token: bool,
    /// By proof of possession of an X.509 certificate's key.
    pub x509pop: Option<X509pop>,
    /// By a Kubernetes service account's token.
    pub k8s_psat: Option<K8sPsat>,
}

/// `NodeAttestor "x509pop"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509pop {
    /// PEM files with the CAs that agents' certificates must lead to; empty in the mode `spiffe`.
    pub ca_bundle_paths: Vec<PathBuf>,
    /// Template of the agent's path, such as `/x509pop/{{ .Fingerprint }}`.
    pub agent_path_template: Option<String>,
    /// Which certificates it takes.
    pub mode: X509popMode,
    /// The most intermediates that are looked at.
    pub max_intermediates: usize,
    /// The largest RSA key, in bits.
    pub max_rsa_key_size: usize,
}

/// Which certificates x509pop takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum X509popMode {
    /// Those of an external PKI.
    ExternalPki,
    /// X.509-SVIDs of our own trust domain below a path.
    Spiffe {
        /// Such as `/spire-exchange/`.
        svid_prefix: String,
    },
}

/// `NodeAttestor "k8s_psat"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct K8sPsat {
    /// The clusters whose tokens are taken, by the name that agents give them.
    pub clusters: BTreeMap<String, K8sCluster>,
}

/// One cluster whose tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct K8sCluster {
    /// Service accounts that agents run as, `<namespace>:<name>`.
    pub service_account_allow_list: Vec<String>,
    /// For whom tokens must be issued, one of these; empty: for the API server itself.
    pub audience: Vec<String>,
    /// Where the API server is and how to ask it; `None`: as a pod does.
    pub kube_config_file: Option<PathBuf>,
    /// Labels of nodes that become selectors.
    pub allowed_node_label_keys: Vec<String>,
    /// Labels of agents' pods that become selectors.
    pub allowed_pod_label_keys: Vec<String>,
    /// Name agents by their pod's UID rather than by their node's.
    pub use_pod_uid_for_agent_id: bool,
}

impl Config {
    /// Reads `server.conf`, HCL or JSON. With `environment`, `$NAME` and `${NAME}` stand for its values.
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
    let server = server::read(
        &mut root.required_section("server"),
        overrides,
        &mut warnings,
    );
    let data_dir = server.as_ref().map_or_else(
        || PathBuf::from(DEFAULT_DATA_DIR),
        |server| server.data_dir.clone(),
    );
    let plugins = plugins::read(&mut root.section("plugins"), &data_dir);
    let telemetry = Telemetry::read(&mut root.section("telemetry"), FIGURES, &mut warnings);
    let health = HealthListener::read(&mut root.section("health_checks"));
    let plugins = plugins?;
    Some(Config {
        data_store: plugins.data_store,
        key_manager: plugins.key_manager,
        node_attestors: plugins.node_attestors,
        telemetry: telemetry?,
        health: health?,
        warnings,
        ..server?
    })
}

#[cfg(test)]
mod tests;
