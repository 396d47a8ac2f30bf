//! spire.api.server.agent.v1 over the wire.

use futures_util::future::join_all;
use identity::{KeyType, PrivateKey, X509Svid};
use proto::convert::{Reason, denied_reason};
use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::server::agent::v1::{
    AgentX509svidParams, AttestAgentRequest, BanAgentRequest, CountAgentsRequest,
    CreateJoinTokenRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest,
    PostStatusRequest, RenewAgentRequest, attest_agent_request, list_agents_request,
};
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{GetAuthorizedEntriesRequest, ListEntriesRequest};
use proto::spire::api::types;
use testkit::{TestServer, attest_with};
use tonic::transport::Channel;
use tonic::{Code, Status};

type Client = AgentClient<Channel>;

async fn token(client: &mut Client, value: &str) -> String {
    let request = CreateJoinTokenRequest {
        ttl: 60,
        token: value.to_owned(),
        agent_id: None,
    };
    client
        .create_join_token(request)
        .await
        .unwrap()
        .into_inner()
        .value
}

fn wire_id(svid: &X509Svid) -> Option<types::Spiffeid> {
    Some(svid.id().into())
}

async fn told(client: &mut Client, svid: &X509Svid) -> types::Agent {
    let request = GetAgentRequest {
        id: wire_id(svid),
        output_mask: None,
    };
    client.get_agent(request).await.unwrap().into_inner()
}

/// Renews an agent's SVID; the key is new.
async fn renew(channel: Channel) -> Result<X509Svid, Status> {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let csr = key.csr(None, &[]).unwrap().into();
    let request = RenewAgentRequest {
        params: Some(AgentX509svidParams { csr }),
    };
    let answer = AgentClient::new(channel)
        .renew_agent(request)
        .await?
        .into_inner();
    let chain = answer.svid.unwrap().cert_chain;
    let chain = chain
        .iter()
        .map(|der| identity::Certificate::from_der(der).unwrap());
    Ok(X509Svid::new(chain.collect(), key).unwrap())
}

#[tokio::test]
async fn a_token_admits_one_agent_and_names_it() {
    let server = TestServer::start().await;
    let mut operator = AgentClient::new(server.local());
    let value = token(&mut operator, "").await;
    let svid = attest_with(server.remote(None).await, &value)
        .await
        .unwrap();
    assert_eq!(svid.id().path(), format!("/spire/agent/join_token/{value}"));
    let agent = told(&mut operator, &svid).await;
    assert_eq!(agent.attestation_type, "join_token");
    assert_eq!(agent.x509svid_serial_number, svid.leaf().serial_decimal());
    assert!(!agent.banned && !agent.can_reattest);
    let again = attest_with(server.remote(None).await, &value)
        .await
        .unwrap_err();
    assert_eq!(again.code(), Code::InvalidArgument);
    assert_eq!(
        again.message(),
        "failed to attest: join token does not exist or has already been used"
    );
}

#[tokio::test]
async fn s_20_of_200_parallel_attestations_with_one_token_one_succeeds() {
    let server = TestServer::start().await;
    let value = token(&mut AgentClient::new(server.local()), "shared").await;
    let channel = server.remote(None).await;
    let attestations = (0..200).map(|_| attest_with(channel.clone(), &value));
    let outcomes = join_all(attestations).await;
    let admitted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(admitted, 1);
    let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert!(
        refused
            .map(Status::code)
            .all(|code| code == Code::InvalidArgument)
    );
}

#[tokio::test]
async fn tokens_are_checked_where_they_are_made() {
    let server = TestServer::start().await;
    let mut operator = AgentClient::new(server.local());
    let mut refused = async |ttl, token: &str| {
        let request = CreateJoinTokenRequest {
            ttl,
            token: token.to_owned(),
            agent_id: None,
        };
        operator
            .create_join_token(request)
            .await
            .map(drop)
            .map_err(|status| status.code())
    };
    assert_eq!(refused(0, "a").await, Err(Code::InvalidArgument));
    assert_eq!(refused(-1, "a").await, Err(Code::InvalidArgument));
    for token in ["a/b", "..", "a b", "\u{e4}"] {
        assert_eq!(
            refused(60, token).await,
            Err(Code::InvalidArgument),
            "{token}"
        );
    }
    assert_eq!(refused(60, "a").await, Ok(()));
    assert_eq!(refused(60, "a").await, Err(Code::AlreadyExists));
}

