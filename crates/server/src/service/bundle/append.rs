//! AppendBundle: authorities of others in the trust domain's own bundle, such as those of a CA that is to be replaced.

use ca::PublicKey;
use identity::{JwtAuthority, X509Authority};
use proto::convert;
use proto::spire::api::server::bundle::v1::AppendBundleRequest;
use proto::spire::api::types;

use super::BundleService;
use super::federated::{invalid, refused};
use crate::rpc::RpcError;

impl BundleService {
    pub(super) async fn append(
        &self,
        request: AppendBundleRequest,
    ) -> Result<types::Bundle, RpcError> {
        if !request.wit_authorities.is_empty() {
            let text = "WIT authorities are not offered";
            return Err(RpcError::Unimplemented(text.to_owned()));
        }
        let x509 = convert::x509_authorities("x509_authorities", &request.x509_authorities);
        let x509 = x509.map_err(invalid)?;
        let jwt = convert::jwt_authorities("jwt_authorities", &request.jwt_authorities);
        let jwt = jwt.map_err(invalid)?;
        check(&x509, &jwt)?;
        tracing::info!(
            x509 = x509.len(),
            jwt = jwt.len(),
            "appending authorities to the bundle"
        );
        let bundle = self.authorities.append(x509, jwt).await.map_err(refused)?;
        Ok(super::wire(&bundle, request.output_mask.as_ref()))
    }
}

/// What goes into the bundle goes to every workload: nothing that could not sign an SVID.
fn check(x509: &[X509Authority], jwt: &[JwtAuthority]) -> Result<(), RpcError> {
    let invalid = |text: String| Err(RpcError::InvalidArgument(text));
    if x509.is_empty() && jwt.is_empty() {
        return invalid(
            "no authorities to append; give x509_authorities or jwt_authorities".into(),
        );
    }
    if let Some(at) = x509.iter().position(|one| !one.certificate.is_ca()) {
        return invalid(format!("x509_authorities[{at}] is no CA certificate"));
    }
    for (at, one) in jwt.iter().enumerate() {
        if let Err(error) = PublicKey::from_spki(&one.public_key) {
            return invalid(format!("jwt_authorities[{at}].public_key: {error}"));
        }
    }
    Ok(())
}
