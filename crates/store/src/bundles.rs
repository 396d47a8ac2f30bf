//! Bundles: the server's own and those of federated trust domains.

mod row;
mod write;

use identity::{Bundle, TrustDomain};
use thiserror::Error;

pub(crate) use write::set as set_bundle;

use crate::{Listing, Page, Store, StoreError};

/// What becomes of the entries that federate with a deleted bundle's trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteBundleMode {
    /// The bundle stays while there are any.
    Restrict,
    /// They are deleted too.
    Delete,
    /// They no longer federate with it.
    Dissociate,
}

/// Why a bundle is not written.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BundleWriteError {
    /// No such bundle.
    #[error("bundle not found")]
    NotFound,
    /// It is there already.
    #[error("bundle already exists")]
    Exists,
    /// Entries federate with it.
    #[error("cannot delete bundle; federated with {0} registration entries")]
    InUse(usize),
    /// The edit was refused.
    #[error("{0}")]
    Refused(String),
    /// The write failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The bundle of a trust domain.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn bundle(&self, trust_domain: &TrustDomain) -> Result<Option<Bundle>, StoreError> {
        self.observe("bundle_fetch", async {
            let mut reader = self.reader().await?;
            let found = row::by_name(&mut reader, trust_domain).await?;
            Ok(found.map(|row| row.bundle))
        })
        .await
    }

    /// One page of all bundles, the own one included, in the order of creation.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn list_bundles(&self, page: Page) -> Result<Listing<Bundle>, StoreError> {
        self.observe("bundle_list", async {
            let rows = row::page(&mut *self.reader().await?, page).await?;
            let next = page.next(rows.last().map(|row| row.id));
            let items = rows.into_iter().map(|row| row.bundle).collect();
            Ok(Listing { items, next })
        })
        .await
    }

    /// How many bundles there are, the own one included.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn count_bundles(&self) -> Result<u64, StoreError> {
        self.observe("bundle_count", async {
            let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM bundles")
                .fetch_one(&mut *self.reader().await?)
                .await?;
            Ok(count.cast_unsigned())
        })
        .await
    }

    /// Adds a bundle with the sequence number it has.
    ///
    /// # Errors
    /// When the trust domain has one already, or the write failed.
    pub async fn create_bundle(&self, bundle: Bundle) -> Result<(), BundleWriteError> {
        self.write("bundle_create", move |transaction| {
            Box::pin(write::create(transaction, bundle))
        })
        .await?
    }

    /// Puts a bundle in, with the sequence number it has, in place of any former one.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn set_bundle(&self, bundle: Bundle) -> Result<(), StoreError> {
        self.write("bundle_set", move |transaction| {
            Box::pin(write::set(transaction, bundle))
        })
        .await
    }

    /// Edits a trust domain's bundle, which is empty if there is none yet, and tells what came of it. If the edit changed
    /// anything, the sequence number grows by one; the number itself is the store's.
    ///
    /// # Errors
    /// What the edit says, as [`BundleWriteError::Refused`], or when the write failed.
    pub async fn edit_bundle<F>(
        &self,
        trust_domain: &TrustDomain,
        edit: F,
    ) -> Result<Bundle, BundleWriteError>
    where
        F: FnOnce(&mut Bundle) -> Result<(), String> + Send + 'static,
    {
        let name = trust_domain.clone();
        self.write("bundle_append", move |transaction| {
            Box::pin(write::edit(transaction, name, edit))
        })
        .await?
    }

    /// Edits a bundle that is there, its sequence number included, and tells what came of it.
    ///
    /// # Errors
    /// When there is none, or the write failed.
    pub async fn update_bundle<F>(
        &self,
        trust_domain: &TrustDomain,
        edit: F,
    ) -> Result<Bundle, BundleWriteError>
    where
        F: FnOnce(&mut Bundle) + Send + 'static,
    {
        let name = trust_domain.clone();
        self.write("bundle_update", move |transaction| {
            Box::pin(write::update(transaction, name, edit))
        })
        .await?
    }

    /// Deletes a trust domain's bundle.
    ///
    /// # Errors
    /// When there is none, entries federate with it and the mode forbids that, or the write failed.
    pub async fn delete_bundle(
        &self,
        trust_domain: &TrustDomain,
        mode: DeleteBundleMode,
    ) -> Result<(), BundleWriteError> {
        let name = trust_domain.clone();
        self.write("bundle_delete", move |transaction| {
            Box::pin(write::delete(transaction, name, mode))
        })
        .await?
    }
}
