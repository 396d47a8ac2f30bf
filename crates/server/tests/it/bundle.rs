//! `spire.api.server.bundle.v1`: the trust domain's own bundle.

use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::bundle::v1::{
    AppendBundleRequest, CountBundlesRequest, GetBundleRequest,
};
use proto::spire::api::types::{Bundle, BundleMask};
use testkit::TestServer;
use tonic::Code;

async fn get(server: &TestServer, output_mask: Option<BundleMask>) -> Bundle {
    let request = GetBundleRequest { output_mask };
    let mut bundles = BundleClient::new(server.local());
    bundles.get_bundle(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn without_a_mask_all_of_the_bundle_is_there() {
    let server = TestServer::start().await;
    let bundle = get(&server, None).await;
    assert_eq!(bundle.trust_domain, "example.org");
    assert_eq!(bundle.x509_authorities.len(), 1);
    assert_eq!(bundle.jwt_authorities.len(), 1);
    assert!(bundle.sequence_number > 0);
    let jwt = &bundle.jwt_authorities[0];
    assert!(jwt.key_id.len() == 32 && jwt.expires_at > 0);
}

#[tokio::test]
async fn a_mask_names_what_is_wanted() {
    let server = TestServer::start().await;
    let mask = |change: fn(&mut BundleMask)| {
        let mut mask = BundleMask::default();
        change(&mut mask);
        Some(mask)
    };
    let shape = |bundle: Bundle| {
        assert_eq!(bundle.trust_domain, "example.org", "always there");
        (
            bundle.x509_authorities.len(),
            bundle.jwt_authorities.len(),
            bundle.sequence_number > 0,
        )
    };
    assert_eq!(shape(get(&server, mask(|_| ())).await), (0, 0, false));
    let x509 = get(&server, mask(|mask| mask.x509_authorities = true));
    assert_eq!(shape(x509.await), (1, 0, false));
    let jwt = get(&server, mask(|mask| mask.jwt_authorities = true));
    assert_eq!(shape(jwt.await), (0, 1, false));
    let sequence = get(&server, mask(|mask| mask.sequence_number = true));
    assert_eq!(shape(sequence.await), (0, 0, true));
}

#[tokio::test]
async fn the_own_bundle_counts() {
    let server = TestServer::start().await;
    let mut bundles = BundleClient::new(server.local());
    let answer = bundles.count_bundles(CountBundlesRequest {}).await.unwrap();
    assert_eq!(answer.into_inner().count, 1);
}

#[tokio::test]
async fn what_is_not_offered_yet_says_so() {
    let server = TestServer::start().await;
    let mut bundles = BundleClient::new(server.local());
    let append = bundles.append_bundle(AppendBundleRequest::default()).await;
    let status = append.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().ends_with("not offered yet"), "{status}");
}
