//! The server's configuration: `server.conf` in SPIRE's keys and blocks, typed, with every default and its reason.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use identity::{KeyType, SpiffeId, TrustDomain};

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
    /// Identities that may call as admins over TCP.
    pub admin_ids: Vec<SpiffeId>,
    /// What it issues and for how long.
    pub ca: CaConfig,
    /// The datastore.
    pub data_store: DataStore,
    /// Where keys are kept.
    pub key_manager: KeyManager,
    /// How agents may attest.
    pub node_attestors: NodeAttestors,
}

/// What is issued, with which keys, for how long.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug, Default)]
pub struct NodeAttestors {
    /// By join token.
    pub join_token: bool,
    /// By proof of possession of an X.509 certificate's key.
    pub x509pop: Option<X509pop>,
}

/// `NodeAttestor "x509pop"`.
#[derive(Clone, Debug)]
pub struct X509pop {
    /// PEM files with the CAs that agents' certificates must lead to.
    pub ca_bundle_paths: Vec<PathBuf>,
    /// Template of the agent's path, as `/x509pop/{{ .Fingerprint }}`.
    pub agent_path_template: Option<String>,
    /// Whether the certificates are SPIFFE SVIDs under `svid_prefix` instead of an external PKI's.
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
