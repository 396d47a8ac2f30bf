//! An agent as a row.

use identity::SpiffeId;
use sqlx::Row as _;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};

use super::{Agent, AgentSvid};
use crate::StoreError;
use crate::sets::{self, Members as _};
use crate::time::{seconds, time};

/// The columns, in the order of [`read`] and [`bind`].
macro_rules! columns {
    () => {
        "id, spiffe_id, attestation_type, selectors, selector_count, serial, expires_at, renewed_serial, \
         renewed_expires, can_reattest, banned, version"
    };
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", columns!(), " FROM agents WHERE ", $rest)
    };
}

pub(super) const SELECT: &str = select!("TRUE");
pub(super) const SELECT_ALL: &str = select!("TRUE ORDER BY id");
pub(super) const SELECT_BY_ID: &str = select!("spiffe_id = $1");
pub(super) const SELECT_EXPIRED: &str =
    select!("expires_at < $1 AND NOT banned AND (can_reattest OR $2) ORDER BY id LIMIT $3");
pub(super) const INSERT: &str = concat!(
    "INSERT INTO agents (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
);
pub(super) const DELETE: &str = "DELETE FROM agents WHERE id = $1";

/// An agent and its row's ID.
pub(crate) struct AgentRow {
    pub(crate) id: i64,
    pub(crate) agent: Agent,
}

pub(super) fn read(row: &SqliteRow) -> Result<AgentRow, StoreError> {
    let damaged = |error| StoreError::Damaged(format!("an agent: {error}"));
    let renewed = match (row.try_get(7)?, row.try_get(8)?) {
        (Some(serial), Some(expires_at)) => Some(AgentSvid {
            serial,
            expires_at: time(expires_at),
        }),
        _ => None,
    };
    let agent = Agent {
        id: SpiffeId::parse(row.try_get(1)?).map_err(damaged)?,
        attestation_type: row.try_get(2)?,
        selectors: sets::selectors(row.try_get(3)?)?,
        svid: AgentSvid {
            serial: row.try_get(5)?,
            expires_at: time(row.try_get(6)?),
        },
        renewed,
        can_reattest: row.try_get(9)?,
        banned: row.try_get(10)?,
        version: row.try_get(11)?,
    };
    Ok(AgentRow {
        id: row.try_get(0)?,
        agent,
    })
}

pub(super) fn insert(id: i64, agent: &Agent) -> Query<'static, Sqlite, SqliteArguments> {
    let selectors = i64::try_from(agent.selectors.len()).unwrap_or(i64::MAX);
    let renewed = agent.renewed.as_ref();
    sqlx::query(INSERT)
        .bind(id)
        .bind(agent.id.as_str())
        .bind(agent.attestation_type.as_str())
        .bind(agent.selectors.text())
        .bind(selectors)
        .bind(agent.svid.serial.as_str())
        .bind(seconds(agent.svid.expires_at))
        .bind(renewed.map(|svid| svid.serial.as_str()))
        .bind(renewed.map(|svid| seconds(svid.expires_at)))
        .bind(agent.can_reattest)
        .bind(agent.banned)
        .bind(agent.version.as_str())
}
