//! One name of a stream: what its client holds, what it has not answered yet, and what it still uses.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Note, nonces::Nonces};
use crate::sds::{Absent, Certified, Name, Resource, Version, gate::Gate, gate::Reader};

/// An Envoy answers within milliseconds. One that has not after this long is stuck, or takes the secret without a word.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) name: Name,
    /// What the client holds, taking for granted that it accepts what is on its way.
    pub(super) held: Held,
    /// The last reason told.
    pub(super) told: Option<Absent>,
    in_flight: Option<InFlight>,
    /// What the client rejected; not sent again.
    rejected: Option<Version>,
    /// The certificate that the client uses, as far as known.
    used: Option<Used>,
    /// Counts at the gate, once the own bundle was given out.
    reader: Option<Reader>,
}

/// The response that the client has not answered yet.
#[derive(Debug)]
struct InFlight {
    nonce: u64,
    /// What the client held before.
    before: Held,
    certificate: Option<Arc<Certified>>,
    /// Of the own bundle, at the gate.
    generation: Option<u64>,
    at: SystemTime,
    told: bool,
}

/// A certificate in use.
#[derive(Debug)]
struct Used {
    certificate: Arc<Certified>,
    told_expired: bool,
    /// When half of what was left has gone by since a newer one was offered.
    overdue: Option<SystemTime>,
}

/// What a client holds under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing, as far as known.
    Nothing,
    /// This version.
    Version(Version),
    /// The knowledge that there is none.
    Removed,
}

/// What to put before the client.
#[derive(Debug)]
pub(super) struct Offer<'a> {
    /// `None`: there is no such secret.
    pub(super) resource: Option<&'a Resource>,
    /// The generation, when it is the own bundle.
    pub(super) generation: Option<u64>,
}

/// How the client answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// After how long.
    pub(super) after: Duration,
    /// What it rejected, if it did.
    pub(super) rejected: Option<(Option<Version>, Option<Arc<Certified>>)>,
}

impl Subscription {
    pub(super) const fn new(name: Name, held: Held) -> Self {
        Self {
            name,
            held,
            told: None,
            in_flight: None,
            rejected: None,
            used: None,
            reader: None,
        }
    }

    /// The nonce under which the offer goes out; `None` when the client has it or has refused it.
    pub(super) fn offer(
        &mut self,
        offer: &Offer<'_>,
        gate: &Arc<Gate>,
        nonces: &mut Nonces,
        now: SystemTime,
    ) -> Option<String> {
        let version = offer.resource.map(Resource::version);
        let held = version.map_or(Held::Removed, Held::Version);
        let certificate = offer.resource.and_then(Resource::certificate_info);
        if held == self.held {
            if self.in_flight.is_none() {
                self.accept(certificate.cloned(), offer.generation, gate);
            }
            return None;
        }
        if version.is_some() && self.rejected == version {
            return None;
        }
        let (nonce, text) = nonces.next();
        // With an earlier one unanswered, nobody can say what the client holds if it rejects this.
        let before = match self.in_flight {
            None => self.held,
            Some(_) => Held::Nothing,
        };
        self.in_flight = Some(InFlight {
            nonce,
            before,
            certificate: certificate.cloned(),
            generation: offer.generation,
            at: now,
            told: false,
        });
        if offer.generation.is_some() && self.reader.is_none() {
            self.reader = Some(gate.enter());
        }
        if let (Some(used), Some(_)) = (&mut self.used, certificate) {
            used.offered(now);
        }
        self.held = held;
        self.rejected = None;
        Some(text)
    }

    /// Takes the answer to the response of this nonce; `None` when it is not the one that is awaited.
    pub(super) fn on_answer(
        &mut self,
        nonce: u64,
        rejected: bool,
        gate: &Arc<Gate>,
        now: SystemTime,
    ) -> Option<Answer> {
        let sent = self.in_flight.take_if(|sent| sent.nonce == nonce)?;
        let after = now.duration_since(sent.at).unwrap_or_default();
        let rejected = if rejected {
            Some((self.reject(sent.before), sent.certificate))
        } else {
            self.accept(sent.certificate, sent.generation, gate);
            None
        };
        Some(Answer { after, rejected })
    }

    /// Has it sent once more.
    pub(super) const fn forget(&mut self) {
        self.held = Held::Nothing;
    }

    /// When to look at the time again for this name's sake.
    pub(super) fn wake_at(&self) -> Option<SystemTime> {
        let answer = self.in_flight.as_ref().filter(|sent| !sent.told);
        let answer = answer.map(|sent| sent.at + ANSWER_WITHIN);
        let expiry = self.used.as_ref().filter(|used| !used.told_expired);
        let expiry = expiry.map(|used| used.certificate.expires_at);
        let overdue = self.used.as_ref().and_then(|used| used.overdue);
        let until = match self.told {
            Some(Absent::Unconfirmed { until, .. }) => Some(until),
            _ => None,
        };
        [answer, expiry, overdue, until].into_iter().flatten().min()
    }

    /// What the log should know now that it is this late.
    pub(super) fn on_time(&mut self, name: &Arc<str>, now: SystemTime, notes: &mut Vec<Note>) {
        let name = || Arc::clone(name);
        if let Some(sent) = &mut self.in_flight
            && !sent.told
            && sent.at + ANSWER_WITHIN <= now
        {
            sent.told = true;
            notes.push(Note::Unanswered {
                name: name(),
                certificate: sent.certificate.clone(),
            });
        }
        let Some(used) = &mut self.used else {
            return;
        };
        let certificate = Arc::clone(&used.certificate);
        if !used.told_expired && certificate.expires_at <= now {
            used.told_expired = true;
            used.overdue = None;
            notes.push(Note::Expired {
                name: name(),
                certificate,
            });
        } else if used.overdue.is_some_and(|when| when <= now) {
            used.overdue = None;
            notes.push(Note::Overdue {
                name: name(),
                certificate,
            });
        }
    }

    /// The client uses what it was given.
    fn accept(
        &mut self,
        certificate: Option<Arc<Certified>>,
        generation: Option<u64>,
        gate: &Arc<Gate>,
    ) {
        if let Some(generation) = generation {
            let reader = self.reader.get_or_insert_with(|| gate.enter());
            reader.accepted(generation);
        }
        let current = self.used.as_ref().map(|used| &used.certificate);
        if current != certificate.as_ref() {
            self.used = certificate.map(|certificate| Used {
                certificate,
                told_expired: false,
                overdue: None,
            });
        }
    }

    /// The version the client does not take; it goes on with what it had before.
    const fn reject(&mut self, before: Held) -> Option<Version> {
        let version = match self.held {
            Held::Version(version) => Some(version),
            Held::Nothing | Held::Removed => None,
        };
        self.held = before;
        self.rejected = version;
        version
    }
}

impl Used {
    /// A newer one is offered. Should that not be taken, there is still time to do something about it.
    fn offered(&mut self, now: SystemTime) {
        let left = self.certificate.expires_at.duration_since(now);
        if let Ok(left) = left
            && self.overdue.is_none()
        {
            self.overdue = Some(now + left / 2);
        }
    }
}
