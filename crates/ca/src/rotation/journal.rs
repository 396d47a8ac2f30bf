//! The journal: the records of both kinds as JSON, kept in the datastore so that a restart keeps its authorities.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Kind, Record, Rotation, Slot, Slots, Status};

/// Why a journal cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// No JSON of the journal's shape.
    #[error("the CA journal is unreadable: {0}")]
    Json(#[from] serde_json::Error),
    /// A record that cannot be.
    #[error("the CA journal's record {0:?} is unreadable")]
    Record(String),
}

#[derive(Serialize, Deserialize)]
struct Journal {
    x509: Vec<Line>,
    jwt: Vec<Line>,
}

/// One record. Times are in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Line {
    slot: char,
    status: LineStatus,
    authority_id: String,
    issued_at: u64,
    not_after: u64,
    public: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LineStatus {
    Prepared,
    Active,
    Old,
}

impl Rotation {
    /// The records as a journal, JSON.
    #[must_use]
    pub fn to_journal(&self) -> Vec<u8> {
        let lines = |slots: &Slots| {
            let records = slots.current.iter().chain(&slots.next);
            records.map(Line::from_record).collect()
        };
        let journal = Journal {
            x509: lines(&self.x509),
            jwt: lines(&self.jwt),
        };
        serde_json::to_vec(&journal).expect("texts and numbers must serialize")
    }

    /// Reads a journal, leaving out the records that `usable` refuses, such as those whose key is gone.
    ///
    /// # Errors
    /// When it is no journal.
    pub fn from_journal(
        journal: &[u8],
        usable: impl Fn(Kind, &Record) -> bool,
    ) -> Result<Self, JournalError> {
        let journal: Journal = serde_json::from_slice(journal)?;
        let slots = |kind, lines: Vec<Line>| {
            let mut slots = Slots::default();
            for line in lines {
                let record = line.into_record()?;
                if usable(kind, &record) {
                    slots.put(record);
                }
            }
            Ok::<_, JournalError>(slots)
        };
        Ok(Self {
            x509: slots(Kind::X509, journal.x509)?,
            jwt: slots(Kind::Jwt, journal.jwt)?,
            no_jwt: false,
        })
    }
}

impl Slots {
    /// Puts a record where its status says; a second one in the same slot has no key and is left out.
    fn put(&mut self, record: Record) {
        let place = match record.status {
            Status::Active => &mut self.current,
            Status::Prepared | Status::Old => &mut self.next,
        };
        if place.is_none() {
            *place = Some(record);
        }
        if let (Some(current), Some(next)) = (&self.current, &self.next)
            && current.slot == next.slot
        {
            self.next = None;
        }
    }
}

impl Line {
    fn from_record(record: &Record) -> Self {
        Self {
            slot: match record.slot {
                Slot::A => 'A',
                Slot::B => 'B',
            },
            status: match record.status {
                Status::Prepared => LineStatus::Prepared,
                Status::Active => LineStatus::Active,
                Status::Old => LineStatus::Old,
            },
            authority_id: record.authority_id.clone(),
            issued_at: seconds(record.issued_at),
            not_after: seconds(record.not_after),
            public: STANDARD.encode(&record.public),
        }
    }

    fn into_record(self) -> Result<Record, JournalError> {
        let unreadable = || JournalError::Record(self.authority_id.clone());
        let time = |seconds| {
            UNIX_EPOCH
                .checked_add(Duration::from_secs(seconds))
                .ok_or_else(unreadable)
        };
        Ok(Record {
            slot: match self.slot {
                'A' => Slot::A,
                'B' => Slot::B,
                _ => return Err(unreadable()),
            },
            status: match self.status {
                LineStatus::Prepared => Status::Prepared,
                LineStatus::Active => Status::Active,
                LineStatus::Old => Status::Old,
            },
            issued_at: time(self.issued_at)?,
            not_after: time(self.not_after)?,
            public: STANDARD.decode(&self.public).map_err(|_| unreadable())?,
            authority_id: self.authority_id,
        })
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
