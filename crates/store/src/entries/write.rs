//! Creating, editing and deleting entries inside a transaction. Whatever can be refused is refused before the first write of
//! an item, so that no item needs to be undone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use identity::{EntryId, RegistrationEntry, TrustDomain};
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Row as _};

use super::{
    CreateEntryError, Created, EditEntry, EntryRow, FEDERATES_WITH, SELECTORS, UpdateEntryError,
    Updated, by_id, row,
};
use crate::StoreError;
use crate::changes::Change;
use crate::sets::{self, Index, Members};
use crate::time::seconds;
use crate::writer::Transaction;

pub(super) async fn create(
    transaction: &mut Transaction,
    entries: Vec<RegistrationEntry>,
) -> Result<Vec<Created>, StoreError> {
    let wanted = entries.iter().flat_map(|entry| &entry.federates_with);
    let missing = missing_bundles(&mut transaction.connection, wanted).await?;
    let entries: Vec<Arc<RegistrationEntry>> = entries.into_iter().map(Arc::new).collect();
    // The ID of each item's row, where nothing forbids it; an ID that is not used in the end is skipped for good.
    let ids: Vec<Option<i64>> = entries
        .iter()
        .map(|entry| {
            let allowed = missing.is_disjoint(&entry.federates_with);
            allowed.then(|| transaction.next_sequence().cast_signed())
        })
        .collect();
    let rows: Vec<(i64, &RegistrationEntry)> = ids
        .iter()
        .zip(&entries)
        .filter_map(|(id, entry)| Some(((*id)?, entry.as_ref())))
        .collect();
    let refused = insert(&mut transaction.connection, &rows).await?;

    let mut outcomes = Vec::with_capacity(entries.len());
    for (id, entry) in ids.into_iter().zip(entries) {
        outcomes.push(match id {
            None => Err(no_bundle(&missing, &entry)),
            Some(id) if refused.contains(&id) => Err(conflict(transaction, id, &entry).await?),
            Some(id) => {
                let change = Change::Entry(entry.id.clone(), Some(Arc::clone(&entry)));
                transaction.record_as(id.cast_unsigned(), change);
                Ok(entry)
            }
        });
    }
    Ok(outcomes)
}

/// Inserts rows and their members; tells the IDs of those that collide with what is there, or with one before them.
async fn insert(
    connection: &mut SqliteConnection,
    rows: &[(i64, &RegistrationEntry)],
) -> Result<HashSet<i64>, StoreError> {
    let mut refused = HashSet::new();
    for chunk in sets::chunks(rows) {
        let mut query = QueryBuilder::new(row::INSERT);
        row::push_values(&mut query, chunk);
        query.push(" ON CONFLICT DO NOTHING");
        let inserted = query.build().execute(&mut *connection).await?;
        if usize::try_from(inserted.rows_affected()).unwrap_or_default() < chunk.len() {
            refused.extend(not_inserted(connection, chunk).await?);
        }
    }
    let stay = |id: &i64| !refused.contains(id);
    let rows = rows.iter().filter(|(id, _)| stay(id));
    let selectors = rows
        .clone()
        .flat_map(|(id, entry)| members(&entry.selectors, *id));
    SELECTORS.insert(connection, selectors.collect()).await?;
    let federates_with = rows.flat_map(|(id, entry)| members(&entry.federates_with, *id));
    FEDERATES_WITH
        .insert(connection, federates_with.collect())
        .await?;
    Ok(refused)
}

async fn not_inserted(
    connection: &mut SqliteConnection,
    chunk: &[(i64, &RegistrationEntry)],
) -> Result<Vec<i64>, StoreError> {
    const BETWEEN: &str = "SELECT id FROM entries WHERE id BETWEEN $1 AND $2";
    let mut ids = chunk.iter().map(|(id, _)| *id);
    let (first, last) = (ids.clone().min(), ids.clone().max());
    let inserted: Vec<i64> = sqlx::query_scalar(BETWEEN)
        .bind(first)
        .bind(last)
        .fetch_all(connection)
        .await?;
    let inserted: HashSet<i64> = inserted.into_iter().collect();
    Ok(ids.by_ref().filter(|id| !inserted.contains(id)).collect())
}

