//! The slots and what is in them: makes authorities, publishes them, remembers them in the journal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ca::{
    CaSpec, JwtAuthority, KeyManager, Kind, Record, Rotation, Slot, Status, Step, X509Authority,
};
use identity::{Certificate, KeyType, PrivateKey, TrustDomain};
use runtime::Metrics;
use store::{CaJournal, Store};
use tonic::Code;

use super::bundle::{Public, Publisher};
use super::{AuthorityError, Settings, Signers};

/// Journals of servers that are gone, or lost their keys, are kept so long after their last authority expired.
const FORGET_JOURNALS_AFTER: Duration = Duration::from_hours(14 * 24);

/// Owns the slots of both kinds. Each step either happens as a whole or leaves everything as it was.
pub(super) struct Keeper {
    pub(super) settings: Settings,
    pub(super) publisher: Publisher,
    store: Store,
    metrics: Metrics,
    keys: Arc<Mutex<KeyManager>>,
    rotation: Rotation,
    /// The row of our journal, once there is one.
    journal: Option<i64>,
    x509: BTreeMap<String, Arc<X509Authority>>,
    jwt: BTreeMap<String, Arc<JwtAuthority>>,
}

impl Keeper {
    /// Takes up the authorities of a former run whose keys are still there.
    pub(super) async fn load(
        settings: Settings,
        keys: KeyManager,
        store: Store,
        publisher: Publisher,
        metrics: Metrics,
    ) -> Result<Self, AuthorityError> {
        let journals = store.ca_journals().await?;
        check_trust_domain(&journals, &settings.trust_domain)?;
        let (journal, mut rotation) = match ours(&journals, &keys) {
            Some((id, rotation)) => (Some(id), rotation),
            None => (None, Rotation::new()),
        };
        if settings.jwt_key_type.is_none() {
            rotation = rotation.without_jwt();
        }
        let mut keeper = Self {
            settings,
            publisher,
            store,
            metrics,
            keys: Arc::new(Mutex::new(keys)),
            rotation,
            journal,
            x509: BTreeMap::new(),
            jwt: BTreeMap::new(),
        };
        keeper.restore().await?;
        Ok(keeper)
    }

