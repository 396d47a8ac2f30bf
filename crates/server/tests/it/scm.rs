//! The calls of SPIRE's controller manager, in its order and with its requests, over the socket it uses.

use std::time::Duration;

use identity::{KeyType, PrivateKey, verify_x509_svid};
use proto::convert;
use proto::spire::api::server::bundle::v1::GetBundleRequest;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest,
    GetAuthorizedEntriesRequest, ListEntriesRequest,
};
use proto::spire::api::server::svid::v1::MintX509svidRequest;
use proto::spire::api::server::svid::v1::svid_client::SvidClient;
use proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use proto::spire::api::server::trustdomain::v1::{
    BatchCreateFederationRelationshipRequest, BatchDeleteFederationRelationshipRequest,
    BatchUpdateFederationRelationshipRequest, ListFederationRelationshipsRequest,
};
use proto::spire::api::types;
use proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use testkit::TestServer;
use tonic::Code;

/// What it lists at once, and what it creates or updates at once.
const PAGE: i32 = 200;
const BATCH: usize = 50;

/// Its way to the server: a plain channel over the unix socket, one client for each service.
struct Manager<'a> {
    server: &'a TestServer,
}

type Answer<T> = (Code, T);

fn code(status: Option<types::Status>) -> Code {
    Code::from_i32(status.unwrap().code)
}

impl Manager<'_> {
    fn entries(&self) -> EntryClient<tonic::transport::Channel> {
        EntryClient::new(self.server.local())
    }

    fn trust_domains(&self) -> TrustDomainClient<tonic::transport::Channel> {
        TrustDomainClient::new(self.server.local())
    }

    async fn list(&self) -> Vec<types::Entry> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListEntriesRequest {
                page_size: PAGE,
                page_token,
                ..ListEntriesRequest::default()
            };
            let answer = self.entries().list_entries(request).await.unwrap();
            let answer = answer.into_inner();
            all.extend(answer.entries);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }

    async fn create(&self, entries: Vec<types::Entry>) -> Vec<Answer<Option<types::Entry>>> {
        let expected = entries.len();
        let request = BatchCreateEntryRequest {
            entries,
            output_mask: None,
        };
        let answer = self.entries().batch_create_entry(request).await.unwrap();
        let results = answer.into_inner().results;
        assert_eq!(results.len(), expected, "one result each");
        let results = results.into_iter();
        results.map(|one| (code(one.status), one.entry)).collect()
    }

    /// Without a mask: everything is replaced.
    async fn update(&self, entries: Vec<types::Entry>) -> Vec<Answer<Option<types::Entry>>> {
        let request = BatchUpdateEntryRequest {
            entries,
            ..BatchUpdateEntryRequest::default()
        };
        let answer = self.entries().batch_update_entry(request).await.unwrap();
        let results = answer.into_inner().results.into_iter();
        results.map(|one| (code(one.status), one.entry)).collect()
    }

    async fn delete(&self, ids: &[&str]) -> Vec<Answer<String>> {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let request = BatchDeleteEntryRequest { ids };
        let answer = self.entries().batch_delete_entry(request).await.unwrap();
        let results = answer.into_inner().results.into_iter();
        results.map(|one| (code(one.status), one.id)).collect()
    }

    async fn relations(&self) -> Vec<types::FederationRelationship> {
        let request = ListFederationRelationshipsRequest {
            page_size: PAGE,
            ..ListFederationRelationshipsRequest::default()
        };
        let mut client = self.trust_domains();
        let answer = client.list_federation_relationships(request).await;
        answer.unwrap().into_inner().federation_relationships
    }

    fn id(&self, path: &str) -> Option<types::Spiffeid> {
        Some((&self.server.id(path)).into())
    }

    /// As it makes them for pods.
    fn of_pod(&self, number: usize) -> types::Entry {
        types::Entry {
            id: format!("prod.00000000-0000-0000-0000-{number:012}"),
            spiffe_id: self.id(&format!("/ns/shop/sa/{number}")),
            parent_id: self.id("/spire/agent/k8s_psat/prod/node-uid"),
            selectors: vec![selector("k8s", &format!("pod-uid:{number}"))],
            x509_svid_ttl: 3600,
            dns_names: vec![format!("web-{number}"), format!("web-{number}.shop.svc")],
            ..types::Entry::default()
        }
    }
}

fn selector(kind: &str, value: &str) -> types::Selector {
    types::Selector {
        r#type: kind.to_owned(),
        value: value.to_owned(),
    }
}

