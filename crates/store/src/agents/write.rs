//! Changing agents inside a transaction.

use std::sync::Arc;
use std::time::SystemTime;

use identity::SpiffeId;

use super::{Agent, AgentError, AgentRow, AttestError, Edit, SELECTORS, by_id, row};
use crate::StoreError;
use crate::changes::Change;
use crate::entries;
use crate::sets::Members as _;
use crate::time::seconds;
use crate::writer::Transaction;

pub(super) async fn attest(
    transaction: &mut Transaction,
    mut agent: Agent,
) -> Result<Result<(), AttestError>, StoreError> {
    let known = by_id(&mut transaction.connection, agent.id.as_str()).await?;
    if known.as_ref().is_some_and(|row| row.agent.banned) {
        return Ok(Err(AttestError::Banned(agent.id)));
    }
    if let Some(known) = &known
        && known.agent.attestation_type != agent.attestation_type
    {
        let known = known.agent.attestation_type.clone();
        return Ok(Err(AttestError::OtherAttestor {
            id: agent.id,
            known,
        }));
    }
    let id = match known {
        Some(known) => {
            agent.version.clone_from(&known.agent.version);
            remove(transaction, &known).await?;
            known.id
        }
        None => transaction.next_sequence().cast_signed(),
    };
    insert(transaction, id, agent).await?;
    Ok(Ok(()))
}

pub(super) async fn edit(
    transaction: &mut Transaction,
    id: SpiffeId,
    edit: impl FnOnce(&mut Agent) -> Edit,
) -> Result<Result<(), AgentError>, StoreError> {
    let Some(mut row) = by_id(&mut transaction.connection, id.as_str()).await? else {
        return Ok(Err(AgentError::NotFound));
    };
    match edit(&mut row.agent) {
        Edit::Refuse => return Ok(Err(AgentError::NotFound)),
        Edit::Keep => {}
        Edit::Write => {
            // Edits leave the selectors alone, hence also their table.
            delete_row(transaction, row.id).await?;
            insert_row(transaction, row.id, row.agent).await?;
        }
    }
    Ok(Ok(()))
}

pub(super) async fn delete(
    transaction: &mut Transaction,
    id: SpiffeId,
) -> Result<Result<(), AgentError>, StoreError> {
    let Some(row) = by_id(&mut transaction.connection, id.as_str()).await? else {
        return Ok(Err(AgentError::NotFound));
    };
    evict(transaction, row).await?;
    Ok(Ok(()))
}

pub(super) async fn prune(
    transaction: &mut Transaction,
    expired_before: SystemTime,
    non_reattestable: bool,
    limit: u32,
) -> Result<Vec<SpiffeId>, StoreError> {
    let rows = sqlx::query(row::SELECT_EXPIRED)
        .bind(seconds(expired_before))
        .bind(non_reattestable)
        .bind(i64::from(limit))
        .fetch_all(&mut transaction.connection)
        .await?;
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = row::read(row)?;
        ids.push(row.agent.id.clone());
        evict(transaction, row).await?;
    }
    Ok(ids)
}

async fn evict(transaction: &mut Transaction, row: AgentRow) -> Result<(), StoreError> {
    let aliases = entries::aliases_of(
        &mut transaction.connection,
        &own_selector(&row.agent.id),
        &row.agent.id,
    )
    .await?;
    entries::delete_rows(transaction, aliases).await?;
    remove(transaction, &row).await?;
    transaction.record(Change::Agent(row.agent.id, None));
    Ok(())
}

/// The selector by which a join token's alias entry names the agent that the token admits.
fn own_selector(id: &SpiffeId) -> String {
    format!("spiffe_id:{id}")
}

async fn insert(transaction: &mut Transaction, id: i64, agent: Agent) -> Result<(), StoreError> {
    let members = agent.selectors.members().into_iter();
    let rows = members.map(|member| (member, id)).collect();
    SELECTORS.insert(&mut transaction.connection, rows).await?;
    insert_row(transaction, id, agent).await
}

async fn insert_row(
    transaction: &mut Transaction,
    id: i64,
    agent: Agent,
) -> Result<(), StoreError> {
    row::insert(id, &agent)
        .execute(&mut transaction.connection)
        .await?;
    transaction.record(Change::Agent(agent.id.clone(), Some(Arc::new(agent))));
    Ok(())
}

async fn remove(transaction: &mut Transaction, row: &AgentRow) -> Result<(), StoreError> {
    let members = row.agent.selectors.members();
    SELECTORS
        .delete(&mut transaction.connection, &members, row.id)
        .await?;
    delete_row(transaction, row.id).await
}

async fn delete_row(transaction: &mut Transaction, id: i64) -> Result<(), StoreError> {
    sqlx::query(row::DELETE)
        .bind(id)
        .execute(&mut transaction.connection)
        .await?;
    Ok(())
}
