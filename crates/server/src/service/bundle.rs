//! `spire.api.server.bundle.v1`: the trust domain's bundle for whoever asks, and those of federated ones.

mod append;
mod federated;

use identity::TrustDomain;
use proto::convert;
use proto::spire::api::server::bundle::v1::bundle_server::Bundle;
use proto::spire::api::server::bundle::v1::{
    AppendBundleRequest, BatchCreateFederatedBundleRequest, BatchCreateFederatedBundleResponse,
    BatchDeleteFederatedBundleRequest, BatchDeleteFederatedBundleResponse,
    BatchSetFederatedBundleRequest, BatchSetFederatedBundleResponse,
    BatchUpdateFederatedBundleRequest, BatchUpdateFederatedBundleResponse, CountBundlesRequest,
    CountBundlesResponse, GetBundleRequest, GetFederatedBundleRequest, ListFederatedBundlesRequest,
    ListFederatedBundlesResponse, PublishJwtAuthorityRequest, PublishJwtAuthorityResponse,
    PublishWitAuthorityRequest, PublishWitAuthorityResponse,
};
use proto::spire::api::types;
use store::Store;
use tonic::{Request, Response, Status};

use crate::authority::Authorities;
use crate::entries::Entries;
use crate::rpc::RpcError;

/// Hands out bundles.
pub(crate) struct BundleService {
    pub(crate) authorities: Authorities,
    pub(crate) store: Store,
    pub(crate) entries: Entries,
    pub(crate) trust_domain: TrustDomain,
}

#[tonic::async_trait]
impl Bundle for BundleService {
    async fn get_bundle(
        &self,
        request: Request<GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let bundle = self.authorities.bundle();
        let bundle = wire(&bundle.borrow(), request.get_ref().output_mask.as_ref());
        Ok(Response::new(bundle))
    }

    async fn count_bundles(
        &self,
        _: Request<CountBundlesRequest>,
    ) -> Result<Response<CountBundlesResponse>, Status> {
        let count = self.store.count_bundles().await.map_err(RpcError::from)?;
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        Ok(Response::new(CountBundlesResponse { count }))
    }

    async fn append_bundle(
        &self,
        request: Request<AppendBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        Ok(Response::new(self.append(request.into_inner()).await?))
    }

    async fn publish_jwt_authority(
        &self,
        _: Request<PublishJwtAuthorityRequest>,
    ) -> Result<Response<PublishJwtAuthorityResponse>, Status> {
        Err(later("publishing a downstream server's JWT authority"))
    }

    async fn publish_wit_authority(
        &self,
        _: Request<PublishWitAuthorityRequest>,
    ) -> Result<Response<PublishWitAuthorityResponse>, Status> {
        Err(later("publishing a WIT authority"))
    }

    async fn list_federated_bundles(
        &self,
        request: Request<ListFederatedBundlesRequest>,
    ) -> Result<Response<ListFederatedBundlesResponse>, Status> {
        Ok(Response::new(
            self.list_federated(request.into_inner()).await?,
        ))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        Ok(Response::new(
            self.get_federated(request.into_inner()).await?,
        ))
    }

    async fn batch_create_federated_bundle(
        &self,
        request: Request<BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<BatchCreateFederatedBundleResponse>, Status> {
        Ok(Response::new(
            self.create_federated(request.into_inner()).await,
        ))
    }

    async fn batch_update_federated_bundle(
        &self,
        request: Request<BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<BatchUpdateFederatedBundleResponse>, Status> {
        Ok(Response::new(
            self.update_federated(request.into_inner()).await,
        ))
    }

    async fn batch_set_federated_bundle(
        &self,
        request: Request<BatchSetFederatedBundleRequest>,
    ) -> Result<Response<BatchSetFederatedBundleResponse>, Status> {
        Ok(Response::new(
            self.set_federated(request.into_inner()).await,
        ))
    }

    async fn batch_delete_federated_bundle(
        &self,
        request: Request<BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<BatchDeleteFederatedBundleResponse>, Status> {
        Ok(Response::new(
            self.delete_federated(request.into_inner()).await?,
        ))
    }
}

/// A bundle as the caller wants to see it.
fn wire(bundle: &identity::Bundle, mask: Option<&types::BundleMask>) -> types::Bundle {
    let mut bundle = types::Bundle::from(bundle);
    convert::mask_bundle(&mut bundle, mask);
    bundle
}

fn later(what: &str) -> Status {
    RpcError::Unimplemented(format!("{what} is not offered yet")).into()
}
