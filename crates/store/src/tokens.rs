//! Join tokens: kept as hashes, used up in one statement.

use std::fmt;
use std::time::SystemTime;

use thiserror::Error;

use crate::{Store, StoreError};

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The secret the agent shows.
    pub value: String,
    /// Until when it is good.
    pub expires_at: SystemTime,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("value", &"<redacted>")
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

/// Why a join token is refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// Never issued, or used.
    #[error("join token does not exist or has already been used")]
    Unknown,
    /// Too old.
    #[error("join token expired")]
    Expired,
    /// Issued already.
    #[error("join token already exists")]
    Exists,
    /// The write failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Remembers a join token.
    ///
    /// # Errors
    /// When it is there already, or the write failed.
    pub async fn create_join_token(&self, token: &JoinToken) -> Result<(), TokenError> {
        let _ = token;
        todo!()
    }

    /// Uses up a join token: of any number of callers with the same token, one succeeds. An expired one is used up too.
    ///
    /// # Errors
    /// When it is unknown or expired, or the write failed.
    pub async fn use_join_token(&self, value: &str, now: SystemTime) -> Result<(), TokenError> {
        let _ = (value, now);
        todo!()
    }

    /// Forgets the join tokens that expired before `now`; tells how many.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn prune_join_tokens(&self, now: SystemTime) -> Result<u64, StoreError> {
        let _ = now;
        todo!()
    }
}
