//! Uses everything an agent has.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use bytes::Bytes;
use identity::{EntryId, Selector, Selectors};
use proto::spire::api::server::entry::v1::BatchUpdateEntryRequest;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::types;
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest,
};
use tempfile::TempDir;
use testkit::{TestAgent, TestServer, raw};
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::settle;
use crate::shown::Shown;
use crate::table::Table;

pub(crate) async fn use_all(shown: &mut Shown, table: &Table) {
    let life = Duration::from_secs(6);
    let server = TestServer::start_with(|config| config.ca.agent_ttl = life).await;
    let dir = TempDir::new().unwrap();
    let token = server.join_token("/node").await;
    let mut config = TestAgent::config(&server, &dir, Some(token));
    config.telemetry.prometheus = Some(([127, 0, 0, 1], 0).into());
    let agent = TestAgent::start_with(config, dir).await.unwrap();
    let node = server.id("/node");
    // One SVID falls due every second; the other is replaced since its entry changes.
    server.entry(&node, "/short", &me(), 2).await;
    let long = server.entry(&node, "/long", &me(), 3600).await;
    workload_api(agent.channel()).await;
    sds(&agent.channel()).await;
    rename(&server, &long).await;
    settle(shown, agent.prometheus().unwrap(), "spire_agent_", table).await;
}

fn me() -> Selectors {
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    let selector = Selector::parse(&format!("unix:uid:{uid}")).unwrap();
    [selector].into_iter().collect()
}

fn asked<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let header = "true".parse().unwrap();
    request.metadata_mut().insert("workload.spiffe.io", header);
    request
}

async fn workload_api(channel: Channel) {
    let mut api = SpiffeWorkloadApiClient::new(channel);
    let mut svids = loop {
        // Before the first sync nobody is denied; before the entry is here, everybody.
        let stream = api.fetch_x509svid(asked(X509svidRequest {})).await;
        if let Ok(stream) = stream {
            let mut stream = stream.into_inner();
            if stream.message().await.is_ok() {
                break stream;
            }
        }
    };
    svids.message().await.unwrap();
    let bundles = api.fetch_x509_bundles(asked(X509BundlesRequest {})).await;
    bundles.unwrap().into_inner().message().await.unwrap();
    let bundles = api.fetch_jwt_bundles(asked(JwtBundlesRequest {})).await;
    bundles.unwrap().into_inner().message().await.unwrap();
    let wanted = JwtsvidRequest {
        audience: vec!["db".into()],
        spiffe_id: String::new(),
    };
    let tokens = api.fetch_jwtsvid(asked(wanted)).await.unwrap();
    let validated = ValidateJwtsvidRequest {
        audience: "db".into(),
        svid: tokens.into_inner().svids[0].svid.clone(),
    };
    api.validate_jwtsvid(asked(validated)).await.unwrap();
}

async fn sds(channel: &Channel) {
    let secrets = "envoy.service.secret.v3.SecretDiscoveryService";
    let all = "envoy.service.discovery.v3.AggregatedDiscoveryService";
    for path in [
        "/grpc.health.v1.Health/Check".to_owned(),
        format!("/{secrets}/StreamSecrets"),
        format!("/{secrets}/DeltaSecrets"),
        format!("/{secrets}/FetchSecrets"),
        format!("/{all}/StreamAggregatedResources"),
        format!("/{all}/DeltaAggregatedResources"),
    ] {
        // Whatever comes of a question without names, or nothing: the call is counted.
        let call = raw::call(channel, &path, Bytes::new());
        let _ = timeout(Duration::from_secs(1), call).await;
    }
}

/// Gives the entry a DNS name.
async fn rename(server: &TestServer, id: &EntryId) {
    let update = BatchUpdateEntryRequest {
        entries: vec![types::Entry {
            id: id.to_string(),
            dns_names: vec!["long.example.org".into()],
            ..types::Entry::default()
        }],
        input_mask: Some(types::EntryMask {
            dns_names: true,
            ..types::EntryMask::default()
        }),
        output_mask: None,
    };
    let updated = EntryClient::new(server.local())
        .batch_update_entry(update)
        .await;
    let status = updated.unwrap().into_inner().results[0].status.clone();
    assert_eq!(status.unwrap().code, 0);
}
