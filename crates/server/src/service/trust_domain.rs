//! `spire.api.server.trustdomain.v1`: with whom this trust domain federates, and where their bundles are to be had.
//!
//! Relationships are kept, and their bundles may come with them. Bundles are not fetched from their endpoints yet.

use futures_util::future::join_all;
use identity::{FederationRelationship, TrustDomain};
use proto::convert::{self, FieldError, mask_federation_relationship, ok_status};
use proto::spire::api::server::trustdomain::v1::trust_domain_server;
use proto::spire::api::server::trustdomain::v1::{
    BatchCreateFederationRelationshipRequest, BatchCreateFederationRelationshipResponse,
    BatchDeleteFederationRelationshipRequest, BatchDeleteFederationRelationshipResponse,
    BatchUpdateFederationRelationshipRequest, BatchUpdateFederationRelationshipResponse,
    GetFederationRelationshipRequest, ListFederationRelationshipsRequest,
    ListFederationRelationshipsResponse, RefreshBundleRequest,
    batch_create_federation_relationship_response, batch_delete_federation_relationship_response,
    batch_update_federation_relationship_response,
};
use proto::spire::api::types;
use store::{FederationError, Store};
use tonic::{Request, Response, Status};

use crate::rpc::RpcError;
use crate::service::list;

type Created = batch_create_federation_relationship_response::Result;
type Updated = batch_update_federation_relationship_response::Result;
type Deleted = batch_delete_federation_relationship_response::Result;
type Mask = types::FederationRelationshipMask;
/// What comes of one item.
type Item = Result<types::FederationRelationship, RpcError>;

/// Keeps federation relationships.
pub(crate) struct TrustDomainService {
    pub(crate) store: Store,
    pub(crate) trust_domain: TrustDomain,
}

impl TrustDomainService {
    async fn list(
        &self,
        request: ListFederationRelationshipsRequest,
    ) -> Result<ListFederationRelationshipsResponse, RpcError> {
        let page = list::page(request.page_size, &request.page_token)?;
        let listing = self.store.list_federation_relationships(page).await?;
        let mut relationships = Vec::with_capacity(listing.items.len());
        for relationship in &listing.items {
            relationships.push(
                self.wire(relationship, request.output_mask.as_ref())
                    .await?,
            );
        }
        Ok(ListFederationRelationshipsResponse {
            federation_relationships: relationships,
            next_page_token: list::token(listing.next),
        })
    }

    async fn get(&self, request: GetFederationRelationshipRequest) -> Item {
        let name = parse(&request.trust_domain)?;
        let found = self.store.federation_relationship(&name).await?;
        let found = found.ok_or_else(|| {
            RpcError::NotFound(format!("federation relationship with {name} not found"))
        })?;
        self.wire(&found, request.output_mask.as_ref()).await
    }

    async fn create(&self, wanted: &types::FederationRelationship, mask: Option<&Mask>) -> Item {
        let (relationship, bundle) =
            convert::federation_relationship(wanted).map_err(unreadable)?;
        self.not_ours(&relationship.trust_domain, "create")?;
        self.store
            .create_federation_relationship(relationship.clone(), bundle)
            .await
            .map_err(refused)?;
        tracing::info!(trust_domain = %relationship.trust_domain, "federation relationship created");
        self.wire(&relationship, mask).await
    }

    async fn update(
        &self,
        wanted: &types::FederationRelationship,
        input_mask: Option<&Mask>,
        mask: Option<&Mask>,
    ) -> Item {
        let change = convert::federation_change(wanted, input_mask).map_err(unreadable)?;
        self.not_ours(&change.trust_domain, "update")?;
        let updated = self.store.update_federation_relationship(
            &change.trust_domain,
            change.endpoint_url,
            change.profile,
            change.bundle,
        );
        let updated = updated.await.map_err(refused)?;
        self.wire(&updated, mask).await
    }

    async fn delete(&self, name: &str) -> Result<(), RpcError> {
        if name.is_empty() {
            return Err(RpcError::InvalidArgument("missing trust domain".into()));
        }
        let name = parse(name)?;
        self.store
            .delete_federation_relationship(&name)
            .await
            .map_err(refused)?;
        tracing::info!(trust_domain = %name, "federation relationship deleted");
        Ok(())
    }

    async fn refresh(&self, name: &str) -> Result<(), RpcError> {
        let name = parse(name)?;
        if self.store.federation_relationship(&name).await?.is_none() {
            let text = format!("no relationship with trust domain \"{name}\"");
            return Err(RpcError::NotFound(text));
        }
        Err(RpcError::Unimplemented(
            "bundles are not fetched from their endpoints yet; set the bundle by BatchSetFederatedBundle".into(),
        ))
    }