/// What the controller manager reads of an entry.
fn read(entry: &types::Entry) -> types::Entry {
    types::Entry {
        revision_number: 0,
        created_at: 0,
        ..entry.clone()
    }
}

fn relation(name: &str, url: &str) -> types::FederationRelationship {
    let profile = types::HttpsspiffeProfile {
        endpoint_spiffe_id: format!("spiffe://{name}/spire/server"),
    };
    types::FederationRelationship {
        trust_domain: name.to_owned(),
        bundle_endpoint_url: url.to_owned(),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsSpiffe(profile)),
        trust_domain_bundle: None,
    }
}

/// The paths of what an agent is told.
async fn authorized(agent: &mut EntryClient<tonic::transport::Channel>) -> Vec<types::Entry> {
    let request = GetAuthorizedEntriesRequest::default();
    let answer = agent.get_authorized_entries(request).await;
    answer.unwrap().into_inner().entries
}

#[tokio::test]
async fn ctl_16_the_probe_for_fields_is_echoed_and_goes_without_a_trace() {
    let server = TestServer::start().await;
    let manager = Manager { server: &server };
    let svid = server.attest().await;
    let own = types::Entry {
        parent_id: Some(svid.id().into()),
        ..manager.of_pod(0)
    };
    assert_eq!(manager.create(vec![own]).await[0].0, Code::Ok);
    let mut agent = EntryClient::new(server.remote(Some(svid)).await);
    let before = authorized(&mut agent).await;
    assert_eq!(before.len(), 1);
    let everything = manager.list().await;
    let probe = types::Entry {
        spiffe_id: manager.id("/spire-controller-manager/unsupported-fields-test"),
        parent_id: manager.id("/spire-controller-manager/unsupported-fields-test"),
        selectors: vec![selector("a", "1")],
        x509_svid_ttl: 60,
        jwt_svid_ttl: 60,
        store_svid: true,
        hint: "hint".to_owned(),
        ..types::Entry::default()
    };
    // The second time it may find what a killed manager left.
    let mut ids = Vec::new();
    for expected in [Code::Ok, Code::AlreadyExists] {
        let (code, echoed) = manager.create(vec![probe.clone()]).await.remove(0);
        assert_eq!(code, expected);
        let echoed = echoed.unwrap();
        ids.push(echoed.id.clone());
        let chosen = types::Entry {
            id: echoed.id.clone(),
            ..probe.clone()
        };
        assert_eq!(read(&echoed), chosen, "every field comes back");
        assert!(echoed.created_at > 0);
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(authorized(&mut agent).await, before, "no agent hears of it");
    assert_eq!(
        manager.delete(&[&ids[0]]).await,
        [(Code::Ok, ids[0].clone())]
    );
    assert_eq!(authorized(&mut agent).await, before);
    assert_eq!(manager.list().await, everything);
    server.stop().await;
}

#[tokio::test]
async fn ctl_05_a_pass_over_entries() {
    let server = TestServer::start().await;
    let manager = Manager { server: &server };
    // The first pass, in batches: more than a page.
    let wanted: Vec<_> = (0..230).map(|number| manager.of_pod(number)).collect();
    for batch in wanted.chunks(BATCH) {
        let results = manager.create(batch.to_vec()).await;
        for (sent, (code, stored)) in batch.iter().zip(results) {
            assert_eq!((code, read(&stored.unwrap())), (Code::Ok, sent.clone()));
        }
    }
    let mut listed: Vec<_> = manager.list().await.iter().map(read).collect();
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(
        listed, wanted,
        "each once, with the IDs that the manager chose"
    );

    // Another pass: delete, then create, then update.
    let gone = [wanted[0].id.as_str(), "prod.never"];
    let deleted = manager.delete(&gone).await;
    let codes: Vec<_> = deleted.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [Code::Ok, Code::NotFound]);
    let similar = types::Entry {
        id: String::new(),
        hint: "another".to_owned(),
        ..wanted[1].clone()
    };
    let same_id = types::Entry {
        id: wanted[2].id.clone(),
        ..manager.of_pod(1000)
    };
    let bad_id = types::Entry {
        id: "prod/1".to_owned(),
        ..manager.of_pod(1001)
    };
    let federates = types::Entry {
        federates_with: vec!["unknown.org".to_owned()],
        ..manager.of_pod(1002)
    };
    let sent = vec![similar, same_id, bad_id, federates, manager.of_pod(1003)];
    let results = manager.create(sent).await;
    let codes: Vec<_> = results.iter().map(|(code, _)| *code).collect();
    let expected = [
        Code::AlreadyExists,
        Code::AlreadyExists,
        Code::InvalidArgument,
        Code::InvalidArgument,
        Code::Ok,
    ];
    assert_eq!(codes, expected);
    let in_the_way = results[0].1.as_ref().map(read);
    assert_eq!(in_the_way, Some(wanted[1].clone()), "the stored one");

    // What an update leaves out is cleared.
    let bare = types::Entry {
        x509_svid_ttl: 0,
        dns_names: Vec::new(),
        hint: "new".to_owned(),
        ..wanted[3].clone()
    };
    let unknown = manager.of_pod(5000);
    let nameless = types::Entry {
        id: String::new(),
        ..bare.clone()
    };
    let results = manager.update(vec![bare.clone(), unknown, nameless]).await;
    assert_eq!(results[0].1.as_ref().map(read), Some(bare));
    let codes: Vec<_> = results.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes[..2], [Code::Ok, Code::NotFound]);
    assert!(
        matches!(codes[2], Code::InvalidArgument | Code::NotFound),
        "{codes:?}"
    );
    assert_eq!(manager.list().await.len(), 230);
    server.stop().await;
}

