//! Registration entries.

mod row;
mod write;

use std::sync::Arc;
use std::time::SystemTime;

use identity::{EntryId, RegistrationEntry, SpiffeId, TrustDomain};
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Row as _, Sqlite};
use thiserror::Error;

pub(crate) use row::EntryRow;
pub(crate) use write::{delete_rows, replace};

use crate::sets::{Index, Members as _};
use crate::{EntryFilter, Listing, Page, Store, StoreError};

pub(crate) const SELECTORS: Index = Index {
    table: "entry_selectors",
    whole: "selectors",
    count: "selector_count",
};

pub(crate) const FEDERATES_WITH: Index = Index {
    table: "entry_federates_with",
    whole: "federates_with",
    count: "federates_with_count",
};

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
    #[error("unable to find federated bundle \"{0}\"; set that trust domain's bundle first")]
    NoBundle(TrustDomain),
}

/// Why one entry was not updated.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpdateEntryError {
    /// No such entry.
    #[error("entry not found")]
    NotFound,
    /// The edit was refused.
    #[error("{0}")]
    Refused(String),
    /// Another entry of the same SPIFFE ID, parent ID and selectors exists.
    #[error("similar entry already exists")]
    Similar(Arc<RegistrationEntry>),
    /// It federates with a trust domain whose bundle is not here.
    #[error("unable to find federated bundle \"{0}\"; set that trust domain's bundle first")]
    NoBundle(TrustDomain),
}

/// Changes an entry, or refuses to. The ID, `created_at` and `revision` are the store's: what it writes there is lost.
pub type EditEntry = Box<dyn FnOnce(&mut RegistrationEntry) -> Result<(), String> + Send>;

/// A fresh entry ID, a UUIDv4.
#[must_use]
pub fn new_entry_id() -> EntryId {
    EntryId::new(&uuid::Uuid::new_v4().to_string()).expect("a UUID must be an entry ID")
}

/// An entry's outcome, one of a batch.
type Created = Result<Arc<RegistrationEntry>, CreateEntryError>;
type Updated = Result<Arc<RegistrationEntry>, UpdateEntryError>;

impl Store {
    /// Creates entries, all in one transaction; one result for each, in order. The entries are valid already
    /// ([`RegistrationEntry::validate`]) and carry their IDs.
    ///
    /// # Errors
    /// When the write failed as a whole.
    pub async fn create_entries(
        &self,
        entries: Vec<RegistrationEntry>,
    ) -> Result<Vec<Created>, StoreError> {
        self.write("registration_entry_create", move |transaction| {
            Box::pin(write::create(transaction, entries))
        })
        .await
    }

    /// Edits entries, all in one transaction; one result for each, in order. Each edit counts up the entry's revision.
    ///
    /// # Errors
    /// When the write failed as a whole.
    pub async fn update_entries(
        &self,
        edits: Vec<(EntryId, EditEntry)>,
    ) -> Result<Vec<Updated>, StoreError> {
        self.write("registration_entry_update", move |transaction| {
            Box::pin(write::update(transaction, edits))
        })
        .await
    }

    /// Deletes entries, all in one transaction; for each, in order, whether it was there.
    ///
    /// # Errors
    /// When the write failed as a whole.
    pub async fn delete_entries(&self, ids: Vec<EntryId>) -> Result<Vec<bool>, StoreError> {
        self.write("registration_entry_delete", move |transaction| {
            Box::pin(write::delete(transaction, ids))
        })
        .await
    }

    /// Deletes the entries whose `expires_at` is before `now`, and tells their IDs.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn prune_entries(&self, now: SystemTime) -> Result<Vec<EntryId>, StoreError> {
        self.write("registration_entry_prune", move |transaction| {
            Box::pin(write::prune(transaction, now))
        })
        .await
    }

    /// The entry of this ID.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn entry(&self, id: &EntryId) -> Result<Option<RegistrationEntry>, StoreError> {
        self.observe("registration_entry_fetch", async {
            let found = by_id(&mut *self.reader().await?, id.as_str()).await?;
            Ok(found.map(|row| row.entry))
        })
        .await
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
        self.observe("registration_entry_list", async {
            let mut query = QueryBuilder::new(row::SELECT);
            push_filter(&mut query, filter);
            page.push_to(&mut query);
            let rows = query.build().fetch_all(&mut *self.reader().await?).await?;
            let rows: Vec<EntryRow> = rows.iter().map(row::read).collect::<Result<_, _>>()?;
            let next = page.next(rows.last().map(|row| row.id));
            let items = rows.into_iter().map(|row| row.entry).collect();
            Ok(Listing { items, next })
        })
        .await
    }

    /// How many entries the filter means.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn count_entries(&self, filter: &EntryFilter) -> Result<u64, StoreError> {
        self.observe("registration_entry_count", async {
            let mut query = QueryBuilder::new("SELECT COUNT(*) FROM entries WHERE TRUE");
            push_filter(&mut query, filter);
            let row = query.build().fetch_one(&mut *self.reader().await?).await?;
            Ok(row.try_get::<i64, _>(0)?.cast_unsigned())
        })
        .await
    }
}

fn push_filter(query: &mut QueryBuilder<Sqlite>, filter: &EntryFilter) {
    let EntryFilter {
        spiffe_id,
        parent_id,
        selectors,
        federates_with,
        hint,
        downstream,
    } = filter;
    let texts = [
        (
            " AND spiffe_id = ",
            spiffe_id.as_ref().map(SpiffeId::as_str),
        ),
        (
            " AND parent_id = ",
            parent_id.as_ref().map(SpiffeId::as_str),
        ),
        (" AND hint = ", hint.as_deref()),
    ];
    for (condition, text) in texts {
        if let Some(text) = text {
            query.push(condition).push_bind(text);
        }
    }
    if let Some(downstream) = downstream {
        query.push(" AND downstream = ").push_bind(downstream);
    }
    if let Some((how, wanted)) = selectors {
        SELECTORS.push_condition(query, *how, &wanted.members());
    }
    if let Some((how, wanted)) = federates_with {
        FEDERATES_WITH.push_condition(query, *how, &wanted.members());
    }
}

/// All entries, in the order of creation.
pub(crate) async fn all(
    connection: &mut SqliteConnection,
) -> Result<Vec<RegistrationEntry>, StoreError> {
    let rows = sqlx::query(row::SELECT_ALL).fetch_all(connection).await?;
    rows.iter()
        .map(|row| row::read(row).map(|row| row.entry))
        .collect()
}

pub(crate) async fn by_id(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<Option<EntryRow>, StoreError> {
    let row = sqlx::query(row::SELECT_BY_ID)
        .bind(id)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(row::read).transpose()
}

/// The entries that federate with a trust domain.
pub(crate) async fn federating_with(
    connection: &mut SqliteConnection,
    trust_domain: &str,
) -> Result<Vec<EntryRow>, StoreError> {
    let rows = sqlx::query(row::SELECT_FEDERATING)
        .bind(trust_domain)
        .fetch_all(connection)
        .await?;
    rows.iter().map(row::read).collect()
}

/// The entries under `parent_id` whose one selector is `selector`.
pub(crate) async fn aliases_of(
    connection: &mut SqliteConnection,
    selector: &str,
    parent_id: &SpiffeId,
) -> Result<Vec<EntryRow>, StoreError> {
    let rows = sqlx::query(row::SELECT_ALIASES)
        .bind(parent_id.as_str())
        .bind(selector)
        .fetch_all(connection)
        .await?;
    rows.iter().map(row::read).collect()
}
