//! Federation: relationships, the bundles of other trust domains, and entries that federate with them.

use proto::spire::api::server::bundle::v1::batch_delete_federated_bundle_request::Mode;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::bundle::v1::{
    BatchCreateFederatedBundleRequest, BatchDeleteFederatedBundleRequest,
    BatchSetFederatedBundleRequest, BatchUpdateFederatedBundleRequest, GetFederatedBundleRequest,
    ListFederatedBundlesRequest,
};
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{BatchCreateEntryRequest, ListEntriesRequest};
use proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use proto::spire::api::server::trustdomain::v1::{
    BatchCreateFederationRelationshipRequest, BatchDeleteFederationRelationshipRequest,
    BatchUpdateFederationRelationshipRequest, GetFederationRelationshipRequest,
    ListFederationRelationshipsRequest, RefreshBundleRequest,
};
use proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use proto::spire::api::types::{
    self, Bundle, BundleMask, FederationRelationship, FederationRelationshipMask, JwtKey, Spiffeid,
};
use testkit::TestServer;
use tonic::Code;
use tonic::transport::Channel;

/// A code and its text.
type Answer = (Code, String);

fn answers<'a>(statuses: impl Iterator<Item = &'a Option<types::Status>>) -> Vec<Answer> {
    let statuses = statuses.map(|status| status.clone().unwrap());
    statuses
        .map(|status| (Code::from_i32(status.code), status.message))
        .collect()
}

fn codes(answers: &[Answer]) -> Vec<Code> {
    answers.iter().map(|(code, _)| *code).collect()
}

fn bundle(name: &str, sequence_number: u64) -> Bundle {
    Bundle {
        trust_domain: name.into(),
        jwt_authorities: vec![JwtKey {
            public_key: vec![1].into(),
            key_id: "key".into(),
            ..JwtKey::default()
        }],
        refresh_hint: 60,
        sequence_number,
        ..Bundle::default()
    }
}

fn relationship(name: &str) -> FederationRelationship {
    FederationRelationship {
        trust_domain: name.into(),
        bundle_endpoint_url: format!("https://{name}/"),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})),
        trust_domain_bundle: None,
    }
}

async fn create(server: &TestServer, wanted: Vec<FederationRelationship>) -> Vec<Answer> {
    let request = BatchCreateFederationRelationshipRequest {
        federation_relationships: wanted,
        output_mask: None,
    };
    let answer = TrustDomainClient::new(server.local())
        .batch_create_federation_relationship(request)
        .await;
    let results = answer.unwrap().into_inner().results;
    answers(results.iter().map(|result| &result.status))
}

async fn get(server: &TestServer, name: &str) -> FederationRelationship {
    let request = GetFederationRelationshipRequest {
        trust_domain: name.into(),
        output_mask: None,
    };
    TrustDomainClient::new(server.local())
        .get_federation_relationship(request)
        .await
        .unwrap()
        .into_inner()
}

async fn federated(channel: Channel, name: &str) -> Result<Bundle, tonic::Status> {
    let request = GetFederatedBundleRequest {
        trust_domain: name.into(),
        output_mask: None,
    };
    let answer = BundleClient::new(channel)
        .get_federated_bundle(request)
        .await;
    answer.map(tonic::Response::into_inner)
}

async fn set(server: &TestServer, bundles: Vec<Bundle>) -> Vec<Answer> {
    let request = BatchSetFederatedBundleRequest {
        bundle: bundles,
        output_mask: None,
    };
    let answer = BundleClient::new(server.local())
        .batch_set_federated_bundle(request)
        .await;
    let results = answer.unwrap().into_inner().results;
    answers(results.iter().map(|result| &result.status))
}

async fn create_entry(server: &TestServer, path: &str, federates_with: &str) -> Answer {
    let entry = types::Entry {
        spiffe_id: Some(Spiffeid::from(&server.id(path))),
        parent_id: Some(Spiffeid::from(&server.id("/spire/agent/x"))),
        selectors: vec![types::Selector {
            r#type: "unix".into(),
            value: "uid:1".into(),
        }],
        federates_with: vec![federates_with.into()],
        ..types::Entry::default()
    };
    let request = BatchCreateEntryRequest {
        entries: vec![entry],
        output_mask: None,
    };
    let answer = EntryClient::new(server.local())
        .batch_create_entry(request)
        .await;
    let results = answer.unwrap().into_inner().results;
    answers(results.iter().map(|result| &result.status)).remove(0)
}

#[tokio::test]
async fn items_are_answered_one_by_one_in_order() {
    let server = TestServer::start().await;
    let mut insecure = relationship("plain.org");
    insecure.bundle_endpoint_url = "http://plain.org/".into();
    let mut bare = relationship("bare.org");
    bare.bundle_endpoint_profile = None;
    let wanted = vec![
        relationship("one.org"),
        relationship("example.org"),
        relationship("one.org"),
        insecure,
        bare,
        relationship("Not A Domain"),
        relationship("two.org"),
    ];
    let got = create(&server, wanted).await;
    let expected = [
        Code::Ok,
        Code::InvalidArgument,
        Code::AlreadyExists,
        Code::InvalidArgument,
        Code::InvalidArgument,
        Code::InvalidArgument,
        Code::Ok,
    ];
    assert_eq!(codes(&got), expected, "{got:?}");
    assert_eq!(
        got[1].1,
        "unable to create federation relationship for server trust domain \"example.org\""
    );
    assert!(got[3].1.contains("must use the https scheme"), "{got:?}");
    server.stop().await;
}

