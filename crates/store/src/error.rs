use std::path::{Path, PathBuf};

use thiserror::Error;

/// SQLite's primary result codes that tell something of their own.
mod code {
    pub(super) const READONLY: u32 = 8;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const CANTOPEN: u32 = 14;
    pub(super) const NOTADB: u32 = 26;
}

/// Why the datastore cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The database file, or the lock file beside it, cannot be made or written.
    #[error("the datastore {path} cannot be written: {reason}")]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Another process has it open.
    #[error(
        "the datastore {path} is in use by another process; one server at a time works on a SQLite file"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, or damaged.
    #[error("{path} is no SQLite database, or a damaged one: {reason}")]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// A newer program wrote it.
    #[error(
        "the datastore {path} has schema version {version}, newer than this program's {known}; run the newer program"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema version found.
        version: i64,
        /// The newest this program knows.
        known: i64,
    },
    /// No room left.
    #[error("the disk of the datastore {path} is full")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Any other failure.
    #[error("cannot open the datastore {path}: {reason}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
}

impl OpenError {
    pub(crate) fn new(path: &Path, error: &sqlx::Error) -> Self {
        let path = path.to_owned();
        let reason = error.to_string();
        match primary_code(error) {
            Some(code::READONLY | code::CANTOPEN) => Self::NotWritable { path, reason },
            Some(code::NOTADB | code::CORRUPT) => Self::NotADatabase { path, reason },
            Some(code::FULL) => Self::Full { path },
            _ => Self::Failed { path, reason },
        }
    }
}

/// Why a read or a write failed as a whole. A failed write left nothing behind, and nothing of it was acknowledged.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// No room left.
    #[error("the datastore's disk is full")]
    Full,
    /// The file turned read-only.
    #[error("the datastore cannot be written: {0}")]
    ReadOnly(String),
    /// The file is damaged, or holds something this program did not write.
    #[error("the datastore is damaged: {0}")]
    Damaged(String),
    /// It has been closed.
    #[error("the datastore is closed")]
    Closed,
    /// Any other failure of the database.
    #[error("the datastore failed: {0}")]
    Failed(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let reason = error.to_string();
        match (&error, primary_code(&error)) {
            (_, Some(code::FULL)) => Self::Full,
            (_, Some(code::READONLY)) => Self::ReadOnly(reason),
            (_, Some(code::CORRUPT | code::NOTADB))
            | (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), _) => {
                Self::Damaged(reason)
            }
            _ => Self::Failed(reason),
        }
    }
}

/// SQLite's result code without its extension.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<u32>().ok().map(|code| code & 0xff)
}
