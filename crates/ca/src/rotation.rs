//! When authorities are prepared and activated. Pure: it keeps records, takes `now`, and says what is due.
//!
//! Each kind of authority has two slots, A and B. The current one is active; the next one is empty, prepared, or old.
//! A prepared authority stands in the bundle and signs nothing, so that everybody knows it before the first SVID of
//! it is seen; activating it makes the former one old.

mod journal;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use journal::JournalError;

use crate::jwt::JwtAuthority;
use crate::x509::{BACKDATE, X509Authority};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_PREPARE_BEFORE: Duration = DAY.saturating_mul(30);
const MAX_ACTIVATE_BEFORE: Duration = DAY.saturating_mul(7);

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// X.509-SVIDs.
    X509,
    /// JWT-SVIDs.
    Jwt,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::X509, Self::Jwt];
}

/// One of the two places for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A.
    A,
    /// B.
    B,
}

impl Slot {
    /// The name of this slot's key in the key manager; SPIRE's names.
    #[must_use]
    pub const fn key_name(self, kind: Kind) -> &'static str {
        match (kind, self) {
            (Kind::X509, Self::A) => "x509-CA-A",
            (Kind::X509, Self::B) => "x509-CA-B",
            (Kind::Jwt, Self::A) => "JWT-Signer-A",
            (Kind::Jwt, Self::B) => "JWT-Signer-B",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// How far an authority has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Published, not signing.
    Prepared,
    /// Signing.
    Active,
    /// Replaced; its SVIDs live on.
    Old,
}

/// One authority as the journal remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The place of its key.
    pub slot: Slot,
    /// How far it has come.
    pub status: Status,
    /// Its ID: the hex SKI of an X.509 authority, the `kid` of a JWT authority.
    pub authority_id: String,
    /// When it was made, in whole seconds.
    pub issued_at: SystemTime,
    /// Until when it may sign, in whole seconds.
    pub not_after: SystemTime,
    /// The public half: an X.509 authority's certificate, a JWT authority's SubjectPublicKeyInfo; DER.
    pub public: Vec<u8>,
}

impl Record {
    /// Of an X.509 authority made at `now`.
    #[must_use]
    pub fn of_x509(slot: Slot, authority: &X509Authority, now: SystemTime) -> Self {
        Self {
            slot,
            status: Status::Prepared,
            authority_id: authority.authority_id().to_owned(),
            issued_at: whole_seconds(now),
            not_after: authority.not_after(),
            public: authority.certificate().der().to_vec(),
        }
    }

    /// Of a JWT authority made at `now`.
    #[must_use]
    pub fn of_jwt(slot: Slot, authority: &JwtAuthority, now: SystemTime) -> Self {
        let public = authority.public();
        Self {
            slot,
            status: Status::Prepared,
            authority_id: public.key_id,
            issued_at: whole_seconds(now),
            not_after: whole_seconds(authority.not_after()),
            public: public.public_key,
        }
    }

    /// When the authority after this one is to be prepared: half of the lifetime before the end, 30 days at most.
    #[must_use]
    pub fn prepare_at(&self) -> SystemTime {
        self.before_end((self.lifetime() / 2).min(MAX_PREPARE_BEFORE))
    }

    /// When the authority after this one is to sign: a sixth of the lifetime before the end, 7 days at most.
    #[must_use]
    pub fn activate_at(&self) -> SystemTime {
        self.before_end((self.lifetime() / 6).min(MAX_ACTIVATE_BEFORE))
    }

    /// From when on certificates of its own are good: it is backdated as leaves are.
    fn begins_at(&self) -> SystemTime {
        self.issued_at.checked_sub(BACKDATE).unwrap_or(UNIX_EPOCH)
    }

    fn lifetime(&self) -> Duration {
        self.not_after
            .duration_since(self.issued_at)
            .unwrap_or_default()
    }

    fn before_end(&self, distance: Duration) -> SystemTime {
        self.not_after
            .checked_sub(distance)
            .unwrap_or(self.issued_at)
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make an authority in this slot, publish it in the bundle, then tell [`Rotation::prepared`].
    Prepare(Kind, Slot),
    /// Sign with the authority in this slot from now on, then tell [`Rotation::activated`].
    Activate(Kind, Slot),
}

/// The slots of both kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    x509: Slots,
    jwt: Slots,
    no_jwt: bool,
}

