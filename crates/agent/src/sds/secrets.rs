//! Which secret a workload gets under a name.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::SystemTime,
};

use identity::{Bundle, BundleSet, RegistrationEntry, SpiffeId, TrustDomain, verify_x509_svid};
use tokio::sync::watch;

use super::{AllowList, Form, Name, Options, Resource, Style, gate::Gate};
use crate::workloads::{Identity, WorkloadView};

/// How many encoded secrets are kept before the first look for ones that nobody can ask for any more.
const FIRST_SWEEP: usize = 64;

/// The secrets of all workloads, each encoded once for all streams that give it.
#[derive(Debug)]
pub struct Secrets {
    options: Options,
    gate: Arc<Gate>,
    encoded: Mutex<Encoded>,
}

/// Why a name is not served, now or at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// Nothing is known yet.
    #[error("the agent has not heard from its server yet")]
    NotSynced,
    /// A workload without any identity.
    #[error("no registration entry matches the workload's selectors")]
    NoIdentity,
    /// Somebody else's identity, or nobody's.
    #[error("no registration entry gives {0} to a workload with these selectors")]
    NotEntitled(SpiffeId),
    /// No identity has this hint.
    #[error("no registration entry of this workload has the hint {0:?}")]
    NoHint(Arc<str>),
    /// The SVID is on its way.
    #[error("the X.509-SVID of {0} is not there yet")]
    Pending(SpiffeId),
    /// The SVID has expired, and none has come in its place.
    #[error("the X.509-SVID of {0} has expired")]
    Expired(SpiffeId),
    /// The SVID would be refused by every peer.
    #[error("the X.509-SVID of {id} does not stand up to the trust bundle: {reason}")]
    Unverified {
        /// Whose it is.
        id: SpiffeId,
        /// What is wrong with it.
        reason: String,
    },
    /// The SVID is there, but not all Envoys of this node have its authority yet.
    #[error(
        "not all Envoys of this node have accepted the authority of the X.509-SVID of {id} yet"
    )]
    Unconfirmed {
        /// Whose it is.
        id: SpiffeId,
        /// When it goes out all the same.
        until: SystemTime,
    },
    /// A foreign trust domain that none of the workload's entries federates with.
    #[error("no registration entry of this workload federates with {0}")]
    NotFederated(TrustDomain),
    /// No bundle, or none with a CA certificate.
    #[error("there is no CA certificate of {0} yet")]
    NoBundle(TrustDomain),
    /// Several trust domains in one list of CA certificates.
    #[error(
        "the CA certificates of several trust domains in one plain list would let each vouch for the others' identities: \
         ask for one trust domain by its ID, or let this Envoy use its SPIFFE validator"
    )]
    PlainBundles,
    /// A file of Istio's.
    #[error(
        "files are served by Istio's own agent, on its files socket: the proxy took this socket for that one"
    )]
    IstioFile,
    /// No kind of name known here.
    #[error(
        "the name is neither a SPIFFE ID, nor a trust domain's ID, nor one of the configured names"
    )]
    Unknown,
}

/// Secrets by what they are made of: addresses of views' parts, kept from reuse by the weak pointers beside them.
#[derive(Debug, Default)]
struct Encoded {
    slots: HashMap<Key, Slot>,
    sweep_at: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    name: Arc<str>,
    style: Style,
    parts: Vec<usize>,
}

#[derive(Debug)]
struct Slot {
    parts: Vec<Weak<dyn Any + Send + Sync>>,
    resource: Resource,
}

type Part = Arc<dyn Any + Send + Sync>;

impl Absent {
    /// Whether it is certain that there is no such secret for this workload, rather than that it is not there yet.
    #[must_use]
    pub const fn is_certain(&self) -> bool {
        match self {
            Self::NoIdentity
            | Self::NotEntitled(_)
            | Self::NoHint(_)
            | Self::NotFederated(_)
            | Self::PlainBundles
            | Self::IstioFile
            | Self::Unknown => true,
            Self::NotSynced
            | Self::Pending(_)
            | Self::Expired(_)
            | Self::Unverified { .. }
            | Self::Unconfirmed { .. }
            | Self::NoBundle(_) => false,
        }
    }

    /// Whether more entries could change it.
    const fn hangs_on_entries(&self) -> bool {
        matches!(
            self,
            Self::NoIdentity | Self::NotEntitled(_) | Self::NoHint(_) | Self::NotFederated(_)
        )
    }

    /// Whether other selectors of the same workload could change it.
    #[must_use]
    pub const fn hangs_on_selectors(&self) -> bool {
        matches!(
            self,
            Self::NoIdentity | Self::NotEntitled(_) | Self::NoHint(_) | Self::NotFederated(_)
        )
    }
}

