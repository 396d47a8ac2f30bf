//! Every RPC × every kind of caller.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use identity::{SpiffeId, X509Svid};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::server::agent::v1::{BanAgentRequest, DeleteAgentRequest};
use proto::spire::api::server::entry::v1::BatchCreateEntryRequest;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::types::{self, Spiffeid};
use testkit::{TestServer, raw};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Who may call what, as SPIRE's documentation has it, written anew for this test: `*` anyone, `l` local, `a` admin,
/// `n` agent (node), `d` downstream.
const WHO: &str = "
    agent.v1.Agent/AttestAgent *
    agent.v1.Agent/BanAgent la
    agent.v1.Agent/CountAgents la
    agent.v1.Agent/CreateJoinToken la
    agent.v1.Agent/DeleteAgent la
    agent.v1.Agent/GetAgent la
    agent.v1.Agent/ListAgents la
    agent.v1.Agent/PostStatus n
    agent.v1.Agent/RenewAgent n
    bundle.v1.Bundle/AppendBundle la
    bundle.v1.Bundle/BatchCreateFederatedBundle la
    bundle.v1.Bundle/BatchDeleteFederatedBundle la
    bundle.v1.Bundle/BatchSetFederatedBundle la
    bundle.v1.Bundle/BatchUpdateFederatedBundle la
    bundle.v1.Bundle/CountBundles la
    bundle.v1.Bundle/GetBundle *
    bundle.v1.Bundle/GetFederatedBundle lan
    bundle.v1.Bundle/ListFederatedBundles la
    bundle.v1.Bundle/PublishJWTAuthority d
    bundle.v1.Bundle/PublishWITAuthority d
    debug.v1.Debug/GetInfo l
    entry.v1.Entry/BatchCreateEntry la
    entry.v1.Entry/BatchDeleteEntry la
    entry.v1.Entry/BatchUpdateEntry la
    entry.v1.Entry/CountEntries la
    entry.v1.Entry/GetAuthorizedEntries n
    entry.v1.Entry/GetEntry la
    entry.v1.Entry/ListEntries la
    entry.v1.Entry/SyncAuthorizedEntries n
    localauthority.v1.LocalAuthority/ActivateJWTAuthority la
    localauthority.v1.LocalAuthority/ActivateWITAuthority la
    localauthority.v1.LocalAuthority/ActivateX509Authority la
    localauthority.v1.LocalAuthority/GetJWTAuthorityState la
    localauthority.v1.LocalAuthority/GetWITAuthorityState la
    localauthority.v1.LocalAuthority/GetX509AuthorityState la
    localauthority.v1.LocalAuthority/PrepareJWTAuthority la
    localauthority.v1.LocalAuthority/PrepareWITAuthority la
    localauthority.v1.LocalAuthority/PrepareX509Authority la
    localauthority.v1.LocalAuthority/RevokeJWTAuthority la
    localauthority.v1.LocalAuthority/RevokeWITAuthority la
    localauthority.v1.LocalAuthority/RevokeX509Authority la
    localauthority.v1.LocalAuthority/RevokeX509UpstreamAuthority la
    localauthority.v1.LocalAuthority/TaintJWTAuthority la
    localauthority.v1.LocalAuthority/TaintWITAuthority la
    localauthority.v1.LocalAuthority/TaintX509Authority la
    localauthority.v1.LocalAuthority/TaintX509UpstreamAuthority la
    logger.v1.Logger/GetLogger l
    logger.v1.Logger/ResetLogLevel l
    logger.v1.Logger/SetLogLevel l
    svid.v1.SVID/BatchNewWITSVID n
    svid.v1.SVID/BatchNewX509SVID n
    svid.v1.SVID/MintJWTSVID la
    svid.v1.SVID/MintWITSVID la
    svid.v1.SVID/MintX509SVID la
    svid.v1.SVID/NewDownstreamX509CA d
    svid.v1.SVID/NewJWTSVID n
    trustdomain.v1.TrustDomain/BatchCreateFederationRelationship la
    trustdomain.v1.TrustDomain/BatchDeleteFederationRelationship la
    trustdomain.v1.TrustDomain/BatchUpdateFederationRelationship la
    trustdomain.v1.TrustDomain/GetFederationRelationship la
    trustdomain.v1.TrustDomain/ListFederationRelationships la
    trustdomain.v1.TrustDomain/RefreshBundle la