#[tokio::test]
async fn lists_page_and_mask() {
    let server = TestServer::start().await;
    let names = ["c.org", "a.org", "b.org"];
    let mut wanted: Vec<_> = names.into_iter().map(relationship).collect();
    wanted[0].trust_domain_bundle = Some(bundle("c.org", 5));
    create(&server, wanted).await;
    let mut client = TrustDomainClient::new(server.local());
    let mut list = async |page_token: String, output_mask| {
        let request = ListFederationRelationshipsRequest {
            output_mask,
            page_size: 2,
            page_token,
        };
        let answer = client.list_federation_relationships(request).await;
        let answer = answer.unwrap().into_inner();
        (answer.federation_relationships, answer.next_page_token)
    };
    let (first, token) = list(String::new(), None).await;
    let mut seeded = relationship("c.org");
    seeded.trust_domain_bundle = Some(bundle("c.org", 5));
    assert_eq!(first, [seeded, relationship("a.org")]);
    let mask = Some(FederationRelationshipMask::default());
    let (second, token) = list(token, mask).await;
    let bare = FederationRelationship {
        trust_domain: "b.org".into(),
        ..FederationRelationship::default()
    };
    assert_eq!(second, [bare]);
    assert_eq!(list(token, None).await, (Vec::new(), String::new()));
    server.stop().await;
}

#[tokio::test]
async fn an_update_replaces_what_its_mask_names() {
    let server = TestServer::start().await;
    let mut seeded = relationship("a.org");
    seeded.trust_domain_bundle = Some(bundle("a.org", 1));
    create(&server, vec![seeded.clone()]).await;
    let mut client = TrustDomainClient::new(server.local());
    let mut update = async |wanted, input_mask| {
        let request = BatchUpdateFederationRelationshipRequest {
            federation_relationships: wanted,
            input_mask,
            output_mask: None,
        };
        let answer = client.batch_update_federation_relationship(request).await;
        let results = answer.unwrap().into_inner().results;
        codes(&answers(results.iter().map(|result| &result.status)))
    };
    let mut other = relationship("a.org");
    other.bundle_endpoint_url = "https://elsewhere.org/".into();
    other.bundle_endpoint_profile = Some(BundleEndpointProfile::HttpsSpiffe(
        types::HttpsspiffeProfile {
            endpoint_spiffe_id: "spiffe://a.org/server".into(),
        },
    ));
    let only_url = FederationRelationshipMask {
        bundle_endpoint_url: true,
        ..FederationRelationshipMask::default()
    };
    assert_eq!(
        update(vec![other.clone()], Some(only_url)).await,
        [Code::Ok]
    );
    seeded.bundle_endpoint_url = "https://elsewhere.org/".into();
    assert_eq!(get(&server, "a.org").await, seeded);
    let wanted = vec![
        other.clone(),
        relationship("b.org"),
        relationship("example.org"),
    ];
    assert_eq!(
        update(wanted, None).await,
        [Code::Ok, Code::NotFound, Code::InvalidArgument]
    );
    other.trust_domain_bundle = Some(bundle("a.org", 1));
    assert_eq!(get(&server, "a.org").await, other, "the bundle stays");
    server.stop().await;
}

#[tokio::test]
async fn a_deleted_relationship_leaves_its_bundle() {
    let server = TestServer::start().await;
    let mut seeded = relationship("a.org");
    seeded.trust_domain_bundle = Some(bundle("a.org", 1));
    create(&server, vec![seeded]).await;
    let request = BatchDeleteFederationRelationshipRequest {
        trust_domains: vec!["a.org".into(), "a.org".into(), String::new()],
    };
    let mut client = TrustDomainClient::new(server.local());
    let answer = client.batch_delete_federation_relationship(request).await;
    let results = answer.unwrap().into_inner().results;
    let got = answers(results.iter().map(|result| &result.status));
    assert_eq!(
        codes(&got),
        [Code::Ok, Code::NotFound, Code::InvalidArgument]
    );
    assert_eq!(results[1].trust_domain, "a.org");
    let kept = federated(server.local(), "a.org").await.unwrap();
    assert_eq!(kept, bundle("a.org", 1));
    server.stop().await;
}

#[tokio::test]
async fn refreshing_says_what_it_cannot() {
    let server = TestServer::start().await;
    create(&server, vec![relationship("a.org")]).await;
    let mut client = TrustDomainClient::new(server.local());
    for (name, code) in [
        ("a.org", Code::Unimplemented),
        ("b.org", Code::NotFound),
        ("", Code::InvalidArgument),
    ] {
        let trust_domain = name.into();
        let answer = client.refresh_bundle(RefreshBundleRequest { trust_domain });
        assert_eq!(answer.await.unwrap_err().code(), code, "{name}");
    }
    server.stop().await;
}

