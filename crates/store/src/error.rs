use std::path::PathBuf;

use thiserror::Error;

/// Why the datastore cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The lock file, or the database file, cannot be made or written.
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
    #[error("{path} is not a SQLite database, or is damaged: {reason}")]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// A newer program wrote it.
    #[error(
        "the datastore {path} has schema version {version}, which is newer than this program's; run the newer program"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema version found.
        version: i64,
    },
    /// Any other step.
    #[error("cannot {step} the datastore {path}: {source}")]
    Failed {
        /// The step.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
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
    #[error("the datastore failed to {step}: {reason}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What the database said.
        reason: String,
    },
}