#[tokio::test]
async fn ctl_05_a_pass_over_federation() {
    let server = TestServer::start().await;
    let manager = Manager { server: &server };
    assert_eq!(manager.relations().await, []);
    let wanted = relation("partner.org", "https://partner.org/bundle");
    let request = BatchCreateFederationRelationshipRequest {
        federation_relationships: vec![
            wanted.clone(),
            relation("example.org", "https://example.org/"),
        ],
        output_mask: None,
    };
    let mut client = manager.trust_domains();
    let answer = client.batch_create_federation_relationship(request).await;
    let results = answer.unwrap().into_inner().results;
    let codes: Vec<_> = results.into_iter().map(|one| code(one.status)).collect();
    assert_eq!(codes, [Code::Ok, Code::InvalidArgument]);
    assert_eq!(manager.relations().await, [wanted]);

    let moved = relation("partner.org", "https://elsewhere.org/bundle");
    let request = BatchUpdateFederationRelationshipRequest {
        federation_relationships: vec![moved.clone()],
        ..BatchUpdateFederationRelationshipRequest::default()
    };
    let answer = client.batch_update_federation_relationship(request).await;
    let results = answer.unwrap().into_inner().results;
    assert_eq!(code(results[0].status.clone()), Code::Ok);
    assert_eq!(manager.relations().await, [moved]);

    let request = BatchDeleteFederationRelationshipRequest {
        trust_domains: vec!["partner.org".to_owned()],
    };
    let answer = client.batch_delete_federation_relationship(request).await;
    let results = answer.unwrap().into_inner().results;
    assert_eq!(code(results[0].status.clone()), Code::Ok);
    assert_eq!(manager.relations().await, []);
    server.stop().await;
}

/// Before it starts: the certificate of its webhook, and what vouches for it.
#[tokio::test]
async fn ctl_05_the_webhooks_certificate() {
    let server = TestServer::start().await;
    let answer = BundleClient::new(server.local())
        .get_bundle(GetBundleRequest::default())
        .await;
    let bundle = convert::bundle(&answer.unwrap().into_inner()).unwrap();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let id = server.id("/spire-controller-manager-webhook");
    let name = "spire-controller-manager-webhook-service.spire-system.svc".to_owned();
    let csr = key.csr(Some(&id), std::slice::from_ref(&name)).unwrap();
    let request = MintX509svidRequest {
        csr: csr.into(),
        ttl: 86_400,
    };
    let answer = SvidClient::new(server.local()).mint_x509svid(request).await;
    let answer = answer.unwrap().into_inner().svid.unwrap();
    let expires = answer.expires_at;
    assert_eq!(answer.id, Some((&id).into()));
    let svid = convert::x509_svid(&answer, key).unwrap();
    assert_eq!(svid.leaf().dns_names(), [name]);
    let left = svid
        .leaf()
        .not_after()
        .duration_since(std::time::UNIX_EPOCH);
    assert_eq!(
        left.unwrap(),
        Duration::from_secs(u64::try_from(expires).unwrap())
    );
    let now = svid.leaf().not_before() + Duration::from_secs(60);
    let bundles = identity::BundleSet::from_iter([std::sync::Arc::new(bundle)]);
    verify_x509_svid(svid.chain(), &bundles, now).unwrap();
    server.stop().await;
}