    fn not_ours(&self, name: &TrustDomain, what: &str) -> Result<(), RpcError> {
        if *name != self.trust_domain {
            return Ok(());
        }
        Err(RpcError::InvalidArgument(format!(
            "unable to {what} federation relationship for server trust domain \"{name}\""
        )))
    }

    /// A relationship as the caller wants to see it, with the bundle that is here.
    async fn wire(&self, relationship: &FederationRelationship, mask: Option<&Mask>) -> Item {
        let mut wire = types::FederationRelationship::from(relationship);
        if mask.is_none_or(|mask| mask.trust_domain_bundle) {
            let bundle = self.store.bundle(&relationship.trust_domain).await?;
            wire.trust_domain_bundle = bundle.as_ref().map(Into::into);
        }
        mask_federation_relationship(&mut wire, mask);
        Ok(wire)
    }
}

#[tonic::async_trait]
impl trust_domain_server::TrustDomain for TrustDomainService {
    async fn list_federation_relationships(
        &self,
        request: Request<ListFederationRelationshipsRequest>,
    ) -> Result<Response<ListFederationRelationshipsResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn get_federation_relationship(
        &self,
        request: Request<GetFederationRelationshipRequest>,
    ) -> Result<Response<types::FederationRelationship>, Status> {
        Ok(Response::new(self.get(request.into_inner()).await?))
    }

    async fn batch_create_federation_relationship(
        &self,
        request: Request<BatchCreateFederationRelationshipRequest>,
    ) -> Result<Response<BatchCreateFederationRelationshipResponse>, Status> {
        let request = request.into_inner();
        let wanted = request.federation_relationships.iter();
        let items = wanted.map(|wanted| self.create(wanted, request.output_mask.as_ref()));
        let results = join_all(items).await.into_iter().map(parts);
        Ok(Response::new(BatchCreateFederationRelationshipResponse {
            results: results
                .map(|(status, federation_relationship)| Created {
                    status,
                    federation_relationship,
                })
                .collect(),
        }))
    }

    async fn batch_update_federation_relationship(
        &self,
        request: Request<BatchUpdateFederationRelationshipRequest>,
    ) -> Result<Response<BatchUpdateFederationRelationshipResponse>, Status> {
        let request = request.into_inner();
        let (input, output) = (request.input_mask.as_ref(), request.output_mask.as_ref());
        let wanted = request.federation_relationships.iter();
        let items = wanted.map(|wanted| self.update(wanted, input, output));
        let results = join_all(items).await.into_iter().map(parts);
        Ok(Response::new(BatchUpdateFederationRelationshipResponse {
            results: results
                .map(|(status, federation_relationship)| Updated {
                    status,
                    federation_relationship,
                })
                .collect(),
        }))
    }

    async fn batch_delete_federation_relationship(
        &self,
        request: Request<BatchDeleteFederationRelationshipRequest>,
    ) -> Result<Response<BatchDeleteFederationRelationshipResponse>, Status> {
        let names = request.into_inner().trust_domains;
        let outcomes = join_all(names.iter().map(|name| self.delete(name))).await;
        let results = outcomes.into_iter().zip(names);
        Ok(Response::new(BatchDeleteFederationRelationshipResponse {
            results: results
                .map(|(outcome, trust_domain)| Deleted {
                    status: Some(outcome.map_or_else(RpcError::item_status, |()| ok_status())),
                    trust_domain,
                })
                .collect(),
        }))
    }

    async fn refresh_bundle(
        &self,
        request: Request<RefreshBundleRequest>,
    ) -> Result<Response<()>, Status> {
        Ok(Response::new(
            self.refresh(&request.into_inner().trust_domain).await?,
        ))
    }
}

fn parts(item: Item) -> (Option<types::Status>, Option<types::FederationRelationship>) {
    match item {
        Ok(relationship) => (Some(ok_status()), Some(relationship)),
        Err(error) => (Some(error.item_status()), None),
    }
}

fn parse(name: &str) -> Result<TrustDomain, RpcError> {
    convert::trust_domain("trust_domain", name)
        .map_err(|error| RpcError::InvalidArgument(error.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "maps an error")]
fn unreadable(error: FieldError) -> RpcError {
    RpcError::InvalidArgument(format!(
        "failed to convert federation relationship: {error}"
    ))
}

fn refused(error: FederationError) -> RpcError {
    let text = error.to_string();
    match error {
        FederationError::NotFound => RpcError::NotFound(text),
        FederationError::Exists => RpcError::AlreadyExists(text),
        FederationError::Store(error) => error.into(),
        _ => RpcError::internal("the federation relationship cannot be written", error),
    }
}
