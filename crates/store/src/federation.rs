//! Federation relationships. The bundle that one leads to is kept apart: it stays when the relationship ends, as SPIRE has
//! it, for entries may still federate with the trust domain.

use identity::{
    Bundle, EndpointProfile, EndpointUrl, FederationRelationship, SpiffeId, TrustDomain,
};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row as _};
use thiserror::Error;

use crate::bundles::set_bundle;
use crate::writer::Transaction;
use crate::{Listing, Page, Store, StoreError};

/// Why a federation relationship is not written.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FederationError {
    /// No such relationship.
    #[error("federation relationship not found")]
    NotFound,
    /// It is there already.
    #[error("federation relationship already exists")]
    Exists,
    /// The write failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const SELECT: &str = "SELECT id, trust_domain, endpoint_url, endpoint_spiffe_id \
     FROM federation_relationships WHERE TRUE";

impl Store {
    /// The relationship with a trust domain.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn federation_relationship(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<FederationRelationship>, StoreError> {
        self.observe("federation_relationship_fetch", async {
            by_name(&mut *self.reader().await?, trust_domain).await
        })
        .await
    }

    /// One page of all relationships, in the order of creation.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn list_federation_relationships(
        &self,
        page: Page,
    ) -> Result<Listing<FederationRelationship>, StoreError> {
        self.observe("federation_relationship_list", async {
            let mut query = QueryBuilder::new(SELECT);
            page.push_to(&mut query);
            let rows = query.build().fetch_all(&mut *self.reader().await?).await?;
            let last = rows.last().map(|row| row.try_get(0)).transpose()?;
            Ok(Listing {
                items: rows.iter().map(read).collect::<Result<_, _>>()?,
                next: page.next(last),
            })
        })
        .await
    }

    /// Adds a relationship; a bundle that comes with it takes the place of the one there may be.
    ///
    /// # Errors
    /// When there is one with that trust domain, or the write failed.
    pub async fn create_federation_relationship(
        &self,
        relationship: FederationRelationship,
        bundle: Option<Bundle>,
    ) -> Result<(), FederationError> {
        self.write("federation_relationship_create", move |transaction| {
            Box::pin(create(transaction, relationship, bundle))
        })
        .await?
    }

    /// Changes what is given of a relationship, and tells what came of it.
    ///
    /// # Errors
    /// When there is none with that trust domain, or the write failed.
    pub async fn update_federation_relationship(
        &self,
        trust_domain: &TrustDomain,
        endpoint_url: Option<EndpointUrl>,
        profile: Option<EndpointProfile>,
        bundle: Option<Bundle>,
    ) -> Result<FederationRelationship, FederationError> {
        let name = trust_domain.clone();
        self.write("federation_relationship_update", move |transaction| {
            Box::pin(update(transaction, name, endpoint_url, profile, bundle))
        })
        .await?
    }

    /// Ends a relationship. The bundle stays.
    ///
    /// # Errors
    /// When there is none with that trust domain, or the write failed.
    pub async fn delete_federation_relationship(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<(), FederationError> {
        const DELETE: &str = "DELETE FROM federation_relationships WHERE trust_domain = $1";
        let name = trust_domain.to_string();
        match self
            .execute("federation_relationship_delete", DELETE, |query| {
                query.bind(name)
            })
            .await?
        {
            0 => Err(FederationError::NotFound),
            _ => Ok(()),
        }
    }
}

async fn create(
    transaction: &mut Transaction,
    relationship: FederationRelationship,
    bundle: Option<Bundle>,
) -> Result<Result<(), FederationError>, StoreError> {
    const INSERT: &str = "INSERT INTO federation_relationships \
         (trust_domain, endpoint_url, endpoint_spiffe_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let inserted = sqlx::query(INSERT)
        .bind(relationship.trust_domain.as_str())
        .bind(relationship.endpoint_url.as_str())
        .bind(endpoint_id(&relationship.profile))
        .execute(&mut transaction.connection)
        .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Err(FederationError::Exists));
    }
    if let Some(bundle) = bundle {
        set_bundle(transaction, bundle).await?;
    }
    Ok(Ok(()))
}

async fn update(
    transaction: &mut Transaction,
    name: TrustDomain,
    endpoint_url: Option<EndpointUrl>,
    profile: Option<EndpointProfile>,
    bundle: Option<Bundle>,
) -> Result<Result<FederationRelationship, FederationError>, StoreError> {
    const UPDATE: &str = "UPDATE federation_relationships SET endpoint_url = $2, endpoint_spiffe_id = $3 \
         WHERE trust_domain = $1";
    let Some(before) = by_name(&mut transaction.connection, &name).await? else {
        return Ok(Err(FederationError::NotFound));
    };
    let after = FederationRelationship {
        trust_domain: name,
        endpoint_url: endpoint_url.unwrap_or(before.endpoint_url),
        profile: profile.unwrap_or(before.profile),
    };
    sqlx::query(UPDATE)
        .bind(after.trust_domain.as_str())
        .bind(after.endpoint_url.as_str())
        .bind(endpoint_id(&after.profile))
        .execute(&mut transaction.connection)
        .await?;
    if let Some(bundle) = bundle {
        set_bundle(transaction, bundle).await?;
    }
    Ok(Ok(after))
}

async fn by_name(
    connection: &mut SqliteConnection,
    name: &TrustDomain,
) -> Result<Option<FederationRelationship>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" AND trust_domain = ").push_bind(name.as_str());
    let row = query.build().fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

fn endpoint_id(profile: &EndpointProfile) -> Option<&str> {
    match profile {
        EndpointProfile::HttpsWeb => None,
        EndpointProfile::HttpsSpiffe { endpoint_id } => Some(endpoint_id.as_str()),
    }
}

fn read(row: &SqliteRow) -> Result<FederationRelationship, StoreError> {
    fn damaged(error: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged(format!("a federation relationship: {error}"))
    }
    let profile = match row.try_get::<Option<&str>, _>(3)? {
        None => EndpointProfile::HttpsWeb,
        Some(id) => EndpointProfile::HttpsSpiffe {
            endpoint_id: SpiffeId::parse(id).map_err(damaged)?,
        },
    };
    Ok(FederationRelationship {
        trust_domain: TrustDomain::new(row.try_get(1)?).map_err(damaged)?,
        endpoint_url: EndpointUrl::parse(row.try_get(2)?).map_err(damaged)?,
        profile,
    })
}