impl Rotation {
    /// No authorities yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves JWT authorities alone: no step is ever due for them.
    #[must_use]
    pub const fn without_jwt(mut self) -> Self {
        self.no_jwt = true;
        self
    }

    /// The first step due at `now`, if any. Carry it out, tell it, and ask again.
    #[must_use]
    pub fn due(&self, now: SystemTime) -> Option<Step> {
        self.kinds()
            .find_map(|kind| self.slots(kind).due(kind, now))
    }

    /// When the next step will be due, once all steps due by now were told. `None` while an authority is missing, since
    /// then a step is due at once.
    #[must_use]
    pub fn next_due(&self) -> Option<SystemTime> {
        self.kinds()
            .map(|kind| self.slots(kind).next_due())
            .min()
            .flatten()
    }

    /// All records; of each kind, the active one first.
    pub fn records(&self) -> impl Iterator<Item = (Kind, &Record)> {
        self.kinds().flat_map(|kind| {
            let slots = self.slots(kind);
            let records = slots.current.iter().chain(&slots.next);
            records.map(move |record| (kind, record))
        })
    }

    /// The authority that signs.
    #[must_use]
    pub const fn active(&self, kind: Kind) -> Option<&Record> {
        self.slots(kind).current.as_ref()
    }

    /// The authority in the other slot: prepared or old.
    #[must_use]
    pub const fn next(&self, kind: Kind) -> Option<&Record> {
        self.slots(kind).next.as_ref()
    }

    /// An authority was prepared and published, in place of an old one.
    pub fn prepared(&mut self, kind: Kind, mut record: Record) {
        record.status = Status::Prepared;
        self.slots_mut(kind).next = Some(record);
    }

    /// The prepared authority signs from now on; the former one is old. Without a prepared one, nothing changes.
    pub fn activated(&mut self, kind: Kind) {
        let slots = self.slots_mut(kind);
        let Some(mut record) = slots.next.take_if(|next| next.status == Status::Prepared) else {
            return;
        };
        record.status = Status::Active;
        slots.next = slots.current.replace(record);
        if let Some(old) = &mut slots.next {
            old.status = Status::Old;
        }
    }

    fn kinds(&self) -> impl Iterator<Item = Kind> {
        let no_jwt = self.no_jwt;
        Kind::ALL
            .into_iter()
            .filter(move |kind| *kind != Kind::Jwt || !no_jwt)
    }

    const fn slots(&self, kind: Kind) -> &Slots {
        match kind {
            Kind::X509 => &self.x509,
            Kind::Jwt => &self.jwt,
        }
    }

    const fn slots_mut(&mut self, kind: Kind) -> &mut Slots {
        match kind {
            Kind::X509 => &mut self.x509,
            Kind::Jwt => &mut self.jwt,
        }
    }
}

/// The slots of one kind. `current` is active, where it is; `next` never is, and lies in the other slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slots {
    current: Option<Record>,
    next: Option<Record>,
}

impl Slots {
    fn due(&self, kind: Kind, now: SystemTime) -> Option<Step> {
        // After the clock was set back, a certificate may begin in the future; a JWT key has no beginning.
        let begun = |record: &Record| kind == Kind::Jwt || record.begins_at() <= now;
        // An authority prepared before a long outage may be of no more use than the active one.
        let usable = |next: &&Record| now < next.activate_at() && begun(next);
        let prepared = self.prepared().filter(usable);
        let reached = |at: fn(&Record) -> SystemTime| {
            self.current
                .as_ref()
                .is_none_or(|current| now >= at(current) || !begun(current))
        };
        match prepared {
            Some(next) => reached(Record::activate_at).then_some(Step::Activate(kind, next.slot)),
            None => reached(Record::prepare_at).then_some(Step::Prepare(kind, self.free())),
        }
    }

    fn next_due(&self) -> Option<SystemTime> {
        let current = self.current.as_ref()?;
        Some(if self.prepared().is_some() {
            current.activate_at()
        } else {
            current.prepare_at()
        })
    }

    fn prepared(&self) -> Option<&Record> {
        self.next
            .as_ref()
            .filter(|next| next.status == Status::Prepared)
    }

    /// The slot that the active authority is not in.
    fn free(&self) -> Slot {
        self.current
            .as_ref()
            .map_or(Slot::A, |current| current.slot.other())
    }
}

/// As the journal keeps it.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}

#[cfg(test)]
mod tests;
