//! Which X.509-SVIDs are due, and in which order: pure, takes the time.
//!
//! Demand comes first: what somebody waits for is issued before what wears out, and that before what
//! nobody has asked for yet. An SVID is renewed when half of its life is over, a tenth of that sooner
//! or later, so that those made together are not renewed together.

mod request;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use identity::{Certificate, EntryId};

pub use request::{RequestError, SvidRequest};

/// How much sooner or later than at its half-life an SVID is renewed, of that half.
const JITTER: f64 = 0.1;

/// How far before the signing an SVID's life begins on paper, so that clocks may differ: ours and SPIRE's servers do the same.
const BACKDATED: Duration = Duration::from_secs(10);

/// An SVID must outlive the availability target by this much for the target to count (SPIRE's rule).
const AVAILABILITY_SLACK: Duration = Duration::from_hours(12);

/// How much later than the availability target asks at the most.
const AVAILABILITY_JITTER: Duration = Duration::from_mins(10);

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_mins(4);

/// When SVIDs are renewed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    /// What must be left of an SVID at any time, where its life is long enough.
    pub availability_target: Option<Duration>,
}

impl Rotation {
    /// When this certificate is to be renewed.
    #[must_use]
    pub fn due(&self, leaf: &Certificate) -> SystemTime {
        let until = leaf.not_after();
        let from = (leaf.not_before() + BACKDATED).min(until);
        let life = until.duration_since(from).unwrap_or_default();
        let spread = spread(leaf);
        if let Some(target) = self.availability_target
            && life.saturating_sub(target) > AVAILABILITY_SLACK
        {
            // Never later than the target says.
            let early = AVAILABILITY_JITTER.mul_f64(f64::midpoint(spread, 1.0));
            return until.checked_sub(target + early).unwrap_or(from);
        }
        let left = (life / 2).mul_f64(JITTER.mul_add(spread, 1.0));
        until.checked_sub(left).unwrap_or(from)
    }
}

/// From -1 to 1, the same for the same certificate: its serial number is chance enough.
fn spread(leaf: &Certificate) -> f64 {
    const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x0100_0000_01b3;
    let hash = leaf
        .serial_decimal()
        .bytes()
        .fold(FNV_OFFSET, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
        });
    // The high bits are the well-mixed ones.
    let top = u32::try_from(hash >> 32).unwrap_or(u32::MAX);
    f64::from(top) / f64::from(u32::MAX) * 2.0 - 1.0
}

/// The queue of SVIDs to be issued.
#[derive(Debug, Default)]
pub struct Plan {
    items: HashMap<EntryId, Item>,
    /// To be issued now, in this order.
    ready: BTreeMap<(Rank, u64), EntryId>,
    /// To be issued later.
    later: BTreeSet<(SystemTime, EntryId)>,
    /// Numbers what gets ready, so that first come is first served.
    counter: u64,
    /// How many are held or on their way.
    held: usize,
    /// Above how many nothing is made for which nobody waits.
    capacity: usize,
}

/// Why an SVID is made; the first is the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Waiting,
    Renewal,
    Prefetch,
}

#[derive(Debug)]
struct Item {
    rank: Rank,
    place: Place,
    /// Whether there is an SVID that will do for now.
    has_one: bool,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready(u64),
    Later(SystemTime),
    InFlight,
}

impl Plan {
    /// An empty plan; above `capacity` SVIDs nothing is made for which nobody waits.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    /// The entry has no SVID; `waited_for` says whether somebody waits, now.
    pub fn want(&mut self, entry: &EntryId, waited_for: bool) {
        let rank = if waited_for {
            Rank::Waiting
        } else {
            Rank::Prefetch
        };
        let Some(item) = self.items.get_mut(entry) else {
            return self.queue(entry, rank, false);
        };
        match item.place {
            // On its way already.
            Place::InFlight => {
                item.rank = rank;
                item.has_one = false;
            }
            // It failed before: being urgent is no reason to try sooner.
            Place::Later(_) if item.failures > 0 => {
                self.held -= usize::from(counts(item));
                item.rank = rank;
                item.has_one = false;
            }
            Place::Ready(_) if !item.has_one && item.rank == rank => {}
            _ => self.queue(entry, rank, false),
        }
    }

    /// The entry has an SVID that is to be renewed at `due`.
    pub fn hold(&mut self, entry: &EntryId, due: SystemTime) {
        self.put(entry, Rank::Renewal, Place::Later(due), true, 0);
    }

    /// The entry's SVID is to be replaced at once, though it will do until then.
    pub fn force(&mut self, entry: &EntryId) {
        match self.items.get(entry) {
            Some(item) if item.place == Place::InFlight => {}
            _ => self.queue(entry, Rank::Renewal, true),
        }
    }

