//! Uses everything a server has.

use std::time::Duration;

use bytes::Bytes;
use identity::{Selector, Selectors, X509Svid};
use prost::Message;
use proto::spire::api::server::agent::v1::{
    BanAgentRequest, CountAgentsRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest,
};
use proto::spire::api::server::bundle::v1::{
    BatchCreateFederatedBundleRequest, BatchDeleteFederatedBundleRequest,
    BatchSetFederatedBundleRequest, BatchUpdateFederatedBundleRequest, CountBundlesRequest,
    GetFederatedBundleRequest, ListFederatedBundlesRequest,
};
use proto::spire::api::server::entry::v1::{
    BatchUpdateEntryRequest, CountEntriesRequest, GetEntryRequest, ListEntriesRequest,
};
use proto::spire::api::server::svid::v1::MintJwtsvidRequest;
use proto::spire::api::server::trustdomain::v1::{
    BatchCreateFederationRelationshipRequest, BatchDeleteFederationRelationshipRequest,
    BatchUpdateFederationRelationshipRequest, GetFederationRelationshipRequest,
    ListFederationRelationshipsRequest,
};
use proto::spire::api::types;
use proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use server::config::{Config, KeyManager, PruneAgents};
use tempfile::TempDir;
use testkit::{TestServer, raw};
use tonic::transport::Channel;

use crate::settle;
use crate::shown::Shown;
use crate::table::Table;

const PREFIX: &str = "spire_server_";

/// A server that rotates what it can within a few seconds.
fn change(config: &mut Config) {
    config.telemetry.prometheus = Some(([127, 0, 0, 1], 0).into());
    config.key_manager = KeyManager::Disk {
        keys_path: config.data_dir.join("keys.json"),
    };
    config.prune_agents = Some(PruneAgents {
        expired_for: Duration::from_secs(60),
        non_reattestable: true,
        batch_size: 10,
    });
    config.ca.default_x509_svid_ttl = Duration::from_secs(4);
}

pub(crate) async fn use_all(shown: &mut Shown, table: &Table) {
    let server = TestServer::start_in(TempDir::new().unwrap(), change).await;
    let agent = server.attest().await;
    call_all(&server, &agent).await;
    entries(&server).await;
    agents(&server.local(), agent.id().into()).await;
    bundles(&server.local()).await;
    relationships(&server.local()).await;
    sign(&server).await;
    let address = server.addresses().prometheus.unwrap();
    shown.take(address, PREFIX).await;
    // A second run takes up the keys of the first.
    let server = TestServer::start_in(server.stop().await, change).await;
    let address = server.addresses().prometheus.unwrap();
    settle(shown, address, PREFIX, table).await;
}

/// Each RPC once with nothing to say, and those that are limited by the agent over TCP.
async fn call_all(server: &TestServer, agent: &X509Svid) {
    let files = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let local = server.local();
    for file in &files.file {
        let package = file.package();
        if !package.starts_with("spire.api.server.") {
            continue;
        }
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{package}.{}/{}", service.name(), method.name());
                let _ = raw::call(&local, &path, Bytes::new()).await;
            }
        }
    }
    let _ = raw::call(&local, "/grpc.health.v1.Health/Check", Bytes::new()).await;
    let remote = server.remote(Some(agent.clone())).await;
    for method in [
        "agent.v1.Agent/PostStatus",
        "agent.v1.Agent/RenewAgent",
        "svid.v1.SVID/BatchNewX509SVID",
        "svid.v1.SVID/NewJWTSVID",
    ] {
        let path = format!("/spire.api.server.{method}");
        let _ = raw::call(&remote, &path, Bytes::new()).await;
    }
}

async fn call(channel: &Channel, method: &str, request: &impl Message) {
    let path = format!("/spire.api.server.{method}");
    let answer = raw::call(channel, &path, request.encode_to_vec().into()).await;
    answer.unwrap_or_else(|status| panic!("{method}: {status}"));
}

async fn entries(server: &TestServer) {
    let selectors: Selectors = [Selector::parse("unix:uid:0").unwrap()]
        .into_iter()
        .collect();
    let id = server
        .entry(&server.id("/node"), "/web", &selectors, 0)
        .await;
    let local = server.local();
    let get = GetEntryRequest {
        id: id.to_string(),
        output_mask: None,
    };
    call(&local, "entry.v1.Entry/GetEntry", &get).await;
    let list = ListEntriesRequest::default();
    call(&local, "entry.v1.Entry/ListEntries", &list).await;
    let count = CountEntriesRequest::default();
    call(&local, "entry.v1.Entry/CountEntries", &count).await;
    let update = BatchUpdateEntryRequest {
        entries: vec![types::Entry {
            id: id.to_string(),
            hint: "web".into(),
            ..types::Entry::default()
        }],
        input_mask: Some(types::EntryMask {
            hint: true,
            ..types::EntryMask::default()
        }),
        output_mask: None,
    };
    call(&local, "entry.v1.Entry/BatchUpdateEntry", &update).await;
    server.delete_entry(&id).await;
}

