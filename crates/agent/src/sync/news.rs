//! What one sync of the entries brings.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use identity::{EntryId, RegistrationEntry};
use proto::spire::api::types;

/// What tells two versions of an entry apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Revision {
    pub(super) number: i64,
    pub(super) created_at: i64,
}

impl Revision {
    pub(super) fn of(entry: &RegistrationEntry) -> Self {
        let created = entry.created_at.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = created.map_or(0, |since| since.as_secs());
        Self {
            number: entry.revision,
            created_at: i64::try_from(seconds).unwrap_or(i64::MAX),
        }
    }
}

/// Entries that cannot be used, so that each is said once.
pub(super) type Refused = HashSet<(String, i64)>;

/// What one sync brings.
#[derive(Debug, Default)]
pub(super) struct News {
    /// How many entries are new.
    pub(super) added: usize,
    /// How many are different.
    pub(super) updated: usize,
    /// Entries that cannot be used.
    unreadable: HashSet<String>,
}

impl News {
    /// The entries of a page, but for those that break a rule.
    pub(super) fn read(
        &mut self,
        page: &[types::Entry],
        known: &HashMap<String, Revision>,
        refused: &mut Refused,
    ) -> Vec<Arc<RegistrationEntry>> {
        let mut upserted = Vec::with_capacity(page.len());
        for wire in page {
            match proto::convert::entry(wire) {
                Ok(entry) if known.contains_key(entry.id.as_str()) => {
                    self.updated += 1;
                    upserted.push(Arc::new(entry));
                }
                Ok(entry) => {
                    self.added += 1;
                    upserted.push(Arc::new(entry));
                }
                Err(error) => {
                    self.unreadable.insert(wire.id.clone());
                    if refused.insert((wire.id.clone(), wire.revision_number)) {
                        tracing::warn!(entry_id = wire.id, %error, "leaving out an entry that breaks a rule");
                    }
                }
            }
        }
        upserted
    }

    /// What is no longer this agent's, given the IDs of all that is. What the server changed beyond our reading must not
    /// go on in its former form either.
    pub(super) fn removed(
        &self,
        known: &HashMap<String, Revision>,
        ids: &HashSet<String>,
    ) -> Vec<EntryId> {
        known
            .keys()
            .filter(|id| !ids.contains(*id) || self.unreadable.contains(*id))
            .filter_map(|id| EntryId::new(id).ok())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::entry;

    #[test]
    fn an_entry_that_became_unreadable_is_left_out() {
        let former = entry("web", &["unix:uid:1"]);
        let known = HashMap::from([(former.id.to_string(), Revision::of(&former))]);
        let mut wire = types::Entry::from(&former);
        wire.revision_number += 1;
        wire.spiffe_id = None;
        let mut news = News::default();
        let upserted = news.read(std::slice::from_ref(&wire), &known, &mut Refused::default());
        assert!(upserted.is_empty());
        let removed = news.removed(&known, &[wire.id].into());
        assert_eq!(removed, [former.id]);
        assert_eq!((news.added, news.updated), (0, 0));
    }
}
