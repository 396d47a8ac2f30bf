//! Registration entries.

use std::sync::Arc;
use std::time::SystemTime;

use identity::{EntryError, EntryId, RegistrationEntry, TrustDomain};
use thiserror::Error;

use crate::{EntryFilter, Listing, Page, Store, StoreError};

/// Why one entry was not created.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateEntryError {
    /// An entry of the same SPIFFE ID, parent ID and selectors exists.
    #[error("similar entry already exists")]
    Similar(Arc<RegistrationEntry>),
    /// Another entry has this ID.
    #[error("the entry ID {0} is taken by another entry")]
    IdTaken(EntryId),
    /// It federates with a trust domain whose bundle is not here.
    #[error("there is no bundle of the trust domain {0}, with which the entry federates")]
    NoBundle(TrustDomain),
}

/// Why one entry was not updated.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpdateEntryError {
    /// No such entry.
    #[error("entry not found")]
    NotFound,
    /// The edit, or what came of it, is refused.
    #[error(transparent)]
    Invalid(#[from] EntryError),
    /// Another entry of the same SPIFFE ID, parent ID and selectors exists.
    #[error("similar entry already exists")]
    Similar(Arc<RegistrationEntry>),
    /// It federates with a trust domain whose bundle is not here.
    #[error("there is no bundle of the trust domain {0}, with which the entry federates")]
    NoBundle(TrustDomain),
}

/// Changes an entry, or refuses to. The ID, `created_at` and `revision` are the store's: whatever it writes there is lost.
pub type EditEntry = Box<dyn FnOnce(&mut RegistrationEntry) -> Result<(), EntryError> + Send>;

/// A fresh entry ID, a UUIDv4.
#[must_use]
pub fn new_entry_id() -> EntryId {
    todo!()
}

impl Store {
    /// Creates entries, all in one transaction; one result for each, in order. The entries are valid already
    /// ([`RegistrationEntry::validate`]) and carry their IDs.
    ///
    /// # Errors
    /// When the write failed as a whole.
    pub async fn create_entries(
        &self,
        entries: Vec<RegistrationEntry>,
    ) -> Result<Vec<Result<Arc<RegistrationEntry>, CreateEntryError>>, StoreError> {
        let _ = entries;
        todo!()
    }

    /// Edits entries, all in one transaction; one result for each, in order. Each edit counts up the entry's revision.
    ///
    /// # Errors
    /// When the write failed as a whole.
    pub async fn update_entries(
        &self,
        edits: Vec<(EntryId, EditEntry)>,
    ) -> Result<Vec<Result<Arc<RegistrationEntry>, UpdateEntryError>>, StoreError> {
        let _ = edits;
        todo!()
    }

    /// Deletes entries, all in one transaction; for each, in order, whether it was there.
    ///
    /// # Errors
    /// When the write failed as a whole.
    pub async fn delete_entries(&self, ids: Vec<EntryId>) -> Result<Vec<bool>, StoreError> {
        let _ = ids;
        todo!()
    }

    /// Deletes the entries whose `expires_at` is before `now`, and tells their IDs.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn prune_entries(&self, now: SystemTime) -> Result<Vec<EntryId>, StoreError> {
        let _ = now;
        todo!()
    }

    /// The entry of this ID.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn entry(&self, id: &EntryId) -> Result<Option<RegistrationEntry>, StoreError> {
        let _ = id;
        todo!()
    }

    /// One page of the entries the filter means.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn list_entries(
        &self,
        filter: &EntryFilter,
        page: Page,
    ) -> Result<Listing<RegistrationEntry>, StoreError> {
        let _ = (filter, page);
        todo!()
    }

    /// How many entries the filter means.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn count_entries(&self, filter: &EntryFilter) -> Result<u64, StoreError> {
        let _ = filter;
        todo!()
    }
}