";

/// S-21, AS-23: no RPC without a rule, no caller admitted beyond it.
#[tokio::test(flavor = "multi_thread")]
async fn s_21_every_rpc_for_every_kind_of_caller() {
    let rules = rules();
    let server = TestServer::start_with(|config| {
        config.admin_ids = vec!["spiffe://example.org/fixed-admin".parse().unwrap()];
    })
    .await;
    let callers = callers(&server).await;
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for rpc in rpcs() {
        let Some(rule) = rules.get(rpc.as_str()) else {
            wrong.push(format!("{rpc}: no rule"));
            continue;
        };
        for (name, letter, channel) in &callers {
            let path = format!("/spire.api.server.{rpc}");
            let answer = raw::call(channel, &path, Bytes::new()).await;
            let expected = rule.contains('*') || rule.contains(*letter);
            if admitted(&answer, &path) != expected {
                wrong.push(format!("{rpc} by {name}: {answer:?}"));
            }
        }
        seen.insert(rpc);
    }
    assert_eq!(wrong, Vec::<String>::new());
    let ruled: BTreeSet<String> = rules.keys().map(ToString::to_string).collect();
    assert_eq!(seen, ruled, "every rule is about an RPC");
    server.stop().await;
}

/// Health is for this machine alone.
#[tokio::test(flavor = "multi_thread")]
async fn health_is_local() {
    let server = TestServer::start().await;
    let check = "/grpc.health.v1.Health/Check";
    let answer = raw::call(&server.local(), check, Bytes::new())
        .await
        .unwrap();
    assert_eq!(&answer[..], [8, 1], "SERVING");
    for svid in [None, Some(server.attest().await)] {
        let channel = server.remote(svid).await;
        let status = raw::call(&channel, check, Bytes::new()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    server.stop().await;
}

/// AS-23: what the table does not name reaches no service.
#[tokio::test(flavor = "multi_thread")]
async fn as_23_unknown_methods_are_refused() {
    let server = TestServer::start().await;
    for path in [
        "/spire.api.server.agent.v1.Agent/Become",
        "/spire.api.server.agent.v1.agent/ListAgents",
        "/spire.api.server.agent.v2.Agent/ListAgents",
        "/spire.api.server.agent.v1.Agent/ListAgents/",
        "//spire.api.server.agent.v1.Agent/ListAgents",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/ListAgents",
        "/",
    ] {
        let answer = raw::call(&server.local(), path, Bytes::new()).await;
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
    }
    server.stop().await;
}

/// Agents act on the reason, so each is told.
#[tokio::test(flavor = "multi_thread")]
async fn denied_agents_hear_why() {
    let server = TestServer::start().await;
    let reasons = [
        (banned(&server).await, 4),
        (evicted(&server).await, 2),
        (server.mint(&server.id("/workload")).await, 2),
    ];
    let path = "/spire.api.server.agent.v1.Agent/PostStatus";
    for (svid, reason) in reasons {
        let channel = server.remote(Some(svid)).await;
        let status = raw::call(&channel, path, Bytes::new()).await.unwrap_err();
        assert_eq!(
            status.message(),
            format!("authorization denied for method {path}")
        );
        let told = proto::convert::denied_reason(&status).map(|reason| reason as i32);
        assert_eq!(told, Some(reason), "{status:?}");
    }
    server.stop().await;
}

/// A ban holds on connections that are open already.
#[tokio::test(flavor = "multi_thread")]
async fn a_ban_holds_at_once() {
    let server = TestServer::start().await;
    let svid = server.attest().await;
    let id = svid.id().clone();
    let channel = server.remote(Some(svid)).await;
    let path = "/spire.api.server.agent.v1.Agent/PostStatus";
    raw::call(&channel, path, Bytes::new()).await.unwrap();
    ban(&server, &id).await;
    let status = raw::call(&channel, path, Bytes::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    server.stop().await;
}

fn rules() -> BTreeMap<&'static str, &'static str> {
    let lines = WHO.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| line.trim().split_once(' ').unwrap())
        .collect()
}

/// All RPCs of the server APIs, as in `agent.v1.Agent/ListAgents`.
fn rpcs() -> Vec<String> {
    let files = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap().file;
    let mut rpcs = Vec::new();
    for file in &files {
        let Some(package) = file.package().strip_prefix("spire.api.server.") else {
            continue;
        };
        for service in &file.service {
            for method in &service.method {
                rpcs.push(format!("{package}.{}/{}", service.name(), method.name()));
            }
        }
    }
    assert!(rpcs.len() > 50, "{rpcs:?}");
    rpcs
}

/// Each kind of caller: a name, the letter of its rule (`-` for none), a channel.
async fn callers(server: &TestServer) -> Vec<(&'static str, char, Channel)> {
    let mut callers = vec![("a local process", 'l', server.local())];
    let admin = server.id("/admin");
    let downstream = server.id("/downstream");
    create_entry(server, &admin, |entry| entry.admin = true).await;
    create_entry(server, &downstream, |entry| entry.downstream = true).await;
    let workload = server.id("/workload");
    create_entry(server, &workload, |_| {}).await;
    for (name, letter, svid) in [
        ("a client without certificate", '-', None),
        ("an admin by entry", 'a', Some(server.mint(&admin).await)),
        (
            "an admin by configuration",
            'a',
            Some(server.mint(&server.id("/fixed-admin")).await),
        ),
        (
            "a downstream server",
            'd',
            Some(server.mint(&downstream).await),
        ),
        ("an agent", 'n', Some(server.attest().await)),
        ("a workload", '-', Some(server.mint(&workload).await)),
        (
            "an identity without entry",
            '-',
            Some(server.mint(&server.id("/nobody")).await),
        ),
        ("a banned agent", '-', Some(banned(server).await)),
        ("an evicted agent", '-', Some(evicted(server).await)),
        (
            "a stranger named like the admin",
            '-',
            Some(stranger(&admin)),
        ),
    ] {
        callers.push((name, letter, server.remote(svid).await));
    }
    callers
}

fn admitted(answer: &Result<Bytes, Status>, path: &str) -> bool {
    let denial = format!("authorization denied for method {path}");
    !matches!(answer, Err(status) if status.code() == Code::PermissionDenied && status.message() == denial)
}

async fn create_entry(server: &TestServer, id: &SpiffeId, change: impl FnOnce(&mut types::Entry)) {
    let mut entry = types::Entry {
        spiffe_id: Some(Spiffeid::from(id)),
        parent_id: Some(Spiffeid::from(&server.id("/spire/agent/x"))),
        selectors: vec![types::Selector {
            r#type: "unix".into(),
            value: "uid:1000".into(),
        }],
        ..types::Entry::default()
    };
    change(&mut entry);
    let request = BatchCreateEntryRequest {
        entries: vec![entry],
        output_mask: None,
    };
    let answer = EntryClient::new(server.local())
        .batch_create_entry(request)
        .await;
    let results = answer.unwrap().into_inner().results;
    assert_eq!(results[0].status.as_ref().unwrap().code, 0, "{results:?}");
}

async fn ban(server: &TestServer, id: &SpiffeId) {
    let id = Some(Spiffeid::from(id));
    let mut client = AgentClient::new(server.local());
    client.ban_agent(BanAgentRequest { id }).await.unwrap();
}

async fn banned(server: &TestServer) -> X509Svid {
    let svid = server.attest().await;
    ban(server, svid.id()).await;
    svid
}

async fn evicted(server: &TestServer) -> X509Svid {
    let svid = server.attest().await;
    let id = Some(Spiffeid::from(svid.id()));
    let mut client = AgentClient::new(server.local());
    client
        .delete_agent(DeleteAgentRequest { id })
        .await
        .unwrap();
    svid
}

/// The same name under another authority.
fn stranger(id: &SpiffeId) -> X509Svid {
    let now = runtime::Clock::system().now();
    testkit::forge(id, now)
}