impl Secrets {
    /// No secrets encoded yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            gate: Arc::new(Gate::new(options.authority_ack_timeout)),
            options,
            encoded: Mutex::default(),
        }
    }

    /// Changes whenever a certificate that waits for others to accept its authority may no longer have to.
    #[must_use]
    pub fn gate_changes(&self) -> watch::Receiver<u64> {
        self.gate.changes()
    }

    /// Whether Envoys are told to trust nobody once their workload may no longer have this bundle.
    pub(super) const fn denies(&self, name: &Name) -> bool {
        self.options.deny_when_revoked && name.is_bundle()
    }

    pub(super) const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What the operator chose.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The secret that a workload gets under a name.
    ///
    /// # Errors
    /// Why it gets none.
    pub fn lookup(
        &self,
        view: &WorkloadView,
        (text, name): (&Arc<str>, &Name),
        style: impl Into<Style>,
        now: SystemTime,
    ) -> Result<Resource, Absent> {
        let found = self.find(view, (text, name), style.into(), now);
        match found {
            // Who is told "no" now may be somebody in a moment.
            Err(why) if !view.synced && why.hangs_on_entries() => Err(Absent::NotSynced),
            found => found,
        }
    }

    /// As [`Secrets::lookup`], for what is known so far. Entries come in the order of their age, so the first is the first.
    fn find(
        &self,
        view: &WorkloadView,
        (text, name): (&Arc<str>, &Name),
        style: Style,
        now: SystemTime,
    ) -> Result<Resource, Absent> {
        match name {
            Name::IstioFile => Err(Absent::IstioFile),
            Name::Unknown => Err(Absent::Unknown),
            // These hang on all entries.
            Name::AllBundles | Name::Allowed(_) if !view.synced => Err(Absent::NotSynced),
            Name::DefaultSvid => self.certificate(view, first(view)?, text, now),
            Name::PreferredSvid(hint) => {
                let identity = match hinted(view, hint) {
                    Err(Absent::NoHint(_)) if view.synced => first(view)?,
                    found => found?,
                };
                self.certificate(view, identity, text, now)
            }
            Name::HintedSvid(hint) => self.certificate(view, hinted(view, hint)?, text, now),
            Name::Svid(id) => self.certificate(view, named(view, id)?, text, now),
            Name::OwnBundle | Name::Bundle(_) | Name::AllBundles | Name::Allowed(_) => {
                let bundles = self.bundles(view, name)?;
                if style.form == Form::PlainCa && bundles.len() > 1 {
                    return Err(Absent::PlainBundles);
                }
                let allowed = match name {
                    Name::Allowed(list) => Some(&**list),
                    _ => None,
                };
                self.validation(&bundles, text, style, allowed)
            }
        }
    }

    fn certificate(
        &self,
        view: &WorkloadView,
        Identity { svid, .. }: &Identity,
        name: &Arc<str>,
        now: SystemTime,
    ) -> Result<Resource, Absent> {
        if svid.expires_at() <= now {
            return Err(Absent::Expired(svid.id().clone()));
        }
        let part: Part = svid.clone();
        // A certificate has one form.
        self.once(name, Form::Validator.into(), vec![part], || {
            verify(view, svid, now)?;
            Ok(Resource::certificate(name, svid))
        })
    }

    fn validation(
        &self,
        bundles: &[&Arc<Bundle>],
        name: &Arc<str>,
        style: Style,
        allowed: Option<&AllowList>,
    ) -> Result<Resource, Absent> {
        let parts = bundles
            .iter()
            .map(|bundle| Arc::clone(*bundle) as Part)
            .collect();
        self.once(name, style, parts, || {
            let plain: Vec<&Bundle> = bundles.iter().map(|bundle| bundle.as_ref()).collect();
            let resource = Resource::validation(name, style, &plain, allowed);
            resource.ok_or_else(|| Absent::NoBundle(bundles[0].trust_domain.clone()))
        })
    }

    /// The bundles a name stands for: at least one, and none without a CA certificate.
    fn bundles<'a>(
        &self,
        view: &'a WorkloadView,
        name: &Name,
    ) -> Result<Vec<&'a Arc<Bundle>>, Absent> {
        let entitled = !view.identities.is_empty() || !view.pending.is_empty();
        if !entitled && !self.options.allow_unauthenticated_verifiers {
            return Err(Absent::NoIdentity);
        }
        let own = &view.bundle;
        match name {
            Name::Bundle(trust_domain) => Ok(vec![bundle_of(view, trust_domain)?]),
            Name::AllBundles => {
                let foreign = view.federated.values();
                let all = [own].into_iter().chain(foreign);
                let mut all: Vec<_> = all.filter(|bundle| filled(bundle).is_ok()).collect();
                all.sort_by_key(|bundle| &bundle.trust_domain);
                all.dedup_by_key(|bundle| &bundle.trust_domain);
                if all.is_empty() {
                    filled(own)?;
                }
                Ok(all)
            }
            Name::Allowed(list) => {
                let trust_domains = list.trust_domains();
                let found = trust_domains.into_iter().map(|one| bundle_of(view, one));
                let (there, missing): (Vec<_>, Vec<_>) = found.partition(Result::is_ok);
                match missing.into_iter().next() {
                    Some(Err(why)) if there.is_empty() => Err(why),
                    // One that is missing does not keep the others away.
                    _ => Ok(there.into_iter().flatten().collect()),
                }
            }
            _ => Ok(vec![filled(own)?]),
        }
    }

    /// The resource of these parts, encoded now if it was not before.
    fn once(
        &self,
        name: &Arc<str>,
        style: Style,
        parts: Vec<Part>,
        encode: impl FnOnce() -> Result<Resource, Absent>,
    ) -> Result<Resource, Absent> {
        let key = Key {
            name: Arc::clone(name),
            style,
            parts: parts.iter().map(address).collect(),
        };
        if let Some(slot) = self.encoded().slots.get(&key) {
            return Ok(slot.resource.clone());
        }
        let resource = encode()?;
        let slot = Slot {
            parts: parts.iter().map(Arc::downgrade).collect(),
            resource: resource.clone(),
        };
        self.encoded().insert(key, slot);
        Ok(resource)
    }

    fn encoded(&self) -> MutexGuard<'_, Encoded> {
        self.encoded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Encoded {
    fn insert(&mut self, key: Key, slot: Slot) {
        if self.slots.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.slots.retain(|_, slot| slot.is_alive());
            self.sweep_at = 2 * self.slots.len();
        }
        self.slots.insert(key, slot);
    }
}

