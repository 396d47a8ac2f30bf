//! The database file: its lock, its connections, its schema.

use std::fs::{File, OpenOptions, TryLockError};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

use crate::{OpenError, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// How many reads run at once. More than the cores of a small machine, fewer than it hurts to keep open.
const READERS: usize = 4;

/// How long a statement waits for a lock held from outside, by a backup for example.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages that the writer may hold, in KiB below zero as SQLite counts them: 16 MiB, used as needed.
const WRITER_CACHE: &str = "-16384";

/// How long a new server waits for one that is ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Takes the lock beside the database file, and makes the file if there is none, both for their owner alone. The lock is held
/// until dropped, and by no process after its death.
pub(crate) async fn lock(path: &Path) -> Result<File, OpenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let not_writable = |reason: std::io::Error| OpenError::NotWritable {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let file = open_private(Path::new(&lock_path)).map_err(not_writable)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_POLL).await,
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(not_writable(error)),
        }
    }
    // SQLite would make it by the umask; its log files take after it.
    open_private(path).map_err(not_writable)?;
    Ok(file)
}

fn open_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Opens the connection that writes, and brings the schema up to date.
pub(crate) async fn open_writer(path: &Path) -> Result<SqliteConnection, OpenError> {
    let mut connection = options(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // Large batches touch many pages; what a statement may have to undo stays in memory too, not in a file.
        .pragma("cache_size", WRITER_CACHE)
        .pragma("temp_store", "MEMORY")
        .connect()
        .await
        .map_err(|error| OpenError::new(path, &error))?;
    match MIGRATIONS.run_direct(None, &mut connection, false).await {
        Ok(()) => Ok(connection),
        Err(MigrateError::VersionMissing(version)) => Err(OpenError::Newer {
            path: path.to_owned(),
            version,
            known: MIGRATIONS
                .iter()
                .map(|migration| migration.version)
                .max()
                .unwrap_or_default(),
        }),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(OpenError::new(path, &error))
        }
        Err(error) => Err(OpenError::Failed {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .thread_name(|number| format!("sqlite-{number}"))
        .disable_statement_logging()
}

/// The connections that read. Not sqlx's pool: its time-outs run on the runtime's clock, which tests pause.
pub(crate) struct Readers {
    idle: Mutex<Vec<SqliteConnection>>,
    permits: Semaphore,
}

impl Readers {
    pub(crate) async fn open(path: &Path) -> Result<Self, OpenError> {
        let mut idle = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            let connection = options(path)
                .pragma("query_only", "ON")
                .connect()
                .await
                .map_err(|error| OpenError::new(path, &error))?;
            idle.push(connection);
        }
        Ok(Self {
            idle: Mutex::new(idle),
            permits: Semaphore::new(READERS),
        })
    }

    pub(crate) async fn acquire(&self) -> Result<Reader<'_>, StoreError> {
        let permit = self
            .permits
            .acquire()
            .await
            .map_err(|_closed| StoreError::Closed)?;
        let connection = self.lock_idle().pop().ok_or(StoreError::Closed)?;
        Ok(Reader {
            readers: self,
            connection: Some(connection),
            _permit: permit,
        })
    }

    /// Ends all connections; waits for the reads that are under way.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(READERS).unwrap_or(u32::MAX);
        let Ok(_permits) = self.permits.acquire_many(all).await else {
            return;
        };
        self.permits.close();
        let connections = std::mem::take(&mut *self.lock_idle());
        for connection in connections {
            // Nothing was written through it, and nobody is left to be told.
            drop(connection.close().await);
        }
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reading connection on loan.
pub(crate) struct Reader<'a> {
    readers: &'a Readers,
    connection: Option<SqliteConnection>,
    _permit: SemaphorePermit<'a>,
}

impl Deref for Reader<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.connection
            .as_ref()
            .expect("a reader must hold its connection until it is dropped")
    }
}

impl DerefMut for Reader<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection
            .as_mut()
            .expect("a reader must hold its connection until it is dropped")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.readers.lock_idle().extend(self.connection.take());
    }
}
