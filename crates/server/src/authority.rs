//! The authorities as a living thing: who signs now, the published bundle, the server's own SVID.
//!
//! [`Authorities::start`] loads the keys and the journal, makes what is missing, and gives two halves: the handle that
//! signs, and the [`Rotator`], the loop that owns the slots. An authority stands in the bundle, in the datastore, before
//! anything is signed by it.

mod bundle;
mod keeper;
mod rotator;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use ca::{
    IssuedJwt, IssuedX509, JwtAuthority, JwtError, JwtSpec, LeafSpec, Subject, X509Authority,
    X509AuthorityError,
};
use identity::{Bundle, KeyType, PrivateKey, TrustDomain, X509Svid};
use runtime::{Calls, Clock, Counter, Metrics};
use store::{BundleWriteError, Store};
use thiserror::Error;
use tokio::sync::watch;
use tonic::Code;

pub(crate) use rotator::Rotator;

use crate::config::{self, Config};
use crate::rpc::RpcError;
use bundle::{Public, Publisher};
use keeper::Keeper;
use workers::Workers;

/// After so many failed rotations in a row the server is not healthy any more, as SPIRE has it.
const TOLERATED_FAILURES: u32 = 10;

/// Why authorities cannot be loaded, made, published or used for the server's own SVID.
#[derive(Debug, Error)]
pub(crate) enum AuthorityError {
    /// The key manager failed.
    #[error(transparent)]
    Keys(#[from] ca::KeyManagerError),
    /// The datastore failed.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The bundle cannot be written.
    #[error("publishing the bundle: {0}")]
    Bundle(#[from] BundleWriteError),
    /// An X.509 authority cannot be made, or does not sign.
    #[error(transparent)]
    X509(#[from] X509AuthorityError),
    /// A JWT authority cannot be made.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// A certificate of our own is unusable.
    #[error("a certificate of our own is unusable: {0}")]
    Certificate(#[from] identity::X509Error),
    /// A key of our own is unusable.
    #[error("a key of our own is unusable: {0}")]
    PublicKey(#[from] ca::PublicKeyError),
    /// A key cannot be made.
    #[error(transparent)]
    Key(#[from] identity::KeyError),
    /// The worker thread is gone.
    #[error("the thread that makes keys ended: {0}")]
    Thread(#[from] tokio::task::JoinError),
    /// The datastore is another trust domain's.
    #[error(
        "the datastore belongs to the trust domain {theirs}, not to {ours}; set trust_domain to {theirs} again, or give \
         this server a data_dir and a datastore of its own"
    )]
    OtherTrustDomain {
        /// Whose authorities are in its journal.
        theirs: TrustDomain,
        /// The one configured.
        ours: TrustDomain,
    },
    /// There is no active authority after all steps were taken: a fault of ours.
    #[error("no X.509 authority is active")]
    Inactive,
}

/// What authorities are made of.
#[derive(Clone, Debug)]
struct Settings {
    trust_domain: TrustDomain,
    ca_ttl: Duration,
    ca_key_type: KeyType,
    /// `None` where JWT-SVIDs are switched off.
    jwt_key_type: Option<KeyType>,
    ca_subject: Subject,
    /// Life of the server's own SVID.
    server_svid_ttl: Duration,
    jwt_issuer: Option<String>,
}

impl Settings {
    fn of(config: &Config) -> Self {
        let ca = &config.ca;
        Self {
            trust_domain: config.trust_domain.clone(),
            ca_ttl: ca.ca_ttl,
            ca_key_type: ca.ca_key_type,
            jwt_key_type: (!ca.disable_jwt_svids).then_some(ca.jwt_key_type),
            ca_subject: subject(&ca.ca_subject),
            server_svid_ttl: ca.default_x509_svid_ttl,
            jwt_issuer: ca.jwt_issuer.clone(),
        }
    }
}

fn subject(subject: &config::CaSubject) -> Subject {
    use ca::Attribute::{CommonName, Country, Organization};
    let countries = subject.country.iter().map(|value| (Country, value));
    let organizations = subject
        .organization
        .iter()
        .map(|value| (Organization, value));
    countries
        .chain(organizations)
        .chain([(CommonName, &subject.common_name)])
        .fold(Subject::empty(), |subject, (kind, value)| {
            subject.with(kind, value)
        })
}

/// Who signs now.
struct Signers {
    x509: Arc<X509Authority>,
    jwt: Option<Arc<JwtAuthority>>,
}

/// Signs SVIDs and tells the bundle. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Authorities(Arc<Shared>);

struct Shared {
    clock: Clock,
    signers: watch::Receiver<Arc<Signers>>,
    bundle: Publisher,
    server_svid: watch::Receiver<Arc<X509Svid>>,
    jwt_issuer: Option<String>,
    workers: Workers,
    failures: Arc<AtomicU32>,
    signing: Calls,
    signed_x509: Counter,
    signed_jwt: Counter,
}

impl Authorities {
    /// Loads keys and journal, makes, publishes and activates what is missing, and signs the server's own SVID.
    pub(crate) async fn start(
        config: &Config,
        store: Store,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<(Self, Rotator), AuthorityError> {
        let call = metrics.call("server_key_manager_get_public_keys", &[]);
        let keys = match &config.key_manager {
            config::KeyManager::Memory => Ok(ca::KeyManager::memory()),
            config::KeyManager::Disk { keys_path } => ca::KeyManager::disk(keys_path),
        };
        call.finish(keys.as_ref().map_or(Code::Internal, |_| Code::Ok));
        let keys = keys?;
        Self::load(Settings::of(config), keys, store, clock, metrics).await
    }

    async fn load(
        settings: Settings,
        keys: ca::KeyManager,
        store: Store,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<(Self, Rotator), AuthorityError> {
        let jwt_issuer = settings.jwt_issuer.clone();
        let publisher = Publisher::load(store.clone(), &settings.trust_domain).await?;
        let keeper = Keeper::load(settings, keys, store, publisher.clone(), metrics.clone());
        let keeper = keeper.await?;
        keeper.forget_old_journals(clock.now()).await?;
        let rotator = Rotator::start(keeper, clock.clone(), metrics.clone()).await?;
        let shared = Shared {
            clock,
            signers: rotator.signers(),
            bundle: publisher,
            server_svid: rotator.server_svid(),
            jwt_issuer,
            workers: Workers::new(),
            failures: rotator.failures(),
            signing: metrics.calls("server_key_manager_sign_data"),
            signed_x509: metrics.counter("server_ca_sign_x509_svid", &[]),
            signed_jwt: metrics.counter("server_ca_sign_jwt_svid", &[]),
        };
        Ok((Self(Arc::new(shared)), rotator))
    }

    /// The trust domain's bundle as it is and as it changes.
    pub(crate) fn bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        self.0.bundle.watch()
    }

    /// Puts authorities of others into the bundle, all or none, and tells what it holds then.
    pub(crate) async fn append(
        &self,
        x509: Vec<identity::X509Authority>,
        jwt: Vec<identity::JwtAuthority>,
    ) -> Result<Arc<Bundle>, BundleWriteError> {
        let x509 = x509.into_iter().map(Public::X509);
        let jwt = jwt.into_iter().map(Public::Jwt);
        self.0.bundle.append(x509.chain(jwt).collect()).await?;
        Ok(self.0.bundle.latest())
    }

    /// The server's own SVID as it is and as it is renewed.
    pub(crate) fn server_svid(&self) -> watch::Receiver<Arc<X509Svid>> {
        self.0.server_svid.clone()
    }

    /// Whether the authorities can sign and rotation works; else what is wrong.
    pub(crate) fn health(&self) -> Result<(), String> {
        let failures = self.0.failures.load(Ordering::Relaxed);
        if failures > TOLERATED_FAILURES {
            return Err(format!(
                "rotating the authorities failed {failures} times in a row"
            ));
        }
        if self.0.signers.borrow().x509.not_after() <= self.0.clock.now() {
            return Err("the active X.509 authority has expired".to_owned());
        }
        Ok(())
    }

    /// Signs one X.509-SVID now.
    pub(crate) fn sign_x509(&self, spec: &LeafSpec<'_>) -> Result<IssuedX509, RpcError> {
        self.snapshot().sign_x509(spec)
    }

    /// Mints one JWT-SVID now, with the issuer that is configured.
    pub(crate) fn sign_jwt(&self, spec: &JwtSpec<'_>) -> Result<IssuedJwt, RpcError> {
        let spec = JwtSpec {
            issuer: self.0.jwt_issuer.as_deref(),
            ..spec.clone()
        };
        let signers = Arc::clone(&self.0.signers.borrow());
        let jwt = signers
            .jwt
            .as_ref()
            .ok_or_else(|| RpcError::Unimplemented("JWT functionality is disabled".to_owned()))?;
        let now = self.0.clock.now();
        let sign = || jwt.sign(&spec, now).map_err(jwt_error);
        let issued = self.0.signing.measure(sign, RpcError::code)?;
        self.0.signed_jwt.increment();
        Ok(issued)
    }

    /// Runs `work` on each item with the authority that is active now, spread over the cores; the order is kept.
    pub(crate) async fn sign_each<T, R, F>(&self, items: Vec<T>, work: F) -> Vec<R>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Fn(&Signer, T) -> R + Clone + Send + 'static,
    {
        let signer = self.snapshot();
        let each = move |item| work(&signer, item);
        self.0.workers.map(items, each).await
    }

    fn snapshot(&self) -> Signer {
        Signer {
            x509: Arc::clone(&self.0.signers.borrow().x509),
            now: self.0.clock.now(),
            signing: self.0.signing.clone(),
            signed: self.0.signed_x509.clone(),
        }
    }
}

/// The X.509 authority active at one moment.
#[derive(Clone)]
pub(crate) struct Signer {
    x509: Arc<X509Authority>,
    now: SystemTime,
    /// Counts and times signatures, the linter's part included.
    signing: Calls,
    signed: Counter,
}

impl Signer {
    /// Signs one X.509-SVID.
    pub(crate) fn sign_x509(&self, spec: &LeafSpec<'_>) -> Result<IssuedX509, RpcError> {
        let sign = || self.x509.sign(spec, self.now).map_err(x509_error);
        let issued = self.signing.measure(sign, RpcError::code)?;
        self.signed.increment();
        Ok(issued)
    }
}

fn x509_error(error: X509AuthorityError) -> RpcError {
    match error {
        X509AuthorityError::DnsName(_) | X509AuthorityError::OwnKey => {
            RpcError::InvalidArgument(error.to_string())
        }
        X509AuthorityError::Expired | X509AuthorityError::NotYet => {
            RpcError::Unavailable(error.to_string())
        }
        _ => RpcError::internal("failed to sign X509-SVID", error),
    }
}

fn jwt_error(error: JwtError) -> RpcError {
    match error {
        JwtError::Audience | JwtError::RootPath(_) | JwtError::Ttl(_) => {
            RpcError::InvalidArgument(error.to_string())
        }
        JwtError::Expired => RpcError::Unavailable(error.to_string()),
        _ => RpcError::internal("failed to sign JWT-SVID", error),
    }
}

/// Makes an SVID for a key of our own; the key on a thread of its own, for RSA takes its time.
async fn own_svid(
    authority: &X509Authority,
    settings: &Settings,
    now: SystemTime,
) -> Result<X509Svid, AuthorityError> {
    let id = server_id(&settings.trust_domain);
    let key_type = settings.ca_key_type;
    let key = tokio::task::spawn_blocking(move || PrivateKey::generate(key_type)).await??;
    let public_key = ca::PublicKey::from_spki(key.public_key_spki())?;
    let spec = LeafSpec {
        id: &id,
        public_key: &public_key,
        dns_names: &[],
        ttl: settings.server_svid_ttl,
        subject: None,
    };
    let issued = authority.sign(&spec, now)?;
    let leaf = identity::Certificate::from_der(&issued.der)?;
    Ok(X509Svid::new(vec![leaf], key)?)
}

/// The server's own ID.
fn server_id(trust_domain: &TrustDomain) -> identity::SpiffeId {
    identity::SpiffeId::new(trust_domain, "/spire/server")
        .expect("a trust domain and this path must make a SPIFFE ID")
}

#[cfg(test)]
mod tests;