impl Slot {
    fn is_alive(&self) -> bool {
        self.parts.iter().all(|part| part.strong_count() > 0)
    }
}

fn address(part: &Part) -> usize {
    Arc::as_ptr(part).cast::<()>().addr()
}

/// The workload's first identity: that of its oldest entry, and of the lowest entry ID among equals. It stays the
/// same while its SVID is renewed; another's is never put in its place.
fn first(view: &WorkloadView) -> Result<&Identity, Absent> {
    oldest(view, |_| true).unwrap_or(Err(Absent::NoIdentity))
}

/// The first of the identities with this hint.
fn hinted<'a>(view: &'a WorkloadView, hint: &Arc<str>) -> Result<&'a Identity, Absent> {
    let none = || Absent::NoHint(Arc::clone(hint));
    oldest(view, |entry| *entry.hint == **hint).unwrap_or_else(|| Err(none()))
}

/// The first identity of those chosen; `None` when there is none.
fn oldest(
    view: &WorkloadView,
    chosen: impl Fn(&RegistrationEntry) -> bool,
) -> Option<Result<&Identity, Absent>> {
    let age = |entry: &RegistrationEntry| (entry.created_at, entry.id.clone());
    let identities = view.identities.iter().filter(|one| chosen(&one.entry));
    let identity = identities.min_by_key(|one| age(&one.entry));
    let pending = view.pending.iter().filter(|entry| chosen(entry));
    let pending = pending.min_by_key(|entry| age(entry));
    match (identity, pending) {
        (None, None) => None,
        (Some(identity), None) => Some(Ok(identity)),
        (Some(identity), Some(pending)) if age(&identity.entry) < age(pending) => {
            Some(Ok(identity))
        }
        (_, Some(pending)) => Some(Err(Absent::Pending(pending.spiffe_id.clone()))),
    }
}

fn named<'a>(view: &'a WorkloadView, id: &SpiffeId) -> Result<&'a Identity, Absent> {
    // By the certificate's own ID, so that a certificate never goes out under another's name.
    if let Some(identity) = view.identities.iter().find(|one| one.svid.id() == id) {
        return Ok(identity);
    }
    if view.pending.iter().any(|entry| entry.spiffe_id == *id) {
        return Err(Absent::Pending(id.clone()));
    }
    if view.identities.is_empty() && view.pending.is_empty() {
        return Err(Absent::NoIdentity);
    }
    Err(Absent::NotEntitled(id.clone()))
}

fn bundle_of<'a>(
    view: &'a WorkloadView,
    trust_domain: &TrustDomain,
) -> Result<&'a Arc<Bundle>, Absent> {
    if *trust_domain == view.bundle.trust_domain {
        return filled(&view.bundle);
    }
    if let Some(bundle) = view.federated.get(trust_domain) {
        return filled(bundle);
    }
    let entries = view.identities.iter().map(|identity| &identity.entry);
    let mut entries = entries.chain(&view.pending);
    if entries.any(|entry| entry.federates_with.contains(trust_domain)) {
        Err(Absent::NoBundle(trust_domain.clone()))
    } else {
        Err(Absent::NotFederated(trust_domain.clone()))
    }
}

fn filled(bundle: &Arc<Bundle>) -> Result<&Arc<Bundle>, Absent> {
    if bundle.x509_authorities.is_empty() {
        return Err(Absent::NoBundle(bundle.trust_domain.clone()));
    }
    Ok(bundle)
}

/// Whether peers who trust the view's bundle will take the SVID. So a certificate of a new CA waits for that CA to be
/// in the bundle. A clock that is behind is no reason to refuse it.
fn verify(view: &WorkloadView, svid: &identity::X509Svid, now: SystemTime) -> Result<(), Absent> {
    let bundles: BundleSet = [view.bundle.clone()].into_iter().collect();
    let at = now.max(svid.not_before());
    match verify_x509_svid(svid.chain(), &bundles, at) {
        Ok(_) => Ok(()),
        Err(error) => Err(Absent::Unverified {
            id: svid.id().clone(),
            reason: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
