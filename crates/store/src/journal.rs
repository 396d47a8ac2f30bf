//! The CA journal: what a server must remember of its authorities. One row for each server of a trust domain, found by the
//! ID of its active X.509 authority.

use crate::{Store, StoreError};

/// One server's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaJournal {
    /// The row.
    pub id: i64,
    /// The ID of the X.509 authority that was active when it was written; empty before there was one.
    pub active_x509_authority_id: String,
    /// What the server wrote.
    pub data: Vec<u8>,
}

impl Store {
    /// All journals, in the order of creation.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn ca_journals(&self) -> Result<Vec<CaJournal>, StoreError> {
        todo!()
    }

    /// Writes a journal: the row `id`, or a new one; tells the row.
    ///
    /// # Errors
    /// When the write failed, or the row is gone.
    pub async fn save_ca_journal(
        &self,
        id: Option<i64>,
        active_x509_authority_id: &str,
        data: Vec<u8>,
    ) -> Result<i64, StoreError> {
        let _ = (id, active_x509_authority_id, data);
        todo!()
    }

    /// Deletes a journal, if it is there.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn delete_ca_journal(&self, id: i64) -> Result<(), StoreError> {
        let _ = id;
        todo!()
    }
}