fn members(set: &impl Members, owner: i64) -> Vec<(String, i64)> {
    let members = set.members().into_iter();
    members.map(|member| (member, owner)).collect()
}

/// Why an entry could not be inserted as the row `id`. Later items of the batch do not count.
async fn conflict(
    transaction: &mut Transaction,
    id: i64,
    entry: &RegistrationEntry,
) -> Result<CreateEntryError, StoreError> {
    let similar = similar_to(&mut transaction.connection, entry).await?;
    Ok(match similar.filter(|similar| similar.id < id) {
        Some(similar) => CreateEntryError::Similar(Arc::new(similar.entry)),
        None => CreateEntryError::IdTaken(entry.id.clone()),
    })
}

/// The entry of the same SPIFFE ID, parent ID and selectors.
async fn similar_to(
    connection: &mut SqliteConnection,
    entry: &RegistrationEntry,
) -> Result<Option<EntryRow>, StoreError> {
    let found = sqlx::query(row::SELECT_SIMILAR)
        .bind(row::fingerprint(entry))
        .fetch_optional(connection)
        .await?;
    found.as_ref().map(row::read).transpose()
}

/// Those of the trust domains that have no bundle here.
async fn missing_bundles(
    connection: &mut SqliteConnection,
    wanted: impl Iterator<Item = &TrustDomain>,
) -> Result<BTreeSet<TrustDomain>, StoreError> {
    let wanted: BTreeSet<&TrustDomain> = wanted.collect();
    let mut missing: BTreeMap<&str, &TrustDomain> = wanted
        .into_iter()
        .map(|name| (name.as_str(), name))
        .collect();
    let names: Vec<&str> = missing.keys().copied().collect();
    for chunk in sets::chunks(&names) {
        let mut query = QueryBuilder::new("SELECT trust_domain FROM bundles");
        sets::push_in(&mut query, " WHERE trust_domain", chunk);
        for row in query.build().fetch_all(&mut *connection).await? {
            missing.remove(row.try_get::<&str, _>(0)?);
        }
    }
    Ok(missing.into_values().cloned().collect())
}

fn no_bundle(missing: &BTreeSet<TrustDomain>, entry: &RegistrationEntry) -> CreateEntryError {
    let first = entry.federates_with.intersection(missing).next();
    CreateEntryError::NoBundle(
        first
            .expect("an entry must lack a bundle to be refused for it")
            .clone(),
    )
}

pub(super) async fn update(
    transaction: &mut Transaction,
    edits: Vec<(EntryId, EditEntry)>,
) -> Result<Vec<Updated>, StoreError> {
    let mut outcomes = Vec::with_capacity(edits.len());
    for (id, edit) in edits {
        outcomes.push(update_one(transaction, &id, edit).await?);
    }
    Ok(outcomes)
}

async fn update_one(
    transaction: &mut Transaction,
    id: &EntryId,
    edit: EditEntry,
) -> Result<Updated, StoreError> {
    let Some(before) = by_id(&mut transaction.connection, id.as_str()).await? else {
        return Ok(Err(UpdateEntryError::NotFound));
    };
    let mut after = before.entry.clone();
    if let Err(reason) = edit(&mut after) {
        return Ok(Err(UpdateEntryError::Refused(reason)));
    }
    let similar = similar_to(&mut transaction.connection, &after).await?;
    if let Some(similar) = similar.filter(|similar| similar.id != before.id) {
        return Ok(Err(UpdateEntryError::Similar(Arc::new(similar.entry))));
    }
    let wanted = after.federates_with.iter();
    if let Some(name) = missing_bundles(&mut transaction.connection, wanted)
        .await?
        .pop_first()
    {
        return Ok(Err(UpdateEntryError::NoBundle(name)));
    }
    Ok(Ok(replace(transaction, &before, after).await?))
}

