//! The bundles of federated trust domains: set by operators here, and by the relationships of `TrustDomain`.
//!
//! The items of a batch are handed to the store together, in order; it commits them in groups.

use futures_util::future::join_all;
use identity::{Bundle, TrustDomain};
use proto::convert::{self, FieldError, mask_bundle, ok_status};
use proto::spire::api::server::bundle::v1::batch_delete_federated_bundle_request::Mode;
use proto::spire::api::server::bundle::v1::{
    BatchCreateFederatedBundleRequest, BatchCreateFederatedBundleResponse,
    BatchDeleteFederatedBundleRequest, BatchDeleteFederatedBundleResponse,
    BatchSetFederatedBundleRequest, BatchSetFederatedBundleResponse,
    BatchUpdateFederatedBundleRequest, BatchUpdateFederatedBundleResponse,
    GetFederatedBundleRequest, ListFederatedBundlesRequest, ListFederatedBundlesResponse,
    batch_create_federated_bundle_response, batch_delete_federated_bundle_response,
    batch_set_federated_bundle_response, batch_update_federated_bundle_response,
};
use proto::spire::api::types;
use store::{BundleWriteError, DeleteBundleMode};

use super::BundleService;
use crate::rpc::RpcError;
use crate::service::list;

/// What comes of one item.
type Item = Result<types::Bundle, RpcError>;

impl BundleService {
    pub(super) async fn list_federated(
        &self,
        request: ListFederatedBundlesRequest,
    ) -> Result<ListFederatedBundlesResponse, RpcError> {
        let page = list::page(request.page_size, &request.page_token)?;
        let listing = self.store.list_bundles(page).await?;
        let federated = listing.items.iter();
        let federated = federated.filter(|bundle| bundle.trust_domain != self.trust_domain);
        Ok(ListFederatedBundlesResponse {
            bundles: federated
                .map(|bundle| wire(bundle, request.output_mask.as_ref()))
                .collect(),
            next_page_token: list::token(listing.next),
        })
    }

    pub(super) async fn get_federated(&self, request: GetFederatedBundleRequest) -> Item {
        let name = convert::trust_domain("trust_domain", &request.trust_domain).map_err(invalid)?;
        self.not_ours(&name, "getting a federated bundle for")?;
        let bundle = self.store.bundle(&name).await?;
        let bundle = bundle.ok_or_else(|| RpcError::NotFound("bundle not found".into()))?;
        Ok(wire(&bundle, request.output_mask.as_ref()))
    }

    pub(super) async fn create_federated(
        &self,
        request: BatchCreateFederatedBundleRequest,
    ) -> BatchCreateFederatedBundleResponse {
        let mask = request.output_mask.as_ref();
        let items = request.bundle.iter().map(async |bundle| {
            let bundle = self.foreign(bundle, "creating a federated bundle for")?;
            self.store
                .create_bundle(bundle.clone())
                .await
                .map_err(refused)?;
            Ok(wire(&bundle, mask))
        });
        let results = join_all(items).await.into_iter().map(parts);
        BatchCreateFederatedBundleResponse {
            results: results
                .map(
                    |(status, bundle)| batch_create_federated_bundle_response::Result {
                        status,
                        bundle,
                    },
                )
                .collect(),
        }
    }

    pub(super) async fn update_federated(
        &self,
        request: BatchUpdateFederatedBundleRequest,
    ) -> BatchUpdateFederatedBundleResponse {
        let mask = request.output_mask.as_ref();
        let input_mask = request.input_mask.unwrap_or_else(everything);
        let items = request.bundle.into_iter().map(async |mut bundle| {
            // What the mask does not name is not looked at.
            mask_bundle(&mut bundle, Some(&input_mask));
            let bundle = self.foreign(&bundle, "updating a federated bundle for")?;
            let name = bundle.trust_domain.clone();
            let edit = move |known: &mut Bundle| take(known, bundle, input_mask);
            let updated = self.store.update_bundle(&name, edit).await;
            Ok(wire(&updated.map_err(refused)?, mask))
        });
        let results = join_all(items).await.into_iter().map(parts);
        BatchUpdateFederatedBundleResponse {
            results: results
                .map(
                    |(status, bundle)| batch_update_federated_bundle_response::Result {
                        status,
                        bundle,
                    },
                )
                .collect(),
        }
    }