    /// Makes the authorities of the journal signing ones again, and sees that they stand in the bundle: a crash may have
    /// come between the journal and the bundle.
    async fn restore(&mut self) -> Result<(), AuthorityError> {
        let records: Vec<(Kind, Record)> = self
            .rotation
            .records()
            .filter(|(_, record)| record.status != Status::Old)
            .map(|(kind, record)| (kind, record.clone()))
            .collect();
        for (kind, record) in records {
            let key = self.key(record.slot.key_name(kind));
            let Some(key) = key else { continue };
            let id = record.authority_id;
            tracing::info!(authority_id = id, "authority taken up from the journal");
            match kind {
                Kind::X509 => {
                    let certificate = Certificate::from_der(&record.public)?;
                    self.keep_x509(X509Authority::new(certificate, key)?)
                        .await?;
                }
                Kind::Jwt => {
                    self.keep_jwt(JwtAuthority::new(id, key, record.not_after))
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Takes every step that is due.
    pub(super) async fn advance(&mut self, now: SystemTime) -> Result<(), AuthorityError> {
        while let Some(step) = self.rotation.due(now) {
            match step {
                Step::Prepare(kind, slot) => self.prepare(kind, slot, now).await?,
                Step::Activate(kind, _) => self.activate(kind).await?,
            }
        }
        Ok(())
    }

    /// When the next step is due.
    pub(super) fn next_due(&self) -> Option<SystemTime> {
        self.rotation.next_due()
    }

    /// Who signs now.
    pub(super) fn signers(&self) -> Result<Signers, AuthorityError> {
        let active = |kind| {
            self.rotation
                .active(kind)
                .map(|record| &record.authority_id)
        };
        let x509 = active(Kind::X509).and_then(|id| self.x509.get(id));
        let jwt = active(Kind::Jwt).and_then(|id| self.jwt.get(id));
        Ok(Signers {
            x509: Arc::clone(x509.ok_or(AuthorityError::Inactive)?),
            jwt: jwt.map(Arc::clone),
        })
    }

    async fn prepare(
        &mut self,
        kind: Kind,
        slot: Slot,
        now: SystemTime,
    ) -> Result<(), AuthorityError> {
        let name = match kind {
            Kind::X509 => "ca_manager_x509_ca_prepare",
            Kind::Jwt => "ca_manager_jwt_key_prepare",
        };
        let call = self.metrics.call(name, &[]);
        let prepared = self.make(kind, slot, now).await;
        call.finish(prepared.as_ref().map_or(Code::Internal, |()| Code::Ok));
        prepared
    }

    async fn make(
        &mut self,
        kind: Kind,
        slot: Slot,
        now: SystemTime,
    ) -> Result<(), AuthorityError> {
        let mut rotation = self.rotation.clone();
        let (id, not_after) = match kind {
            Kind::X509 => {
                let key = self.generate(kind, slot, self.settings.ca_key_type).await?;
                let spec = CaSpec {
                    trust_domain: &self.settings.trust_domain,
                    subject: self.settings.ca_subject.clone(),
                    ttl: self.settings.ca_ttl,
                };
                let authority = X509Authority::self_signed(key, &spec, now)?;
                rotation.prepared(kind, Record::of_x509(slot, &authority, now));
                let known = (authority.authority_id().to_owned(), authority.not_after());
                self.save(&rotation).await?;
                self.keep_x509(authority).await?;
                known
            }
            Kind::Jwt => {
                let key_type = self.settings.jwt_key_type.unwrap_or_default();
                let key = self.generate(kind, slot, key_type).await?;
                let not_after = now.checked_add(self.settings.ca_ttl).unwrap_or(now);
                let id = JwtAuthority::random_key_id()?;
                let authority = JwtAuthority::new(id.clone(), key, not_after);
                rotation.prepared(kind, Record::of_jwt(slot, &authority, now));
                self.save(&rotation).await?;
                self.keep_jwt(authority).await?;
                (id, not_after)
            }
        };
        self.rotation = rotation;
        tracing::info!(
            authority_id = id,
            ?kind,
            ?slot,
            ?not_after,
            "authority prepared"
        );
        Ok(())
    }

    async fn activate(&mut self, kind: Kind) -> Result<(), AuthorityError> {
        let mut rotation = self.rotation.clone();
        rotation.activated(kind);
        self.save(&rotation).await?;
        self.rotation = rotation;
        self.forget_replaced();
        let name = match kind {
            Kind::X509 => "ca_manager_x509_ca_activate",
            Kind::Jwt => "manager_jwt_key_activate",
        };
        self.metrics.counter(name, &[]).increment();
        if let Some(active) = self.rotation.active(kind) {
            tracing::info!(
                authority_id = active.authority_id,
                ?kind,
                "authority activated"
            );
        }
        Ok(())
    }

    /// Drops the keys of authorities that no slot holds any more.
    fn forget_replaced(&mut self) {
        let rotation = &self.rotation;
        let held = |id: &String| {
            rotation
                .records()
                .any(|(_, record)| record.authority_id == *id)
        };
        self.x509.retain(|id, _| held(id));
        self.jwt.retain(|id, _| held(id));
    }

    /// Deletes the journals of others whose authorities all expired long ago.
    pub(super) async fn forget_old_journals(&self, now: SystemTime) -> Result<(), AuthorityError> {
        for journal in self.store.ca_journals().await? {
            let Ok(rotation) = Rotation::from_journal(&journal.data, |_, _| true) else {
                continue;
            };
            let over = rotation.records().all(|(_, record)| {
                let end = record.not_after.checked_add(FORGET_JOURNALS_AFTER);
                end.is_some_and(|end| end <= now)
            });
            if over && Some(journal.id) != self.journal {
                self.store.delete_ca_journal(journal.id).await?;
            }
        }
        Ok(())
    }

    /// Makes a key on a thread of its own: RSA takes its time, and so does the disk.
    async fn generate(
        &self,
        kind: Kind,
        slot: Slot,
        key_type: KeyType,
    ) -> Result<PrivateKey, AuthorityError> {
        let call = self.metrics.call("server_key_manager_generate_key", &[]);
        let keys = Arc::clone(&self.keys);
        let name = slot.key_name(kind);
        let made = tokio::task::spawn_blocking(move || lock(&keys).generate(name, key_type));
        let made = made.await?;
        call.finish(made.as_ref().map_or(Code::Internal, |_| Code::Ok));
        Ok(made?)
    }

    fn key(&self, name: &str) -> Option<PrivateKey> {
        let call = self.metrics.call("server_key_manager_get_public_key", &[]);
        let key = lock(&self.keys).key(name).cloned();
        call.finish(key.as_ref().map_or(Code::NotFound, |_| Code::Ok));
        key
    }

    async fn save(&mut self, rotation: &Rotation) -> Result<(), AuthorityError> {
        let active = rotation.active(Kind::X509);
        let active = active.map_or("", |record| record.authority_id.as_str());
        let saved = self
            .store
            .save_ca_journal(self.journal, active, rotation.to_journal());
        self.journal = Some(saved.await?);
        Ok(())
    }

    async fn keep_x509(&mut self, authority: X509Authority) -> Result<(), AuthorityError> {
        let public = identity::X509Authority::new(authority.certificate().clone());
        self.publisher.add(Public::X509(public)).await?;
        let id = authority.authority_id().to_owned();
        self.x509.insert(id, Arc::new(authority));
        Ok(())
    }

    async fn keep_jwt(&mut self, authority: JwtAuthority) -> Result<(), AuthorityError> {
        self.publisher.add(Public::Jwt(authority.public())).await?;
        let id = authority.key_id().to_owned();
        self.jwt.insert(id, Arc::new(authority));
        Ok(())
    }
}

/// Refuses a datastore in whose journals another trust domain's authorities are: entries, agents and keys would be taken
/// for ours.
fn check_trust_domain(journals: &[CaJournal], ours: &TrustDomain) -> Result<(), AuthorityError> {
    let rotations = journals.iter();
    let rotations = rotations.filter_map(|one| Rotation::from_journal(&one.data, |_, _| true).ok());
    for rotation in rotations {
        for (_, record) in rotation.records().filter(|(kind, _)| *kind == Kind::X509) {
            let certificate = Certificate::from_der(&record.public).ok();
            let theirs = certificate.as_ref().and_then(Certificate::spiffe_id);
            if let Some(theirs) = theirs.map(identity::SpiffeId::trust_domain)
                && theirs != ours
            {
                return Err(AuthorityError::OtherTrustDomain {
                    theirs: theirs.clone(),
                    ours: ours.clone(),
                });
            }
        }
    }
    Ok(())
}

/// The journal whose keys we hold, and what of it is still of use.
fn ours(journals: &[CaJournal], keys: &KeyManager) -> Option<(i64, Rotation)> {
    journals.iter().find_map(|journal| {
        let read = Rotation::from_journal(&journal.data, |kind, record| usable(keys, kind, record));
        let rotation = read
            .inspect_err(|error| tracing::warn!(%error, row = journal.id, "CA journal left out"))
            .ok()?;
        let held = rotation.records().next().is_some();
        held.then_some((journal.id, rotation))
    })
}

/// Whether the key manager still holds the record's key.
fn usable(keys: &KeyManager, kind: Kind, record: &Record) -> bool {
    let Some(key) = keys.key(record.slot.key_name(kind)) else {
        return false;
    };
    match kind {
        Kind::X509 => Certificate::from_der(&record.public)
            .is_ok_and(|certificate| certificate.spki() == key.public_key_spki()),
        Kind::Jwt => record.public == key.public_key_spki(),
    }
}

fn lock(keys: &Mutex<KeyManager>) -> std::sync::MutexGuard<'_, KeyManager> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}
