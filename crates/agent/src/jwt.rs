//! JWT-SVIDs in hand, by entry and audience: pure, takes the time.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use identity::{Bundle, EntryId, JwtSvid};

/// For which entry and audience a token is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JwtKey {
    entry: EntryId,
    /// Sorted, since the order of audiences means nothing.
    audience: Vec<String>,
}

impl JwtKey {
    /// The same key for the same audiences in any order.
    #[must_use]
    pub fn new(entry: &EntryId, audience: &[String]) -> Self {
        let mut audience = audience.to_vec();
        audience.sort_unstable();
        audience.dedup();
        Self {
            entry: entry.clone(),
            audience,
        }
    }

    /// The entry.
    #[must_use]
    pub const fn entry(&self) -> &EntryId {
        &self.entry
    }
}

/// What a cache says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// At least half of its life is left.
    Fresh(JwtSvid),
    /// Valid, but better replaced.
    Stale(JwtSvid),
    /// None, or expired.
    Nothing,
}

/// Tokens, at most so many; the least recently used goes first.
#[derive(Debug)]
pub struct JwtCache {
    slots: HashMap<JwtKey, Slot>,
    by_use: BTreeMap<u64, JwtKey>,
    counter: u64,
    capacity: usize,
}

#[derive(Debug)]
struct Slot {
    svid: JwtSvid,
    fresh_until: SystemTime,
    used: u64,
}

impl JwtCache {
    /// An empty cache.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            slots: HashMap::new(),
            by_use: BTreeMap::new(),
            counter: 0,
            capacity,
        }
    }

    /// What there is for a key.
    pub fn look_up(&mut self, key: &JwtKey, now: SystemTime) -> Held {
        let Some(slot) = self.slots.get_mut(key) else {
            return Held::Nothing;
        };
        if slot.svid.expires_at <= now {
            self.remove(key);
            return Held::Nothing;
        }
        self.counter += 1;
        self.by_use.remove(&slot.used);
        slot.used = self.counter;
        self.by_use.insert(slot.used, key.clone());
        if now < slot.fresh_until {
            Held::Fresh(slot.svid.clone())
        } else {
            Held::Stale(slot.svid.clone())
        }
    }

    /// Keeps a token that came just now.
    pub fn store(&mut self, key: JwtKey, svid: JwtSvid, now: SystemTime) {
        let from = svid.issued_at.unwrap_or(now).min(now);
        let life = svid.expires_at.duration_since(from).unwrap_or_default();
        self.remove(&key);
        self.counter += 1;
        self.by_use.insert(self.counter, key.clone());
        let slot = Slot {
            fresh_until: from + life / 2,
            used: self.counter,
            svid,
        };
        self.slots.insert(key, slot);
        while self.slots.len() > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            self.slots.remove(&oldest);
        }
    }

    /// Drops what is of no more use: tokens of entries that are gone or name another ID, expired
    /// ones, and those whose authority is tainted or gone. Tells of how many it was tainted.
    pub fn retain(
        &mut self,
        entitled: impl Fn(&EntryId, &JwtSvid) -> bool,
        bundle: &Bundle,
        now: SystemTime,
    ) -> usize {
        let mut tainted = 0;
        let mut trusted = |svid: &JwtSvid| {
            let authority = bundle.jwt_authority(&svid.key_id);
            tainted += usize::from(authority.is_some_and(|authority| authority.tainted));
            authority.is_some_and(|authority| !authority.tainted)
        };
        let gone: Vec<JwtKey> = self
            .slots
            .iter()
            .filter(|(key, Slot { svid, .. })| {
                svid.expires_at <= now || !trusted(svid) || !entitled(&key.entry, svid)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.remove(&key);
        }
        tainted
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.by_use.clear();
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn remove(&mut self, key: &JwtKey) {
        if let Some(slot) = self.slots.remove(key) {
            self.by_use.remove(&slot.used);
        }
    }
}

/// How long the server may take while there is a valid token to fall back to.
pub const PATIENCE_WITH_FALLBACK: Duration = Duration::from_secs(1);

/// How long the server may take when there is none.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
