//! Looking at everything the server has, page by page, while work goes on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use identity::RegistrationEntry;

use super::ids::{self, Ownership};
use super::{Ledger, Wanted};

/// A listing under way.
#[derive(Debug, Default)]
pub struct Listing {
    seen: HashMap<String, Arc<Wanted>>,
    /// Written or deleted since the listing began: what it says of these may be old.
    touched: HashSet<String>,
}

impl Listing {
    pub(super) fn touch(&mut self, id: &str) {
        self.seen.remove(id);
        self.touched.insert(id.to_owned());
    }
}

impl Ledger {
    /// A listing begins; one under way is dropped.
    pub fn begin_listing(&mut self) {
        self.listing = Some(Listing::default());
    }

    /// One page of it.
    pub fn list_page(&mut self, entries: &[RegistrationEntry]) {
        let Some(listing) = &mut self.listing else {
            return;
        };
        for entry in entries {
            let id = entry.id.as_str();
            let wanted = Wanted::of(entry);
            let own = ids::ownership(&self.rule, id) != Ownership::Foreign;
            // Somebody else's entry is of interest only where it stands in for one of ours.
            let known = self.ids.contains_key(id);
            if (own || known || self.wanted.contains_key(&wanted.key))
                && !listing.touched.contains(id)
            {
                listing.seen.insert(id.to_owned(), Arc::new(wanted));
            }
        }
    }

    /// The listing is complete: what it did not show is gone.
    pub fn end_listing(&mut self) {
        let Some(listing) = self.listing.take() else {
            return;
        };
        let stale =
            |id: &&String| !listing.seen.contains_key(*id) && !listing.touched.contains(*id);
        let gone: Vec<String> = self.ids.keys().filter(stale).cloned().collect();
        for id in gone {
            if let Some(key) = self.forget(&id) {
                self.enqueue(key);
            }
        }
        for (id, wanted) in listing.seen {
            let key = wanted.key.clone();
            let same = self
                .existing
                .get(&key)
                .and_then(|existing| existing.get(&id));
            if same.is_none_or(|known| known.wanted != wanted) {
                self.note(&id, wanted);
                self.enqueue(key);
            }
        }
    }
}
