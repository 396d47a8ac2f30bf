//! What lists are filtered by, and how they are paged.

use std::collections::BTreeSet;
use std::time::SystemTime;

use identity::{Selectors, SpiffeId, TrustDomain};
use sqlx::{QueryBuilder, Sqlite};

/// How an item's set must relate to the given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Both are equal.
    Exact,
    /// The item's is a subset of the given one.
    Subset,
    /// The item's is a superset of the given one.
    Superset,
    /// They share at least one member.
    Any,
}

/// Which entries are meant: those to which all that is set applies.
#[derive(Clone, Debug, Default)]
pub struct EntryFilter {
    /// Of this SPIFFE ID.
    pub spiffe_id: Option<SpiffeId>,
    /// Under this parent ID.
    pub parent_id: Option<SpiffeId>,
    /// With these selectors.
    pub selectors: Option<(Match, Selectors)>,
    /// That federate with these trust domains.
    pub federates_with: Option<(Match, BTreeSet<TrustDomain>)>,
    /// With this hint.
    pub hint: Option<String>,
    /// Downstream or not.
    pub downstream: Option<bool>,
}

/// Which agents are meant: those to which all that is set applies.
#[derive(Clone, Debug, Default)]
pub struct AgentFilter {
    /// Attested by this node attestor.
    pub attestation_type: Option<String>,
    /// With these selectors.
    pub selectors: Option<(Match, Selectors)>,
    /// Banned or not.
    pub banned: Option<bool>,
    /// Re-attestable or not.
    pub can_reattest: Option<bool>,
    /// Whose SVID expires before this time.
    pub expires_before: Option<SystemTime>,
}

/// A stretch of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Begins after this item: the `next` of the page before, or 0.
    pub after: i64,
    /// At most so many; all when unset.
    pub limit: Option<u32>,
}

impl Page {
    /// Ends a query of rows that have an `id` and a condition already.
    pub(crate) fn push_to(self, query: &mut QueryBuilder<Sqlite>) {
        query
            .push(" AND id > ")
            .push_bind(self.after)
            .push(" ORDER BY id");
        if let Some(limit) = self.limit {
            query.push(" LIMIT ").push_bind(i64::from(limit));
        }
    }

    /// Where the page after this one begins, given its last row.
    pub(crate) fn next(self, last: Option<i64>) -> Option<i64> {
        self.limit.and(last)
    }
}

/// One page of a list, in the order of creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; unset when this page is empty, or no limit was given.
    pub next: Option<i64>,
}
