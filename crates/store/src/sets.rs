//! Sets as they are kept: whole in the row of their owner, sorted, a member per line, and member by member in a table to
//! search by.

use std::collections::BTreeSet;
use std::str::FromStr;

use identity::{Selector, Selectors, TrustDomain};
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};

use crate::{Match, StoreError};

/// The most rows in one statement. SQLite takes 32 766 values; beyond a few dozen rows nothing is gained.
const MAX_ROWS: usize = 64;

/// A set's members as text, in the set's order.
pub(crate) trait Members {
    fn members(&self) -> Vec<String>;

    /// The whole set: a member per line. Members hold no control characters.
    fn text(&self) -> String {
        self.members().join("\n")
    }
}

impl Members for Selectors {
    fn members(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }
}

impl Members for BTreeSet<TrustDomain> {
    fn members(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }
}

/// Reads a set back.
pub(crate) fn parse<T, S>(text: &str) -> Result<S, StoreError>
where
    T: FromStr<Err: std::fmt::Display>,
    S: FromIterator<T>,
{
    text.lines()
        .map(|line| {
            line.parse()
                .map_err(|error| StoreError::Damaged(format!("{line:?}: {error}")))
        })
        .collect()
}

/// Reads selectors back.
pub(crate) fn selectors(text: &str) -> Result<Selectors, StoreError> {
    parse::<Selector, _>(text)
}

/// A table of members.
#[derive(Clone, Copy)]
pub(crate) struct Index {
    /// Its name.
    pub(crate) table: &'static str,
    /// The owner's column with the whole set.
    pub(crate) whole: &'static str,
    /// The owner's column with the number of members.
    pub(crate) count: &'static str,
}

impl Index {
    pub(crate) async fn insert(
        self,
        connection: &mut SqliteConnection,
        mut rows: Vec<(String, i64)>,
    ) -> Result<(), StoreError> {
        rows.sort_unstable();
        for chunk in chunks(&rows) {
            let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO ");
            query.push(self.table).push(" (member, owner) ");
            query.push_values(chunk, |mut row, (member, owner)| {
                row.push_bind(member.as_str()).push_bind(owner);
            });
            query.build().execute(&mut *connection).await?;
        }
        Ok(())
    }

    pub(crate) async fn delete(
        self,
        connection: &mut SqliteConnection,
        members: &[String],
        owner: i64,
    ) -> Result<(), StoreError> {
        for chunk in chunks(members) {
            let mut query = QueryBuilder::<Sqlite>::new("DELETE FROM ");
            query
                .push(self.table)
                .push(" WHERE owner = ")
                .push_bind(owner);
            push_in(&mut query, " AND member", chunk);
            query.build().execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Adds the condition that the owner's set matches `wanted`.
    pub(crate) fn push_condition(
        self,
        query: &mut QueryBuilder<Sqlite>,
        how: Match,
        wanted: &[String],
    ) {
        match how {
            Match::Exact => {
                query
                    .push(" AND ")
                    .push(self.whole)
                    .push(" = ")
                    .push_bind(wanted.join("\n"));
                // The whole has no index; a member has.
                if let Some(first) = wanted.first() {
                    self.push_owners(query, std::slice::from_ref(first));
                }
            }
            Match::Superset => {
                for member in wanted {
                    self.push_owners(query, std::slice::from_ref(member));
                }
            }
            Match::Any => self.push_owners(query, wanted),
            Match::Subset => {
                self.push_owners(query, wanted);
                query
                    .push(" AND ")
                    .push(self.count)
                    .push(" = (SELECT COUNT(*) FROM ")
                    .push(self.table);
                push_in(query, " WHERE owner = id AND member", wanted);
                query.push(")");
            }
        }
    }

    fn push_owners(self, query: &mut QueryBuilder<Sqlite>, members: &[String]) {
        query
            .push(" AND id IN (SELECT owner FROM ")
            .push(self.table);
        push_in(query, " WHERE member", members);
        query.push(")");
    }
}

/// Adds ` IN (…)` after `before`.
pub(crate) fn push_in<T>(query: &mut QueryBuilder<Sqlite>, before: &str, values: &[T])
where
    T: AsRef<str>,
{
    query.push(before).push(" IN (");
    if values.is_empty() {
        // An empty list is SQLite's alone; NULL equals nothing.
        query.push("NULL");
    }
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value.as_ref());
    }
    query.push(")");
}

/// Parts rows into runs of 64, then 32, 16 and so on, so that any number of rows takes only seven different statements.
pub(crate) fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = (rows.len().checked_ilog2()).map(|bits| MAX_ROWS.min(1 << bits))?;
        let (chunk, rest) = rows.split_at(length);
        rows = rest;
        Some(chunk)
    })
}