#[tokio::test]
async fn a_token_with_a_name_makes_an_alias_that_goes_with_its_agent() {
    let server = TestServer::start().await;
    let mut operator = AgentClient::new(server.local());
    let request = CreateJoinTokenRequest {
        ttl: 60,
        token: "named".to_owned(),
        agent_id: Some((&server.id("/node-1")).into()),
    };
    operator.create_join_token(request).await.unwrap();
    let svid = attest_with(server.remote(None).await, "named")
        .await
        .unwrap();
    let mut agent = EntryClient::new(server.remote(Some(svid.clone())).await);
    let entries = agent
        .get_authorized_entries(GetAuthorizedEntriesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .entries;
    let [alias] = &entries[..] else {
        panic!("one entry: {entries:?}")
    };
    assert_eq!(alias.spiffe_id.as_ref().unwrap().path, "/node-1");
    assert_eq!(alias.selectors[0].value, svid.id().as_str());
    operator
        .delete_agent(DeleteAgentRequest { id: wire_id(&svid) })
        .await
        .unwrap();
    let left = EntryClient::new(server.local())
        .list_entries(ListEntriesRequest::default())
        .await
        .unwrap();
    assert_eq!(left.into_inner().entries, []);
}

#[tokio::test]
async fn s_3_a_renewal_that_is_lost_locks_nobody_out() {
    let server = TestServer::start().await;
    let first = server.attest().await;
    let channel = server.remote(Some(first.clone())).await;
    // The answer never arrived; the agent goes on with what it has, and asks again.
    renew(channel.clone()).await.unwrap();
    let second = renew(channel.clone()).await.unwrap();
    AgentClient::new(channel.clone())
        .post_status(PostStatusRequest::default())
        .await
        .unwrap();
    // The new one is used: from now on it alone is good.
    let new_channel = server.remote(Some(second.clone())).await;
    AgentClient::new(new_channel)
        .post_status(PostStatusRequest::default())
        .await
        .unwrap();
    let status = AgentClient::new(channel)
        .post_status(PostStatusRequest::default())
        .await
        .unwrap_err();
    assert_eq!(denied_reason(&status), Some(Reason::AgentNotActive));
    let mut operator = AgentClient::new(server.local());
    assert_eq!(
        told(&mut operator, &second).await.x509svid_serial_number,
        second.leaf().serial_decimal()
    );
}

#[tokio::test]
async fn i_11_ban_and_eviction_hold_at_once() {
    let server = TestServer::start().await;
    let mut operator = AgentClient::new(server.local());
    let (banned, evicted) = (server.attest().await, server.attest().await);
    let channels = (
        server.remote(Some(banned.clone())).await,
        server.remote(Some(evicted.clone())).await,
    );
    for channel in [&channels.0, &channels.1] {
        AgentClient::new(channel.clone())
            .post_status(PostStatusRequest::default())
            .await
            .unwrap();
    }
    operator
        .ban_agent(BanAgentRequest {
            id: wire_id(&banned),
        })
        .await
        .unwrap();
    operator
        .delete_agent(DeleteAgentRequest {
            id: wire_id(&evicted),
        })
        .await
        .unwrap();
    let status = AgentClient::new(channels.0)
        .post_status(PostStatusRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        denied_reason(&status),
        Some(Reason::AgentBanned),
        "{status}"
    );
    let status = renew(channels.1).await.unwrap_err();
    assert_eq!(
        denied_reason(&status),
        Some(Reason::AgentNotAttested),
        "{status}"
    );
    let agent = told(&mut operator, &banned).await;
    assert!(agent.banned && agent.x509svid_serial_number.is_empty());
    let gone = operator
        .delete_agent(DeleteAgentRequest {
            id: wire_id(&evicted),
        })
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn the_list_of_agents_filters_and_masks() {
    let server = TestServer::start().await;
    let mut operator = AgentClient::new(server.local());
    let svid = server.attest().await;
    server.attest().await;
    operator
        .ban_agent(BanAgentRequest { id: wire_id(&svid) })
        .await
        .unwrap();
    let mut listed = async |filter: list_agents_request::Filter| {
        let request = ListAgentsRequest {
            filter: Some(filter),
            output_mask: Some(types::AgentMask {
                banned: true,
                ..types::AgentMask::default()
            }),
            ..ListAgentsRequest::default()
        };
        operator
            .list_agents(request)
            .await
            .map(|answer| answer.into_inner().agents)
    };
    let all = list_agents_request::Filter::default;
    assert_eq!(listed(all()).await.unwrap().len(), 2);
    let banned = listed(list_agents_request::Filter {
        by_banned: Some(true),
        ..all()
    })
    .await
    .unwrap();
    let expected = types::Agent {
        id: wire_id(&svid),
        banned: true,
        ..types::Agent::default()
    };
    assert_eq!(banned, [expected]);
    let before = |text: &str| list_agents_request::Filter {
        by_expires_before: text.to_owned(),
        ..all()
    };
    assert_eq!(
        listed(before("2020-01-01 00:00:00 +0000 +00"))
            .await
            .unwrap(),
        []
    );
    assert_eq!(
        listed(before("2999-01-01 00:00:00 +0000 +00"))
            .await
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        listed(before("soon")).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let count = operator
        .count_agents(CountAgentsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .count;
    assert_eq!(count, 2);
    for path in ["/spire/server", "/web", ""] {
        let id = Some(types::Spiffeid {
            trust_domain: "example.org".to_owned(),
            path: path.to_owned(),
        });
        let status = operator
            .ban_agent(BanAgentRequest { id })
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status}");
    }
}

#[tokio::test]
async fn a_malformed_attestation_burns_no_token() {
    let server = TestServer::start().await;
    let value = token(&mut AgentClient::new(server.local()), "kept").await;
    let mut client = AgentClient::new(server.remote(None).await);
    let data = |kind: &str, payload: &str| {
        Some(types::AttestationData {
            r#type: kind.to_owned(),
            payload: payload.to_owned().into(),
        })
    };
    let csr = |csr: &'static [u8]| Some(AgentX509svidParams { csr: csr.into() });
    let good = PrivateKey::generate(KeyType::EcP256)
        .unwrap()
        .csr(None, &[])
        .unwrap();
    let good: &'static [u8] = good.leak();
    let cases = [
        (
            data("join_token", &value),
            csr(b"nonsense"),
            Code::InvalidArgument,
        ),
        (data("join_token", &value), csr(b""), Code::InvalidArgument),
        (data("join_token", &value), None, Code::InvalidArgument),
        (data("join_token", ""), csr(good), Code::InvalidArgument),
        (data("", &value), csr(good), Code::InvalidArgument),
        (None, csr(good), Code::InvalidArgument),
        (
            data("nonsense", &value),
            csr(good),
            Code::FailedPrecondition,
        ),
        (
            data("join_token", "a/../b"),
            csr(good),
            Code::InvalidArgument,
        ),
    ];
    for (data, params, expected) in cases {
        let case = format!("{data:?} {params:?}");
        let params = attest_agent_request::Params { data, params };
        let request = AttestAgentRequest {
            step: Some(attest_agent_request::Step::Params(params)),
        };
        let answers = client.attest_agent(tokio_stream::once(request)).await;
        let status = match answers {
            Ok(mut answers) => answers.get_mut().message().await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(status.code(), expected, "{case}: {status}");
    }
    attest_with(server.remote(None).await, &value)
        .await
        .unwrap();
}
