//! Asks the server for bundles.

use identity::{Bundle, TrustDomain};
use proto::spire::api::server::bundle::v1::{GetBundleRequest, GetFederatedBundleRequest};
use tonic::Code;

use super::SyncError;
use crate::{attest::describe, client::ServerClient};

/// Asks for the own bundle.
pub(super) async fn fetch_bundle(client: &ServerClient) -> Result<Bundle, SyncError> {
    let request = GetBundleRequest { output_mask: None };
    let answer = client
        .bundle()
        .get_bundle(request)
        .await
        .map_err(|status| SyncError::Bundle(Box::new(status)))?;
    Ok(proto::convert::bundle(answer.get_ref())?)
}

/// Asks for a foreign bundle; `None` when the server has none.
pub(super) async fn fetch_federated(
    client: &ServerClient,
    domain: TrustDomain,
) -> (TrustDomain, Result<Option<Bundle>, String>) {
    let request = GetFederatedBundleRequest {
        trust_domain: domain.as_str().to_owned(),
        output_mask: None,
    };
    let fetched = match client.bundle().get_federated_bundle(request).await {
        Ok(answer) => match proto::convert::bundle(answer.get_ref()) {
            Ok(bundle) if bundle.trust_domain == domain => Ok(Some(bundle)),
            Ok(bundle) => Err(format!("the server sent that of {}", bundle.trust_domain)),
            Err(error) => Err(error.to_string()),
        },
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(describe(&status)),
    };
    (domain, fetched)
}
