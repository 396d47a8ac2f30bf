//! A bundle as a row, and its authorities as rows of their own.

use identity::{Bundle, Certificate, JwtAuthority, TrustDomain, X509Authority};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row as _};

use crate::time::{duration, duration_seconds, seconds, time};
use crate::{Page, StoreError};

/// A bundle and its row's ID.
pub(super) struct BundleRow {
    pub(super) id: i64,
    pub(super) bundle: Bundle,
}

pub(super) async fn by_name(
    connection: &mut SqliteConnection,
    trust_domain: &TrustDomain,
) -> Result<Option<BundleRow>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query
        .push(" AND trust_domain = ")
        .push_bind(trust_domain.as_str());
    query.push(ORDER);
    let rows = query.build().fetch_all(connection).await?;
    Ok(assemble(&rows)?.pop())
}

pub(super) async fn page(
    connection: &mut SqliteConnection,
    page: Page,
) -> Result<Vec<BundleRow>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" AND id IN (SELECT id FROM bundles WHERE TRUE");
    page.push_to(&mut query);
    query.push(")").push(ORDER);
    let rows = query.build().fetch_all(connection).await?;
    assemble(&rows)
}

const SELECT: &str = "SELECT id, trust_domain, sequence, refresh_hint, key_id, data, expires_at, tainted \
     FROM bundles LEFT JOIN authorities ON bundle = id WHERE TRUE";
const ORDER: &str = " ORDER BY id, position";

/// Puts bundles together from the rows of their authorities; a bundle without any has one row, of nulls.
fn assemble(rows: &[SqliteRow]) -> Result<Vec<BundleRow>, StoreError> {
    let damaged = |error: &dyn std::fmt::Display| StoreError::Damaged(format!("a bundle: {error}"));
    let mut bundles: Vec<BundleRow> = Vec::new();
    for row in rows {
        let id = row.try_get(0)?;
        if bundles.last().is_none_or(|last| last.id != id) {
            let name = TrustDomain::new(row.try_get(1)?).map_err(|error| damaged(&error))?;
            let mut bundle = Bundle::empty(name);
            bundle.sequence = row.try_get::<i64, _>(2)?.cast_unsigned();
            bundle.refresh_hint = row.try_get::<Option<i64>, _>(3)?.map(duration);
            bundles.push(BundleRow { id, bundle });
        }
        let (Some(last), Some(data)) = (bundles.last_mut(), row.try_get::<Option<&[u8]>, _>(5)?)
        else {
            continue;
        };
        let tainted = row.try_get(7)?;
        match row.try_get(4)? {
            Some(key_id) => last.bundle.jwt_authorities.push(JwtAuthority {
                key_id,
                public_key: data.to_vec(),
                expires_at: row.try_get::<Option<i64>, _>(6)?.map(time),
                tainted,
            }),
            None => last.bundle.x509_authorities.push(X509Authority {
                certificate: Certificate::from_der(data).map_err(|error| damaged(&error))?,
                tainted,
            }),
        }
    }
    Ok(bundles)
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    id: i64,
    bundle: &Bundle,
) -> Result<(), StoreError> {
    const INSERT: &str = "INSERT INTO bundles (id, trust_domain, sequence, refresh_hint) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET sequence = $3, refresh_hint = $4";
    sqlx::query(INSERT)
        .bind(id)
        .bind(bundle.trust_domain.as_str())
        .bind(bundle.sequence.cast_signed())
        .bind(bundle.refresh_hint.map(duration_seconds))
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM authorities WHERE bundle = $1")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    insert_authorities(connection, id, bundle).await
}

async fn insert_authorities(
    connection: &mut SqliteConnection,
    id: i64,
    bundle: &Bundle,
) -> Result<(), StoreError> {
    const INSERT: &str = "INSERT INTO authorities (bundle, position, key_id, data, expires_at, tainted) \
         VALUES ($1, $2, $3, $4, $5, $6)";
    let x509 = bundle
        .x509_authorities
        .iter()
        .map(|authority| (None, authority.certificate.der(), None, authority.tainted));
    let jwt = bundle.jwt_authorities.iter().map(|authority| {
        let expires_at = authority.expires_at.map(seconds);
        (
            Some(authority.key_id.as_str()),
            authority.public_key.as_slice(),
            expires_at,
            authority.tainted,
        )
    });
    for (position, (key_id, data, expires_at, tainted)) in (0_i64..).zip(x509.chain(jwt)) {
        sqlx::query(INSERT)
            .bind(id)
            .bind(position)
            .bind(key_id)
            .bind(data)
            .bind(expires_at)
            .bind(tainted)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