#[tokio::test]
async fn federated_bundles_are_created_updated_and_set() {
    let server = TestServer::start().await;
    let mut client = BundleClient::new(server.local());
    let request = BatchCreateFederatedBundleRequest {
        bundle: vec![
            bundle("a.org", 1),
            bundle("a.org", 2),
            bundle("example.org", 1),
            Bundle::default(),
        ],
        output_mask: Some(BundleMask::default()),
    };
    let answer = client.batch_create_federated_bundle(request).await;
    let results = answer.unwrap().into_inner().results;
    let got = answers(results.iter().map(|result| &result.status));
    assert_eq!(
        codes(&got),
        [
            Code::Ok,
            Code::AlreadyExists,
            Code::InvalidArgument,
            Code::InvalidArgument
        ]
    );
    assert_eq!(results[0].bundle.as_ref().unwrap().refresh_hint, 0);

    let mut wanted = bundle("a.org", 7);
    wanted.jwt_authorities[0].key_id.clear();
    let request = BatchUpdateFederatedBundleRequest {
        bundle: vec![wanted, bundle("b.org", 1)],
        input_mask: Some(BundleMask {
            sequence_number: true,
            ..BundleMask::default()
        }),
        output_mask: None,
    };
    let answer = client.batch_update_federated_bundle(request).await;
    let results = answer.unwrap().into_inner().results;
    let got = answers(results.iter().map(|result| &result.status));
    assert_eq!(codes(&got), [Code::Ok, Code::NotFound], "{got:?}");
    assert_eq!(results[0].bundle, Some(bundle("a.org", 7)));

    let got = set(&server, vec![bundle("a.org", 9), bundle("b.org", 1)]).await;
    assert_eq!(codes(&got), [Code::Ok, Code::Ok]);
    let listed = client
        .list_federated_bundles(ListFederatedBundlesRequest::default())
        .await;
    let listed = listed.unwrap().into_inner().bundles;
    assert_eq!(
        listed,
        [bundle("a.org", 9), bundle("b.org", 1)],
        "not our own"
    );
    server.stop().await;
}

/// Agents fetch what their entries federate with.
#[tokio::test]
async fn agents_get_federated_bundles_by_name() {
    let server = TestServer::start().await;
    set(&server, vec![bundle("a.org", 1)]).await;
    let svid = server.attest().await;
    let agent = server.remote(Some(svid)).await;
    let got = federated(agent.clone(), "a.org").await.unwrap();
    assert_eq!(got, bundle("a.org", 1));
    for (name, code) in [
        ("b.org", Code::NotFound),
        ("example.org", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        let status = federated(agent.clone(), name).await.unwrap_err();
        assert_eq!(status.code(), code, "{name}: {status}");
    }
    server.stop().await;
}

#[tokio::test]
async fn entries_federate_with_known_bundles_and_deletion_has_three_modes() {
    let server = TestServer::start().await;
    let (code, text) = create_entry(&server, "/web", "a.org").await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(
        text.contains("unable to find federated bundle \"a.org\""),
        "{text}"
    );
    set(&server, vec![bundle("a.org", 1)]).await;
    assert_eq!(create_entry(&server, "/web", "a.org").await.0, Code::Ok);

    let mut client = BundleClient::new(server.local());
    let mut delete = async |mode: i32| {
        let request = BatchDeleteFederatedBundleRequest {
            trust_domains: vec!["a.org".into(), "b.org".into(), "example.org".into()],
            mode,
        };
        let answer = client.batch_delete_federated_bundle(request).await?;
        let results = answer.into_inner().results;
        Ok::<_, tonic::Status>(codes(&answers(results.iter().map(|result| &result.status))))
    };
    let mut entries = EntryClient::new(server.local());
    let mut listed = async || {
        let answer = entries.list_entries(ListEntriesRequest::default()).await;
        let entries = answer.unwrap().into_inner().entries;
        let federations = entries.iter().map(|entry| entry.federates_with.len());
        federations.collect::<Vec<_>>()
    };
    let of = |first| [first, Code::NotFound, Code::InvalidArgument];
    let unknown = delete(3).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    let restricted = delete(Mode::Restrict.into()).await.unwrap();
    assert_eq!(restricted, of(Code::FailedPrecondition));
    assert_eq!(listed().await, [1]);
    let dissociated = delete(Mode::Dissociate.into()).await.unwrap();
    assert_eq!(dissociated, of(Code::Ok));
    assert_eq!(listed().await, [0]);

    set(&server, vec![bundle("a.org", 1)]).await;
    assert_eq!(create_entry(&server, "/db", "a.org").await.0, Code::Ok);
    assert_eq!(listed().await, [0, 1]);
    let deleted = delete(Mode::Delete.into()).await.unwrap();
    assert_eq!(deleted, of(Code::Ok));
    assert_eq!(listed().await, [0]);
    server.stop().await;
}