/// Writes an entry in place of its former self, one revision up.
pub(crate) async fn replace(
    transaction: &mut Transaction,
    before: &EntryRow,
    mut after: RegistrationEntry,
) -> Result<Arc<RegistrationEntry>, StoreError> {
    after.id = before.entry.id.clone();
    after.created_at = before.entry.created_at;
    after.revision = before.entry.revision + 1;
    let connection = &mut transaction.connection;
    sqlx::query(row::DELETE)
        .bind(before.id)
        .execute(&mut *connection)
        .await?;
    let mut query = QueryBuilder::new(row::INSERT);
    row::push_values(&mut query, &[(before.id, &after)]);
    query.build().execute(&mut *connection).await?;
    replace_members(
        connection,
        SELECTORS,
        before.id,
        (&before.entry.selectors, &after.selectors),
    )
    .await?;
    let federates_with = (&before.entry.federates_with, &after.federates_with);
    replace_members(connection, FEDERATES_WITH, before.id, federates_with).await?;
    let after = Arc::new(after);
    transaction.record(Change::Entry(after.id.clone(), Some(Arc::clone(&after))));
    Ok(after)
}

async fn replace_members<S: Members + PartialEq>(
    connection: &mut SqliteConnection,
    index: Index,
    owner: i64,
    (before, after): (&S, &S),
) -> Result<(), StoreError> {
    if before != after {
        index.delete(connection, &before.members(), owner).await?;
        index.insert(connection, members(after, owner)).await?;
    }
    Ok(())
}

pub(super) async fn delete(
    transaction: &mut Transaction,
    ids: Vec<EntryId>,
) -> Result<Vec<bool>, StoreError> {
    let mut found = by_ids(&mut transaction.connection, &ids).await?;
    let mut rows = Vec::with_capacity(found.len());
    let mut outcomes = Vec::with_capacity(ids.len());
    for id in &ids {
        // Named twice, it is gone the second time.
        let row = found.remove(id);
        outcomes.push(row.is_some());
        rows.extend(row);
    }
    delete_rows(transaction, rows).await?;
    Ok(outcomes)
}

pub(super) async fn prune(
    transaction: &mut Transaction,
    now: SystemTime,
) -> Result<Vec<EntryId>, StoreError> {
    let rows = sqlx::query(row::SELECT_EXPIRED)
        .bind(seconds(now))
        .fetch_all(&mut transaction.connection)
        .await?;
    let rows: Vec<EntryRow> = rows.iter().map(row::read).collect::<Result<_, _>>()?;
    let ids = rows.iter().map(|row| row.entry.id.clone()).collect();
    delete_rows(transaction, rows).await?;
    Ok(ids)
}

async fn by_ids(
    connection: &mut SqliteConnection,
    ids: &[EntryId],
) -> Result<HashMap<EntryId, EntryRow>, StoreError> {
    let mut found = HashMap::with_capacity(ids.len());
    for chunk in sets::chunks(ids) {
        let names: Vec<&str> = chunk.iter().map(EntryId::as_str).collect();
        let mut query = QueryBuilder::new(row::SELECT);
        sets::push_in(&mut query, " AND entry_id", &names);
        for row in query.build().fetch_all(&mut *connection).await? {
            let row = row::read(&row)?;
            found.insert(row.entry.id.clone(), row);
        }
    }
    Ok(found)
}

/// Deletes entries that are there.
pub(crate) async fn delete_rows(
    transaction: &mut Transaction,
    rows: Vec<EntryRow>,
) -> Result<(), StoreError> {
    let connection = &mut transaction.connection;
    for EntryRow { id, entry } in &rows {
        SELECTORS
            .delete(connection, &entry.selectors.members(), *id)
            .await?;
        FEDERATES_WITH
            .delete(connection, &entry.federates_with.members(), *id)
            .await?;
    }
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    for chunk in sets::chunks(&ids) {
        let mut query = QueryBuilder::new("DELETE FROM entries WHERE id IN (");
        let mut list = query.separated(", ");
        for id in chunk {
            list.push_bind(*id);
        }
        query.push(")");
        query.build().execute(&mut *connection).await?;
    }
    for EntryRow { entry, .. } in rows {
        transaction.record(Change::Entry(entry.id, None));
    }
    Ok(())
}
