//! Federation from the server's API to a workload.

use std::collections::BTreeMap;
use std::time::Duration;

use identity::{Selector, Selectors};
use proto::spire::api::server::bundle::v1::BatchDeleteFederatedBundleRequest;
use proto::spire::api::server::bundle::v1::batch_delete_federated_bundle_request::Mode;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::entry::v1::BatchUpdateEntryRequest;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::trustdomain::v1::BatchCreateFederationRelationshipRequest;
use proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use proto::spire::api::types::{self, EntryMask};
use proto::workload::X509svidRequest;
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use testkit::{TestAgent, TestServer};
use tokio::time::timeout;
use tonic::Request;

/// Longer than anything here takes; reaching it is a failure, not a measure.
const PATIENCE: Duration = Duration::from_secs(30);

fn me() -> Selectors {
    let uid = nix::unistd::getuid();
    let selector = Selector::new("unix", &format!("uid:{uid}")).unwrap();
    std::iter::once(selector).collect()
}

/// The federated bundles a workload is given, from the first message that has as many.
async fn federated(agent: &TestAgent, count: usize) -> BTreeMap<String, Vec<u8>> {
    let fetch = async {
        loop {
            let mut request = Request::new(X509svidRequest {});
            let header = "true".parse().unwrap();
            request.metadata_mut().insert("workload.spiffe.io", header);
            let mut client = SpiffeWorkloadApiClient::new(agent.channel());
            tokio::task::yield_now().await;
            // Refused as long as there is no identity.
            let Ok(answer) = client.fetch_x509svid(request).await else {
                continue;
            };
            let mut stream = answer.into_inner();
            while let Ok(Some(message)) = stream.message().await {
                let bundles = message.federated_bundles.into_iter();
                let bundles: BTreeMap<_, _> =
                    bundles.map(|(name, der)| (name, der.to_vec())).collect();
                if bundles.len() == count {
                    return bundles;
                }
            }
        }
    };
    timeout(PATIENCE, fetch)
        .await
        .expect("as many bundles must come")
}

/// F-21: what an entry federates with reaches its workload, and goes when the bundle does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_21_a_federated_bundle_comes_to_the_workload_and_goes() {
    let other = TestServer::start_with(|config| {
        config.trust_domain = "other.org".parse().unwrap();
    })
    .await;
    let foreign = other.bundle().await;
    let server = TestServer::start().await;
    let id = server.entry(&server.id("/node"), "/web", &me(), 0).await;
    let agent = TestAgent::start(&server).await;
    assert_eq!(federated(&agent, 0).await, BTreeMap::new());

    let relationship = types::FederationRelationship {
        trust_domain: "other.org".to_owned(),
        bundle_endpoint_url: "https://other.org/".to_owned(),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})),
        trust_domain_bundle: Some(types::Bundle::from(&foreign)),
    };
    let request = BatchCreateFederationRelationshipRequest {
        federation_relationships: vec![relationship],
        output_mask: None,
    };
    TrustDomainClient::new(server.local())
        .batch_create_federation_relationship(request)
        .await
        .unwrap();
    let request = BatchUpdateEntryRequest {
        entries: vec![types::Entry {
            id: id.to_string(),
            federates_with: vec!["other.org".to_owned()],
            ..types::Entry::default()
        }],
        input_mask: Some(EntryMask {
            federates_with: true,
            ..EntryMask::default()
        }),
        output_mask: None,
    };
    let answer = EntryClient::new(server.local())
        .batch_update_entry(request)
        .await;
    let results = answer.unwrap().into_inner().results;
    assert_eq!(results[0].status.as_ref().unwrap().code, 0, "{results:?}");
    let expected = BTreeMap::from([("spiffe://other.org".to_owned(), foreign.x509_der())]);
    assert_eq!(federated(&agent, 1).await, expected);

    let request = BatchDeleteFederatedBundleRequest {
        trust_domains: vec!["other.org".to_owned()],
        mode: Mode::Dissociate.into(),
    };
    BundleClient::new(server.local())
        .batch_delete_federated_bundle(request)
        .await
        .unwrap();
    assert_eq!(federated(&agent, 0).await, BTreeMap::new());
}
