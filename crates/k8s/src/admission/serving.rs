//! The certificate a webhook shows, from our own server, held in memory and changed without a dropped connection.
//!
//! A certificate under a new root is shown only once that root is in the `caBundle` the API server goes by.

mod gate;
mod source;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{SpiffeId, X509Svid};
use kube::Client;
use runtime::{Clock, Metrics, Readiness, Tasks};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use tokio::sync::watch;

use super::ca_bundle::{Roots, Target, keep};

/// What is shown, and the roots by which it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingIdentity {
    /// Certificate and key.
    pub svid: X509Svid,
    /// All roots of its trust domain: the ones that come and the ones that go, too.
    pub roots: Arc<Roots>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The agent's Workload API: of the process' SVIDs, the first that holds the DNS names.
    WorkloadApi {
        /// The agent's socket.
        socket: Box<Path>,
    },
    /// Minted over the server's private socket, by a program beside the server.
    Server {
        /// The server's private socket.
        socket: Box<Path>,
        /// The ID in the certificate.
        id: SpiffeId,
        /// How long it is to be valid; renewed at half of it.
        ttl: Duration,
    },
}

/// How a certificate is got and shown.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Where it comes from.
    pub source: Source,
    /// The names the API server asks for: `<service>.<namespace>.svc`.
    pub dns_names: Vec<String>,
    /// Whose `caBundle` is kept.
    pub targets: Vec<Target>,
    /// The field manager that keeps it.
    pub field_manager: String,
    /// TLS of connections.
    pub tls: TlsOptions,
}

/// TLS of connections.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Whether TLS 1.2 is spoken beside 1.3.
    pub allow_1_2: bool,
    /// Callers must show a certificate under one of these.
    pub client_roots: Option<Arc<RootCertStore>>,
}

/// Why callers' roots cannot be used.
#[derive(Debug, Error)]
#[error("not a PEM file of CA certificates: {0}")]
pub struct ClientRootsError(String);

/// Reads the roots of callers' certificates, PEM.
///
/// # Errors
/// When there is none, or one is broken.
pub fn client_roots(pem: &[u8]) -> Result<Arc<RootCertStore>, ClientRootsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| ClientRootsError(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| ClientRootsError(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(ClientRootsError("it holds no certificate".to_owned()));
    }
    Ok(Arc::new(roots))
}

impl Serving {
    /// Starts everything that keeps the certificate, and gives the newest TLS configuration; none until there is a certificate.
    /// `client` is needed for targets alone.
    #[must_use]
    pub fn start(
        self,
        client: &Client,
        clock: &Clock,
        metrics: &Metrics,
        readiness: &Readiness,
        tasks: &Tasks,
    ) -> watch::Receiver<Option<Arc<ServerConfig>>> {
        let identities = source::start(self.source, self.dns_names.clone(), clock, tasks);
        let (wanted, roots) = watch::channel(None);
        let keepers = self.targets.into_iter().map(|target| {
            keep(
                client.clone(),
                target,
                &self.dns_names,
                &self.field_manager,
                roots.clone(),
                metrics.clone(),
                tasks,
            )
        });
        let (expiry, expires) = watch::channel(None);
        let (configs, receiver) = watch::channel(None);
        let gate = gate::Gate {
            identities,
            in_place: keepers.collect(),
            wanted,
            configs,
            expiry,
            tls: self.tls,
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        tasks.spawn("webhook certificate", gate.run(tasks.shutdown()));
        let clock = clock.clone();
        readiness.check("certificate", move || valid(*expires.borrow(), clock.now()));
        receiver
    }
}

fn valid(expires: Option<SystemTime>, now: SystemTime) -> Result<(), String> {
    match expires {
        None => Err("there is no certificate yet".to_owned()),
        Some(expires) if expires <= now => Err("the certificate has expired".to_owned()),
        Some(_) => Ok(()),
    }
}

/// The configuration that shows `svid`.
///
/// # Errors
/// When rustls cannot use it.
pub fn server_config(
    svid: &X509Svid,
    options: &TlsOptions,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[_] = match options.allow_1_2 {
        true => &[&TLS13, &TLS12],
        false => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?;
    let builder = match &options.client_roots {
        Some(roots) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider).build();
            let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let chain = svid.chain().iter();
    let chain = chain.map(|one| CertificateDer::from(one.der().to_vec()));
    let key = PrivatePkcs8KeyDer::from(svid.key().as_pkcs8_der().to_vec());
    let mut config = builder.with_single_cert(chain.collect(), PrivateKeyDer::Pkcs8(key))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
