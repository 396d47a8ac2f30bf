//! An entry as a row.

use aws_lc_rs::digest::{Context, SHA256};
use identity::{EntryId, RegistrationEntry, SpiffeId, TrustDomain};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use crate::StoreError;
use crate::sets::{self, Members as _};
use crate::time::{duration, duration_seconds, seconds, time};

/// The columns, in the order of [`read`] and [`push_values`]. `id` and `fingerprint` come first.
macro_rules! columns {
    () => {
        "id, fingerprint, entry_id, spiffe_id, parent_id, selectors, selector_count, x509_svid_ttl, jwt_svid_ttl, \
         federates_with, federates_with_count, admin, downstream, expires_at, dns_names, revision, store_svid, hint, \
         created_at, disable_x509_svid_prefetch, jwt_svid_include_jti"
    };
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", columns!(), " FROM entries WHERE ", $rest)
    };
}

pub(super) const SELECT: &str = select!("TRUE");
pub(super) const SELECT_ALL: &str = select!("TRUE ORDER BY id");
pub(super) const SELECT_BY_ID: &str = select!("entry_id = $1");
pub(super) const SELECT_SIMILAR: &str = select!("fingerprint = $1");
pub(super) const SELECT_EXPIRED: &str = select!("expires_at < $1 ORDER BY id");
pub(super) const SELECT_FEDERATING: &str =
    select!("id IN (SELECT owner FROM entry_federates_with WHERE member = $1) ORDER BY id");
pub(super) const SELECT_ALIASES: &str = select!("parent_id = $1 AND selectors = $2 ORDER BY id");
pub(super) const INSERT: &str = concat!("INSERT INTO entries (", columns!(), ") ");
pub(super) const DELETE: &str = "DELETE FROM entries WHERE id = $1";

/// An entry and its row's ID.
pub(crate) struct EntryRow {
    pub(crate) id: i64,
    pub(crate) entry: RegistrationEntry,
}

pub(super) fn read(row: &SqliteRow) -> Result<EntryRow, StoreError> {
    let text = |column: usize| row.try_get::<&str, _>(column);
    let flag = |column: usize| row.try_get::<bool, _>(column);
    let maybe = |column: usize| row.try_get::<Option<i64>, _>(column);
    let damaged = |error: &dyn std::fmt::Display| StoreError::Damaged(format!("an entry: {error}"));
    let spiffe_id = |column| SpiffeId::parse(text(column)?).map_err(|error| damaged(&error));
    let entry = RegistrationEntry {
        id: EntryId::new(text(2)?).map_err(|error| damaged(&error))?,
        spiffe_id: spiffe_id(3)?,
        parent_id: spiffe_id(4)?,
        selectors: sets::selectors(text(5)?)?,
        x509_svid_ttl: maybe(7)?.map(duration),
        jwt_svid_ttl: maybe(8)?.map(duration),
        federates_with: sets::parse::<TrustDomain, _>(text(9)?)?,
        admin: flag(11)?,
        downstream: flag(12)?,
        expires_at: maybe(13)?.map(time),
        dns_names: text(14)?.lines().map(str::to_owned).collect(),
        revision: row.try_get(15)?,
        store_svid: flag(16)?,
        hint: text(17)?.to_owned(),
        created_at: time(row.try_get(18)?),
        disable_x509_svid_prefetch: flag(19)?,
        jwt_svid_include_jti: flag(20)?,
    };
    Ok(EntryRow {
        id: row.try_get(0)?,
        entry,
    })
}

/// Adds `VALUES …` for these rows.
pub(super) fn push_values(query: &mut QueryBuilder<Sqlite>, rows: &[(i64, &RegistrationEntry)]) {
    query.push_values(rows, |mut row, (id, entry)| {
        let selectors = i64::try_from(entry.selectors.len()).unwrap_or(i64::MAX);
        let federates_with = i64::try_from(entry.federates_with.len()).unwrap_or(i64::MAX);
        row.push_bind(*id)
            .push_bind(fingerprint(entry))
            .push_bind(entry.id.as_str())
            .push_bind(entry.spiffe_id.as_str())
            .push_bind(entry.parent_id.as_str())
            .push_bind(entry.selectors.text())
            .push_bind(selectors)
            .push_bind(entry.x509_svid_ttl.map(duration_seconds))
            .push_bind(entry.jwt_svid_ttl.map(duration_seconds))
            .push_bind(entry.federates_with.text())
            .push_bind(federates_with)
            .push_bind(entry.admin)
            .push_bind(entry.downstream)
            .push_bind(entry.expires_at.map(seconds))
            .push_bind(entry.dns_names.join("\n"))
            .push_bind(entry.revision)
            .push_bind(entry.store_svid)
            .push_bind(entry.hint.as_str())
            .push_bind(seconds(entry.created_at))
            .push_bind(entry.disable_x509_svid_prefetch)
            .push_bind(entry.jwt_svid_include_jti);
    });
}

/// Equal for similar entries, and for no others: a hash of what makes them similar.
pub(super) fn fingerprint(entry: &RegistrationEntry) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for part in [entry.parent_id.as_str(), entry.spiffe_id.as_str()] {
        context.update(part.as_bytes());
        context.update(b"\n");
    }
    context.update(entry.selectors.text().as_bytes());
    context.finish().as_ref().to_vec()
}
