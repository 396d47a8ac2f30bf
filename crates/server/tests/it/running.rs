//! A server that runs: what it tells of itself, and how it ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::server::agent::v1::{AttestAgentRequest, BanAgentRequest};
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{BatchCreateEntryRequest, SyncAuthorizedEntriesRequest};
use proto::spire::api::types::{self, EntryMask, Spiffeid};
use server::config::HealthListener;
use testkit::TestServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The body of a page over plain HTTP.
async fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// SPIRE's names; its dashboards ask for them.
#[tokio::test(flavor = "multi_thread")]
async fn figures_of_the_datastore_and_the_server_are_told() {
    let server =
        TestServer::start_with(|config| config.telemetry.prometheus = Some(ANY_PORT)).await;
    server.attest().await;
    let text = page(server.addresses().prometheus.unwrap(), "/metrics").await;
    for name in [
        "spire_server_datastore_join_token_create",
        "spire_server_datastore_join_token_delete_elapsed_time",
        "spire_server_datastore_node_create",
        "spire_server_datastore_ca_journal_set",
        "spire_server_datastore_bundle_append",
        "spire_server_uptime_in_ms",
        "spire_server_started",
        "spire_server_node_agents_by_id_cache_count",
        "spire_server_entry_entries_by_entryid_cache_count",
        "spire_server_registration_entry_manager_prune",
    ] {
        assert!(text.contains(&format!("\n{name}{{")), "{name} in {text}");
    }
    let agents = text
        .lines()
        .find(|line| line.starts_with("spire_server_node_agents_by_id_cache_count"));
    assert!(agents.unwrap().ends_with(" 1"), "{agents:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_datastore_is_part_of_the_health() {
    let server = TestServer::start_with(|config| {
        config.health = Some(HealthListener {
            address: ANY_PORT,
            live_path: "/live".to_owned(),
            ready_path: "/ready".to_owned(),
        });
    })
    .await;
    let ready = page(server.addresses().health.unwrap(), "/ready").await;
    assert!(ready.contains("\"catalog.datastore\":\"ready\""), "{ready}");
    server.stop().await;
}

/// Agents that say nothing more do not hold up the server's end.
#[tokio::test(flavor = "multi_thread")]
async fn open_streams_end_with_the_server() {
    let server = TestServer::start().await;
    let (_silent, requests) = mpsc::channel::<AttestAgentRequest>(1);
    let mut agents = AgentClient::new(server.remote(None).await);
    let attesting = agents.attest_agent(ReceiverStream::new(requests)).await;
    let mut attesting = attesting.unwrap().into_inner();

    let agent = server.remote(Some(server.attest().await)).await;
    let (_mute, requests) = mpsc::channel::<SyncAuthorizedEntriesRequest>(1);
    let mut entries = EntryClient::new(agent);
    let syncing = entries.sync_authorized_entries(ReceiverStream::new(requests));
    let mut syncing = syncing.await.unwrap().into_inner();

    let started = Instant::now();
    let ends = async {
        let status = attesting.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        let status = syncing.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    };
    tokio::join!(server.stop(), ends);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

/// A ban holds at once, also for a sync that is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_ban_ends_an_open_sync() {
    let server = TestServer::start().await;
    let svid = server.attest().await;
    let parent = Some(Spiffeid::from(svid.id()));
    let entry = |number: usize| types::Entry {
        id: format!("e-{number}"),
        spiffe_id: Some(Spiffeid::from(&server.id(&format!("/w/{number}")))),
        parent_id: parent.clone(),
        selectors: vec![types::Selector {
            r#type: "unix".into(),
            value: "uid:1".into(),
        }],
        ..types::Entry::default()
    };
    let request = BatchCreateEntryRequest {
        entries: (0..501).map(entry).collect(),
        output_mask: Some(EntryMask::default()),
    };
    let mut operator = EntryClient::new(server.local());
    operator.batch_create_entry(request).await.unwrap();

    let mut client = EntryClient::new(server.remote(Some(svid)).await);
    let (requests, sent) = mpsc::channel(1);
    let first = SyncAuthorizedEntriesRequest::default();
    requests.send(first).await.unwrap();
    let answers = client.sync_authorized_entries(ReceiverStream::new(sent));
    let mut answers = answers.await.unwrap().into_inner();
    for more in [true, false] {
        let page = answers.message().await.unwrap().unwrap();
        assert_eq!(page.more, more);
    }
    let request = BanAgentRequest { id: parent.clone() };
    AgentClient::new(server.local())
        .ban_agent(request)
        .await
        .unwrap();
    let ask = SyncAuthorizedEntriesRequest {
        output_mask: None,
        ids: vec!["e-7".to_owned()],
    };
    requests.send(ask).await.unwrap();
    let status = answers.message().await.unwrap_err();
    let reason = proto::convert::denied_reason(&status);
    assert_eq!(
        (status.code(), reason),
        (
            Code::PermissionDenied,
            Some(proto::convert::Reason::AgentBanned)
        ),
        "{status}"
    );
    server.stop().await;
}
