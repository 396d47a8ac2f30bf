//! Join tokens: kept as hashes, used up in one statement.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;

use crate::time::{seconds, time};
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
        const INSERT: &str =
            "INSERT INTO join_tokens (hash, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let (hash, expires_at) = (hash(&token.value), seconds(token.expires_at));
        let inserted = self
            .execute("join_token_create", INSERT, |query| {
                query.bind(hash).bind(expires_at)
            })
            .await?;
        if inserted == 0 {
            return Err(TokenError::Exists);
        }
        Ok(())
    }

    /// Uses up a join token: of any number of callers with the same token, one succeeds. An expired one is used up too.
    ///
    /// # Errors
    /// When it is unknown or expired, or the write failed.
    pub async fn use_join_token(&self, value: &str, now: SystemTime) -> Result<(), TokenError> {
        const TAKE: &str = "DELETE FROM join_tokens WHERE hash = $1 RETURNING expires_at";
        let hash = hash(value);
        let expires_at: Option<i64> = self
            .write("join_token_delete", move |transaction| {
                Box::pin(async move {
                    let taken = sqlx::query_scalar(TAKE).bind(hash);
                    Ok(taken.fetch_optional(&mut transaction.connection).await?)
                })
            })
            .await?;
        match expires_at {
            None => Err(TokenError::Unknown),
            Some(expires_at) if time(expires_at) < now => Err(TokenError::Expired),
            Some(_) => Ok(()),
        }
    }

    /// Forgets the join tokens that expired before `now`; tells how many.
    ///
    /// # Errors
    /// When the write failed.
    pub async fn prune_join_tokens(&self, now: SystemTime) -> Result<u64, StoreError> {
        const PRUNE: &str = "DELETE FROM join_tokens WHERE expires_at < $1";
        let now = seconds(now);
        self.execute("join_token_prune", PRUNE, |query| query.bind(now))
            .await
    }
}

fn hash(value: &str) -> Vec<u8> {
    digest(&SHA256, value.as_bytes()).as_ref().to_vec()
}