    /// The entry is gone, or is not to be renewed.
    pub fn forget(&mut self, entry: &EntryId) {
        if let Some(item) = self.items.remove(entry) {
            self.unlink(entry, &item);
        }
    }

    /// Takes up to `limit` entries that are due, the most urgent first. Each stays in flight until
    /// [`Plan::hold`], [`Plan::failed`], [`Plan::give_back`] or [`Plan::forget`].
    pub fn take(&mut self, now: SystemTime, limit: usize) -> Vec<EntryId> {
        self.advance(now);
        let mut taken = Vec::new();
        while taken.len() < limit {
            let Some((&(rank, number), _)) = self.ready.first_key_value() else {
                break;
            };
            if rank == Rank::Prefetch && self.held >= self.capacity {
                break;
            }
            let Some(entry) = self.ready.remove(&(rank, number)) else {
                break;
            };
            if let Some(item) = self.items.get_mut(&entry) {
                item.place = Place::InFlight;
                self.held += usize::from(!item.has_one);
            }
            taken.push(entry);
        }
        taken
    }

    /// The server refused to issue this one: it is tried again later and later.
    pub fn failed(&mut self, entry: &EntryId, now: SystemTime) {
        let Some(item) = self.items.get(entry) else {
            return;
        };
        let (rank, has_one, failures) = (item.rank, item.has_one, item.failures + 1);
        let retry = now + retry_after(failures);
        self.put(entry, rank, Place::Later(retry), has_one, failures);
    }

    /// The request failed as a whole: this one is due again.
    pub fn give_back(&mut self, entry: &EntryId) {
        let Some(item) = self.items.get(entry) else {
            return;
        };
        let (rank, has_one, failures) = (item.rank, item.has_one, item.failures);
        let place = Place::Ready(self.next_number());
        self.put(entry, rank, place, has_one, failures);
    }

    /// Whatever was to be issued later is due now.
    pub fn hurry(&mut self) {
        for (_, entry) in std::mem::take(&mut self.later) {
            let number = self.next_number();
            if let Some(item) = self.items.get_mut(&entry) {
                item.place = Place::Ready(number);
                self.ready.insert((item.rank, number), entry);
            }
        }
    }

    /// When [`Plan::take`] will next have something: `now` or later, `None` when never.
    #[must_use]
    pub fn next_due(&self, now: SystemTime) -> Option<SystemTime> {
        let blocked = self.held >= self.capacity;
        let ready = self
            .ready
            .first_key_value()
            .is_some_and(|((rank, _), _)| !(*rank == Rank::Prefetch && blocked));
        if ready {
            return Some(now);
        }
        self.later.first().map(|(when, _)| (*when).max(now))
    }

    /// How many entries have no SVID.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.items.values().filter(|item| !item.has_one).count()
    }

    /// How many entries have an SVID that is due.
    #[must_use]
    pub fn stale(&self) -> usize {
        let due = |item: &&Item| item.has_one && !matches!(item.place, Place::Later(_));
        self.items.values().filter(due).count()
    }

    fn advance(&mut self, now: SystemTime) {
        while let Some((when, _)) = self.later.first()
            && *when <= now
        {
            let Some((_, entry)) = self.later.pop_first() else {
                return;
            };
            let number = self.next_number();
            if let Some(item) = self.items.get_mut(&entry) {
                item.place = Place::Ready(number);
                self.ready.insert((item.rank, number), entry);
            }
        }
    }

    fn queue(&mut self, entry: &EntryId, rank: Rank, has_one: bool) {
        let place = Place::Ready(self.next_number());
        self.put(entry, rank, place, has_one, 0);
    }

    fn put(&mut self, entry: &EntryId, rank: Rank, place: Place, has_one: bool, failures: u32) {
        self.forget(entry);
        match place {
            Place::Ready(number) => {
                self.ready.insert((rank, number), entry.clone());
            }
            Place::Later(when) => {
                self.later.insert((when, entry.clone()));
            }
            Place::InFlight => {}
        }
        let item = Item {
            rank,
            place,
            has_one,
            failures,
        };
        self.held += usize::from(counts(&item));
        self.items.insert(entry.clone(), item);
    }

    fn unlink(&mut self, entry: &EntryId, item: &Item) {
        self.held -= usize::from(counts(item));
        match item.place {
            Place::Ready(number) => {
                self.ready.remove(&(item.rank, number));
            }
            Place::Later(when) => {
                self.later.remove(&(when, entry.clone()));
            }
            Place::InFlight => {}
        }
    }

    const fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

fn counts(item: &Item) -> bool {
    item.has_one || item.place == Place::InFlight
}

fn retry_after(failures: u32) -> Duration {
    let factor = 1.5_f64.powi(i32::try_from(failures.min(40)).unwrap_or(40) - 1);
    FIRST_RETRY.mul_f64(factor).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests;
