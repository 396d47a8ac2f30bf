//! The datastore: entries, agents, join tokens, bundles, federation relationships, the
//! CA journal and the change log. The only SQL.
//!
//! One writer, many readers. Writes go to one task, which commits all that wait for it in one transaction and answers
//! after the commit is on the disk; reads take a connection of their own and see a snapshot. Every write of an entry, an
//! agent or a bundle is also a line of the change log, in the same transaction, so that what follows the log misses nothing.
//!
//! No clock: whatever depends on the time takes `now`. Times are kept in whole seconds.

mod agents;
mod bundles;
mod changes;
mod entries;
mod error;
mod federation;
mod filter;
mod journal;
mod observe;
mod sets;
mod sqlite;
mod time;
mod tokens;
mod writer;

pub use agents::{Agent, AgentError, AgentSvid, AttestError};
pub use bundles::{BundleWriteError, DeleteBundleMode};
pub use changes::{Change, Changes, ChangesError, Snapshot};
pub use entries::{CreateEntryError, EditEntry, UpdateEntryError, new_entry_id};
pub use error::{OpenError, StoreError};
pub use federation::FederationError;
pub use filter::{AgentFilter, EntryFilter, Listing, Match, Page};
pub use journal::CaJournal;
pub use observe::{Ended, Observer};
pub use tokens::{JoinToken, TokenError};
pub use writer::Writing;

use std::path::Path;
use std::sync::Arc;

use changes::Log;
use sqlite::{Reader, Readers};
use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use tokio::sync::watch;
use writer::{Transaction, Work, Writer};

type Statement = Query<'static, Sqlite, SqliteArguments>;

/// The datastore. Cheap to clone; it ends with its last handle, or by [`Store::close`].
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    readers: Arc<Readers>,
    log: Arc<Log>,
    health: watch::Receiver<Result<(), StoreError>>,
    observer: Option<Observer>,
}

impl Store {
    /// Opens the SQLite database in the file `path`, makes it if there is none, and brings its schema up to date. The folder
    /// exists already. One server at a time: a lock file beside it keeps a second one
    /// out, which waits two seconds for one that is ending.
    ///
    /// Writes are done by the future that comes with it, which has to be polled for as long as anybody writes.
    ///
    /// # Errors
    /// When the file cannot be made, read or written, is no database, is in use by another process, or holds a schema newer
    /// than this program's.
    pub async fn open(path: &Path) -> Result<(Self, Writing), OpenError> {
        let lock = sqlite::lock(path).await?;
        let mut connection = sqlite::open_writer(path).await?;
        let sequence = changes::last_sequence(&mut connection)
            .await
            .map_err(|error| OpenError::new(path, &error))?;
        let readers = Arc::new(Readers::open(path).await?);
        let log = Arc::new(Log::new(sequence));
        let (told, health) = watch::channel(Ok(()));
        let (writer, writing) = Writer::new(connection, sequence, Arc::clone(&log), told, lock);
        let store = Self {
            writer,
            readers,
            log,
            health,
            observer: None,
        };
        Ok((store, writing))
    }

    /// Ends all work on the database and lets go of its file. Whoever still has a handle is told [`StoreError::Closed`].
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Whether the last write went well, [`Store::check`] among them.
    ///
    /// # Errors
    /// What the last write failed with; or [`StoreError::Closed`] once nobody writes any more.
    pub fn health(&self) -> Result<(), StoreError> {
        if self.health.has_changed().is_err() {
            return Err(StoreError::Closed);
        }
        self.health.borrow().clone()
    }

    /// Writes a little, to find out whether that works.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        const PROBE: &str = "INSERT INTO probe (id, count) VALUES (1, 1) \
             ON CONFLICT (id) DO UPDATE SET count = count + 1";
        self.execute("check", PROBE, |query| query).await?;
        Ok(())
    }

    async fn write<T, F>(&self, name: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Transaction) -> Work<'t, T> + Send + 'static,
    {
        self.observe(name, self.writer.write(work)).await
    }

    /// Does one statement; tells how many rows it touched.
    async fn execute<F>(
        &self,
        name: &'static str,
        statement: &'static str,
        bind: F,
    ) -> Result<u64, StoreError>
    where
        F: FnOnce(Statement) -> Statement,
    {
        let query = bind(sqlx::query(statement));
        self.write(name, move |transaction| {
            Box::pin(async move {
                let done = query.execute(&mut transaction.connection).await?;
                Ok(done.rows_affected())
            })
        })
        .await
    }

    async fn reader(&self) -> Result<Reader<'_>, StoreError> {
        self.readers.acquire().await
    }
}
