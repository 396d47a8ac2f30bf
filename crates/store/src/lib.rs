//! The datastore: entries, agents, join tokens, bundles, the CA journal and the change log. The only SQL.
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
mod filter;
mod journal;
mod tokens;

pub use agents::{Agent, AgentError, AgentSvid, AttestError};
pub use bundles::{BundleWriteError, DeleteBundleMode};
pub use changes::{Change, Changes, ChangesError, Snapshot};
pub use entries::{CreateEntryError, EditEntry, UpdateEntryError, new_entry_id};
pub use error::{OpenError, StoreError};
pub use filter::{AgentFilter, EntryFilter, Listing, Match, Page};
pub use journal::CaJournal;
pub use tokens::{JoinToken, TokenError};

use std::path::Path;

/// The datastore. Cheap to clone; the last handle's drop ends the writer.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens the SQLite database in the file `path`, makes it if there is none, and brings its schema up to date. The folder
    /// exists already. One process at a time: a lock file beside it keeps a second one out.
    ///
    /// # Errors
    /// When the file cannot be made, read or written, is no database, is in use by another process, or holds a schema newer
    /// than this program's.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let _ = path;
        todo!()
    }
}
