//! `spire.api.server.bundle.v1`: the trust domain's own bundle.

use std::time::{Duration, UNIX_EPOCH};

use ca::{CaSpec, Subject};
use identity::{KeyType, PrivateKey, TrustDomain};
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::bundle::v1::{
    AppendBundleRequest, CountBundlesRequest, GetBundleRequest,
};
use proto::spire::api::types::{Bundle, BundleMask, JwtKey, X509Certificate};
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

/// A foreign CA, and a key to mint JWT-SVIDs with.
fn foreign() -> (X509Certificate, JwtKey) {
    let key = || PrivateKey::generate(KeyType::EcP256).unwrap();
    let spec = CaSpec {
        trust_domain: &TrustDomain::new("example.org").unwrap(),
        subject: Subject::ca(),
        ttl: Duration::from_secs(3600),
    };
    let authority = ca::X509Authority::self_signed(
        key(),
        &spec,
        UNIX_EPOCH + Duration::from_secs(2_000_000_000),
    );
    let authority = authority.unwrap();
    let x509 = X509Certificate {
        asn1: authority.certificate().der().to_vec().into(),
        tainted: false,
    };
    let jwt = JwtKey {
        key_id: "foreign".into(),
        public_key: key().public_key_spki().to_vec().into(),
        ..JwtKey::default()
    };
    (x509, jwt)
}

fn appending(x509: Option<X509Certificate>, jwt: Option<JwtKey>) -> AppendBundleRequest {
    AppendBundleRequest {
        x509_authorities: x509.into_iter().collect(),
        jwt_authorities: jwt.into_iter().collect(),
        ..AppendBundleRequest::default()
    }
}

#[tokio::test]
async fn authorities_of_others_are_appended_once() {
    let server = TestServer::start().await;
    let mut bundles = BundleClient::new(server.local());
    let before = get(&server, None).await;
    let (x509, jwt) = foreign();
    let request = appending(Some(x509.clone()), Some(jwt.clone()));
    let answer = bundles.append_bundle(request.clone()).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.x509_authorities[1..], [x509]);
    assert_eq!(answer.jwt_authorities[1..], [jwt]);
    assert_eq!(answer.sequence_number, before.sequence_number + 1);
    assert_eq!(get(&server, None).await, answer);

    let again = bundles.append_bundle(request.clone()).await.unwrap();
    assert_eq!(again.into_inner(), answer, "once more changes nothing");
    let masked = AppendBundleRequest {
        output_mask: Some(BundleMask::default()),
        ..request
    };
    let masked = bundles.append_bundle(masked).await.unwrap().into_inner();
    assert_eq!(
        (masked.x509_authorities.len(), masked.sequence_number),
        (0, 0)
    );
}

#[tokio::test]
async fn what_could_not_sign_is_not_appended() {
    let server = TestServer::start().await;
    let before = get(&server, None).await;
    let (x509, jwt) = foreign();
    let leaf = X509Certificate {
        asn1: server
            .mint(&server.id("/workload"))
            .await
            .leaf()
            .der()
            .to_vec()
            .into(),
        tainted: false,
    };
    let junk = JwtKey {
        public_key: vec![1].into(),
        ..jwt.clone()
    };
    let own = JwtKey {
        key_id: before.jwt_authorities[0].key_id.clone(),
        ..jwt
    };
    for (request, code) in [
        (appending(None, None), Code::InvalidArgument),
        (appending(Some(leaf), None), Code::InvalidArgument),
        (
            appending(Some(x509.clone()), Some(junk)),
            Code::InvalidArgument,
        ),
        (appending(Some(x509), Some(own)), Code::FailedPrecondition),
    ] {
        let mut bundles = BundleClient::new(server.local());
        let status = bundles.append_bundle(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert_eq!(get(&server, None).await, before, "all or none");
    }
}
