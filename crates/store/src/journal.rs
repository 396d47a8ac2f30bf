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
        self.observe("ca_journal_fetch", async {
            const ALL: &str =
                "SELECT id, active_x509_authority_id, data FROM ca_journals ORDER BY id";
            let rows: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(ALL)
                .fetch_all(&mut *self.reader().await?)
                .await?;
            let journal = |(id, active_x509_authority_id, data)| CaJournal {
                id,
                active_x509_authority_id,
                data,
            };
            Ok(rows.into_iter().map(journal).collect())
        })
        .await
    }

    /// Writes a journal: the row `id`, or a new one; tells the row. A row that is gone is made again.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn save_ca_journal(
        &self,
        id: Option<i64>,
        active_x509_authority_id: &str,
        data: Vec<u8>,
    ) -> Result<i64, StoreError> {
        const SAVE: &str = "INSERT INTO ca_journals (id, active_x509_authority_id, data) \
             VALUES (COALESCE($1, (SELECT COALESCE(MAX(id), 0) + 1 FROM ca_journals)), $2, $3) \
             ON CONFLICT (id) DO UPDATE SET active_x509_authority_id = $2, data = $3 RETURNING id";
        let authority = active_x509_authority_id.to_owned();
        self.write("ca_journal_set", move |transaction| {
            Box::pin(async move {
                let saved = sqlx::query_scalar(SAVE).bind(id).bind(authority).bind(data);
                Ok(saved.fetch_one(&mut transaction.connection).await?)
            })
        })
        .await
    }

    /// Deletes a journal, if it is there.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn delete_ca_journal(&self, id: i64) -> Result<(), StoreError> {
        const DELETE: &str = "DELETE FROM ca_journals WHERE id = $1";
        self.execute("ca_journal_prune", DELETE, |query| query.bind(id))
            .await?;
        Ok(())
    }
}