async fn agents(local: &Channel, id: types::Spiffeid) {
    let get = GetAgentRequest {
        id: Some(id.clone()),
        output_mask: None,
    };
    call(local, "agent.v1.Agent/GetAgent", &get).await;
    let list = ListAgentsRequest::default();
    call(local, "agent.v1.Agent/ListAgents", &list).await;
    let count = CountAgentsRequest::default();
    call(local, "agent.v1.Agent/CountAgents", &count).await;
    let ban = BanAgentRequest {
        id: Some(id.clone()),
    };
    call(local, "agent.v1.Agent/BanAgent", &ban).await;
    let delete = DeleteAgentRequest { id: Some(id) };
    call(local, "agent.v1.Agent/DeleteAgent", &delete).await;
}

async fn bundles(local: &Channel) {
    let trust_domain = "other.org".to_owned();
    let bundle = vec![types::Bundle {
        trust_domain: trust_domain.clone(),
        refresh_hint: 60,
        ..types::Bundle::default()
    }];
    let create = BatchCreateFederatedBundleRequest {
        bundle: bundle.clone(),
        output_mask: None,
    };
    call(
        local,
        "bundle.v1.Bundle/BatchCreateFederatedBundle",
        &create,
    )
    .await;
    let update = BatchUpdateFederatedBundleRequest {
        bundle: bundle.clone(),
        ..BatchUpdateFederatedBundleRequest::default()
    };
    call(
        local,
        "bundle.v1.Bundle/BatchUpdateFederatedBundle",
        &update,
    )
    .await;
    let set = BatchSetFederatedBundleRequest {
        bundle,
        output_mask: None,
    };
    call(local, "bundle.v1.Bundle/BatchSetFederatedBundle", &set).await;
    let get = GetFederatedBundleRequest {
        trust_domain: trust_domain.clone(),
        output_mask: None,
    };
    call(local, "bundle.v1.Bundle/GetFederatedBundle", &get).await;
    let list = ListFederatedBundlesRequest::default();
    call(local, "bundle.v1.Bundle/ListFederatedBundles", &list).await;
    call(
        local,
        "bundle.v1.Bundle/CountBundles",
        &CountBundlesRequest {},
    )
    .await;
    let delete = BatchDeleteFederatedBundleRequest {
        trust_domains: vec![trust_domain],
        ..BatchDeleteFederatedBundleRequest::default()
    };
    call(
        local,
        "bundle.v1.Bundle/BatchDeleteFederatedBundle",
        &delete,
    )
    .await;
}

async fn relationships(local: &Channel) {
    let service = "trustdomain.v1.TrustDomain";
    let trust_domain = "other.org".to_owned();
    let relationships = vec![types::FederationRelationship {
        trust_domain: trust_domain.clone(),
        bundle_endpoint_url: "https://other.org/".into(),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})),
        trust_domain_bundle: None,
    }];
    let create = BatchCreateFederationRelationshipRequest {
        federation_relationships: relationships.clone(),
        output_mask: None,
    };
    call(
        local,
        &format!("{service}/BatchCreateFederationRelationship"),
        &create,
    )
    .await;
    let update = BatchUpdateFederationRelationshipRequest {
        federation_relationships: relationships,
        ..BatchUpdateFederationRelationshipRequest::default()
    };
    call(
        local,
        &format!("{service}/BatchUpdateFederationRelationship"),
        &update,
    )
    .await;
    let get = GetFederationRelationshipRequest {
        trust_domain: trust_domain.clone(),
        output_mask: None,
    };
    call(local, &format!("{service}/GetFederationRelationship"), &get).await;
    let list = ListFederationRelationshipsRequest::default();
    call(
        local,
        &format!("{service}/ListFederationRelationships"),
        &list,
    )
    .await;
    let delete = BatchDeleteFederationRelationshipRequest {
        trust_domains: vec![trust_domain],
    };
    call(
        local,
        &format!("{service}/BatchDeleteFederationRelationship"),
        &delete,
    )
    .await;
}

async fn sign(server: &TestServer) {
    let id = server.id("/web");
    server.mint(&id).await;
    let mint = MintJwtsvidRequest {
        id: Some((&id).into()),
        audience: vec!["db".into()],
        ttl: 60,
    };
    call(&server.local(), "svid.v1.SVID/MintJWTSVID", &mint).await;
}
