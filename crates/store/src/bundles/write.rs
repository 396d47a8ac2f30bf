//! Changing bundles inside a transaction.

use identity::{Bundle, TrustDomain};

use super::row::{self, BundleRow};
use super::{BundleWriteError, DeleteBundleMode};
use crate::StoreError;
use crate::changes::Change;
use crate::entries;
use crate::writer::Transaction;

pub(super) async fn create(
    transaction: &mut Transaction,
    bundle: Bundle,
) -> Result<Result<(), BundleWriteError>, StoreError> {
    let known = row::by_name(&mut transaction.connection, &bundle.trust_domain).await?;
    if known.is_some() {
        return Ok(Err(BundleWriteError::Exists));
    }
    put(transaction, None, &bundle).await?;
    Ok(Ok(()))
}

pub(crate) async fn set(transaction: &mut Transaction, bundle: Bundle) -> Result<(), StoreError> {
    let known = row::by_name(&mut transaction.connection, &bundle.trust_domain).await?;
    if known.as_ref().is_some_and(|known| known.bundle == bundle) {
        return Ok(());
    }
    put(transaction, known.map(|known| known.id), &bundle).await
}

pub(super) async fn edit(
    transaction: &mut Transaction,
    name: TrustDomain,
    edit: impl FnOnce(&mut Bundle) -> Result<(), String>,
) -> Result<Result<Bundle, BundleWriteError>, StoreError> {
    let known = row::by_name(&mut transaction.connection, &name).await?;
    let (id, before) = match known {
        Some(BundleRow { id, bundle }) => (Some(id), bundle),
        None => (None, Bundle::empty(name.clone())),
    };
    let mut after = before.clone();
    if let Err(reason) = edit(&mut after) {
        return Ok(Err(BundleWriteError::Refused(reason)));
    }
    after.trust_domain = name;
    after.sequence = before.sequence;
    if id.is_some() && after == before {
        return Ok(Ok(before));
    }
    after.sequence += 1;
    put(transaction, id, &after).await?;
    Ok(Ok(after))
}

pub(super) async fn update(
    transaction: &mut Transaction,
    name: TrustDomain,
    edit: impl FnOnce(&mut Bundle),
) -> Result<Result<Bundle, BundleWriteError>, StoreError> {
    let Some(known) = row::by_name(&mut transaction.connection, &name).await? else {
        return Ok(Err(BundleWriteError::NotFound));
    };
    let mut after = known.bundle.clone();
    edit(&mut after);
    after.trust_domain = name;
    if after != known.bundle {
        put(transaction, Some(known.id), &after).await?;
    }
    Ok(Ok(after))
}

pub(super) async fn delete(
    transaction: &mut Transaction,
    name: TrustDomain,
    mode: DeleteBundleMode,
) -> Result<Result<(), BundleWriteError>, StoreError> {
    let Some(known) = row::by_name(&mut transaction.connection, &name).await? else {
        return Ok(Err(BundleWriteError::NotFound));
    };
    let federating = entries::federating_with(&mut transaction.connection, name.as_str()).await?;
    match mode {
        DeleteBundleMode::Restrict if !federating.is_empty() => {
            return Ok(Err(BundleWriteError::InUse(federating.len())));
        }
        DeleteBundleMode::Restrict => {}
        DeleteBundleMode::Delete => entries::delete_rows(transaction, federating).await?,
        DeleteBundleMode::Dissociate => {
            for row in federating {
                let mut entry = row.entry.clone();
                entry.federates_with.remove(&name);
                entries::replace(transaction, &row, entry).await?;
            }
        }
    }
    sqlx::query("DELETE FROM bundles WHERE id = $1")
        .bind(known.id)
        .execute(&mut transaction.connection)
        .await?;
    transaction.record(Change::Bundle(name));
    Ok(Ok(()))
}

async fn put(
    transaction: &mut Transaction,
    id: Option<i64>,
    bundle: &Bundle,
) -> Result<(), StoreError> {
    let id = id.unwrap_or_else(|| transaction.next_sequence().cast_signed());
    row::insert(&mut transaction.connection, id, bundle).await?;
    transaction.record(Change::Bundle(bundle.trust_domain.clone()));
    Ok(())
}