    pub(super) async fn set_federated(
        &self,
        request: BatchSetFederatedBundleRequest,
    ) -> BatchSetFederatedBundleResponse {
        let mask = request.output_mask.as_ref();
        let items = request.bundle.iter().map(async |bundle| {
            let bundle = self.foreign(bundle, "setting a federated bundle for")?;
            self.store.set_bundle(bundle.clone()).await?;
            Ok(wire(&bundle, mask))
        });
        let results = join_all(items).await.into_iter().map(parts);
        BatchSetFederatedBundleResponse {
            results: results
                .map(
                    |(status, bundle)| batch_set_federated_bundle_response::Result {
                        status,
                        bundle,
                    },
                )
                .collect(),
        }
    }

    pub(super) async fn delete_federated(
        &self,
        request: BatchDeleteFederatedBundleRequest,
    ) -> Result<BatchDeleteFederatedBundleResponse, RpcError> {
        let mode = match Mode::try_from(request.mode) {
            Ok(Mode::Restrict) => DeleteBundleMode::Restrict,
            Ok(Mode::Delete) => DeleteBundleMode::Delete,
            Ok(Mode::Dissociate) => DeleteBundleMode::Dissociate,
            Err(_) => {
                let text = format!("unhandled delete mode {}; write 0, 1 or 2", request.mode);
                return Err(RpcError::InvalidArgument(text));
            }
        };
        let items = request.trust_domains.iter().map(async |name| {
            let name = convert::trust_domain("trust_domain", name).map_err(invalid)?;
            self.not_ours(&name, "removing")?;
            self.store.delete_bundle(&name, mode).await.map_err(refused)
        });
        let outcomes = join_all(items).await;
        // Entries may have changed along with the bundles.
        self.entries.catch_up().await?;
        let results = outcomes.into_iter().zip(request.trust_domains);
        let results =
            results.map(
                |(outcome, trust_domain)| batch_delete_federated_bundle_response::Result {
                    status: Some(outcome.map_or_else(RpcError::item_status, |()| ok_status())),
                    trust_domain,
                },
            );
        Ok(BatchDeleteFederatedBundleResponse {
            results: results.collect(),
        })
    }

    /// Reads the bundle of another trust domain.
    fn foreign(&self, bundle: &types::Bundle, doing: &str) -> Result<Bundle, RpcError> {
        let bundle = convert::bundle(bundle).map_err(|error| {
            RpcError::InvalidArgument(format!("failed to convert bundle: {error}"))
        })?;
        self.not_ours(&bundle.trust_domain, doing)?;
        Ok(bundle)
    }

    fn not_ours(&self, name: &TrustDomain, doing: &str) -> Result<(), RpcError> {
        if *name != self.trust_domain {
            return Ok(());
        }
        Err(RpcError::InvalidArgument(format!(
            "{doing} the server's own trust domain ({name}) is not allowed"
        )))
    }
}

/// The fields that the mask names, as the caller wants them.
fn take(known: &mut Bundle, wanted: Bundle, mask: types::BundleMask) {
    if mask.x509_authorities {
        known.x509_authorities = wanted.x509_authorities;
    }
    if mask.jwt_authorities {
        known.jwt_authorities = wanted.jwt_authorities;
    }
    if mask.refresh_hint {
        known.refresh_hint = wanted.refresh_hint;
    }
    if mask.sequence_number {
        known.sequence = wanted.sequence;
    }
}

fn everything() -> types::BundleMask {
    types::BundleMask {
        x509_authorities: true,
        jwt_authorities: true,
        refresh_hint: true,
        sequence_number: true,
        wit_authorities: true,
    }
}

fn wire(bundle: &Bundle, mask: Option<&types::BundleMask>) -> types::Bundle {
    let mut bundle = types::Bundle::from(bundle);
    mask_bundle(&mut bundle, mask);
    bundle
}

fn parts(item: Item) -> (Option<types::Status>, Option<types::Bundle>) {
    match item {
        Ok(bundle) => (Some(ok_status()), Some(bundle)),
        Err(error) => (Some(error.item_status()), None),
    }
}

pub(super) fn refused(error: BundleWriteError) -> RpcError {
    let text = error.to_string();
    match error {
        BundleWriteError::NotFound => RpcError::NotFound(text),
        BundleWriteError::Exists => RpcError::AlreadyExists(text),
        BundleWriteError::InUse(_) | BundleWriteError::Refused(_) => {
            RpcError::FailedPrecondition(text)
        }
        BundleWriteError::Store(error) => error.into(),
        _ => RpcError::internal("the bundle cannot be written", error),
    }
}

pub(super) fn invalid(error: FieldError) -> RpcError {
    RpcError::InvalidArgument(error.to_string())
}
