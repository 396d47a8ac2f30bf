//! When authorities are prepared and activated. Pure: it keeps records, takes `now`, and says what is due.
//!
//! Each kind of authority has two slots, A and B. The current one is active; the next one is empty, prepared, or old.
//! A prepared authority stands in the bundle and signs nothing; activating it makes the former one old.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// X.509-SVIDs.
    X509,
    /// JWT-SVIDs.
    Jwt,
}

/// One of the two places for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slot {
    /// A.
    A,
    /// B.
    B,
}

/// How far an authority has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// When it was made.
    pub issued_at: SystemTime,
    /// Until when it may sign.
    pub not_after: SystemTime,
    /// The public half: an X.509 authority's certificate, a JWT authority's SubjectPublicKeyInfo; DER.
    pub public: Vec<u8>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make an authority in this slot, publish it in the bundle, then tell [`Rotation::prepared`].
    Prepare(Kind, Slot),
    /// Sign with the authority in this slot from now on: tell [`Rotation::activated`].
    Activate(Kind, Slot),
}

/// The slots of both kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    x509: Slots,
    jwt: Slots,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slots {
    current: Option<Record>,
    next: Option<Record>,
}

impl Rotation {
    /// No authorities yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first step due at `now`, if any. Carry it out, tell it, and ask again.
    #[must_use]
    pub fn due(&self, now: SystemTime) -> Option<Step> {
        let _ = (now, &self.x509.current, &self.jwt.next);
        todo!()
    }

    /// When the next step will be due, provided all steps due by now were told.
    #[must_use]
    pub fn next_due(&self) -> Option<SystemTime> {
        todo!()
    }

    /// The authority that signs.
    #[must_use]
    pub fn active(&self, kind: Kind) -> Option<&Record> {
        let _ = kind;
        todo!()
    }

    /// The authority in the other slot: prepared or old.
    #[must_use]
    pub fn next(&self, kind: Kind) -> Option<&Record> {
        let _ = kind;
        todo!()
    }

    /// An authority was prepared and published.
    pub fn prepared(&mut self, kind: Kind, record: Record) {
        let _ = (kind, record);
        todo!()
    }

    /// The prepared authority signs from now on; the former one is old.
    pub fn activated(&mut self, kind: Kind) {
        let _ = kind;
        todo!()
    }

    /// The records as a journal, JSON.
    #[must_use]
    pub fn to_journal(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads a journal, leaving out the records that `usable` refuses, such as those whose key is gone.
    ///
    /// # Errors
    /// When it is no journal.
    pub fn from_journal(
        journal: &[u8],
        usable: impl Fn(Kind, &Record) -> bool,
    ) -> Result<Self, serde_json::Error> {
        let _ = (journal, usable);
        todo!()
    }
}
