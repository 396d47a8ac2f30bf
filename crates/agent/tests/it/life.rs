//! An agent's life with a real server: attest, serve, rotate, restart, be banned.

use std::path::Path;
use std::time::Duration;

use identity::{Selector, Selectors};
use proto::envoy::discovery::DiscoveryRequest;
use proto::envoy::secret::secret_discovery_service_client::SecretDiscoveryServiceClient;
use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::server::agent::v1::{BanAgentRequest, ListAgentsRequest};
use proto::spire::api::types;
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use proto::workload::{JwtsvidRequest, X509svidRequest, X509svidResponse};
use tempfile::TempDir;
use testkit::{TestAgent, TestServer};
use tokio::time::timeout;
use tonic::{Request, Status, Streaming};

/// Longer than anything here takes; reaching it is a failure, not a measure.
const PATIENCE: Duration = Duration::from_secs(30);

fn me() -> Selectors {
    let uid = nix::unistd::getuid();
    let selector = Selector::new("unix", &format!("uid:{uid}")).unwrap();
    std::iter::once(selector).collect()
}

fn asking<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let header = "true".parse().unwrap();
    request.metadata_mut().insert("workload.spiffe.io", header);
    request
}

async fn watch(agent: &TestAgent) -> Streaming<X509svidResponse> {
    let mut client = SpiffeWorkloadApiClient::new(agent.channel());
    let request = asking(X509svidRequest {});
    let answer = timeout(PATIENCE, client.fetch_x509svid(request)).await;
    answer.expect("an answer must come").unwrap().into_inner()
}

/// The next message: each SPIFFE ID and its chain.
async fn next(stream: &mut Streaming<X509svidResponse>) -> Result<Vec<(String, Vec<u8>)>, Status> {
    let message = timeout(PATIENCE, stream.message()).await;
    let message = message
        .expect("a message must come")?
        .expect("the stream goes on");
    let mut svids: Vec<_> = message
        .svids
        .into_iter()
        .map(|svid| (svid.spiffe_id, svid.x509_svid.to_vec()))
        .collect();
    svids.sort();
    Ok(svids)
}

/// What a workload gets as soon as it gets anything.
async fn fetch(agent: &TestAgent) -> Vec<(String, Vec<u8>)> {
    loop {
        let mut stream = watch(agent).await;
        match next(&mut stream).await {
            Ok(svids) => return svids,
            Err(status) => assert_eq!(status.message(), "no identity issued"),
        }
        tokio::task::yield_now().await;
    }
}

fn ids(svids: &[(String, Vec<u8>)]) -> Vec<&str> {
    svids.iter().map(|(id, _)| id.as_str()).collect()
}

fn config_of(server: &TestServer, dir: &TempDir) -> agent::Config {
    TestAgent::config(server, dir, None)
}

fn is_there(dir: &TempDir, file: &str) -> bool {
    Path::new(dir.path()).join("data").join(file).exists()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_gets_its_svid_and_its_rotations() {
    let server = TestServer::start().await;
    server.entry(&server.id("/node"), "/web", &me(), 2).await;
    let agent = TestAgent::start(&server).await;
    let first = fetch(&agent).await;
    assert_eq!(ids(&first), ["spiffe://example.org/web"]);
    let mut stream = watch(&agent).await;
    let mut seen = vec![next(&mut stream).await.unwrap()];
    for _ in 0..2 {
        let new = next(&mut stream).await.unwrap();
        assert_eq!(ids(&new), ["spiffe://example.org/web"]);
        assert!(!seen.contains(&new), "a new SVID");
        seen.push(new);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_come_and_go_while_a_workload_watches() {
    let server = TestServer::start().await;
    let node = server.id("/node");
    server.entry(&node, "/web", &me(), 0).await;
    let agent = TestAgent::start(&server).await;
    fetch(&agent).await;
    let mut stream = watch(&agent).await;
    next(&mut stream).await.unwrap();
    let second = server.entry(&node, "/api", &me(), 0).await;
    let both = ["spiffe://example.org/api", "spiffe://example.org/web"];
    assert_eq!(ids(&next(&mut stream).await.unwrap()), both);
    server.delete_entry(&second).await;
    assert_eq!(ids(&next(&mut stream).await.unwrap()), both[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_svid_is_given_and_given_again_without_the_server() {
    let server = TestServer::start().await;
    server.entry(&server.id("/node"), "/web", &me(), 0).await;
    let agent = TestAgent::start(&server).await;
    fetch(&agent).await;
    let mut client = SpiffeWorkloadApiClient::new(agent.channel());
    let mut ask = async || {
        let request = asking(JwtsvidRequest {
            audience: vec!["db".to_owned()],
            spiffe_id: String::new(),
        });
        let answer = timeout(PATIENCE, client.fetch_jwtsvid(request)).await;
        let svids = answer.unwrap().unwrap().into_inner().svids;
        (svids[0].spiffe_id.clone(), svids[0].svid.clone())
    };
    let first = ask().await;
    assert_eq!(first.0, "spiffe://example.org/web");
    server.stop().await;
    assert_eq!(ask().await, first);
}

/// The tokens of `audience` that a workload gets: SPIFFE IDs, and the tokens themselves.
async fn tokens(agent: &TestAgent) -> Result<Vec<(String, String)>, Status> {
    let request = asking(JwtsvidRequest {
        audience: vec!["db".to_owned()],
        spiffe_id: String::new(),
    });
    let mut client = SpiffeWorkloadApiClient::new(agent.channel());
    let answer = timeout(PATIENCE, client.fetch_jwtsvid(request)).await;
    let svids = answer.expect("an answer must come")?.into_inner().svids;
    Ok(svids
        .into_iter()
        .map(|one| (one.spiffe_id, one.svid))
        .collect())
}

/// The entry is the same and so are its selectors; the token at hand is another identity's from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_renamed_gives_no_token_of_its_former_name() {
    let server = TestServer::start().await;
    let entry = server.entry(&server.id("/node"), "/web", &me(), 0).await;
    let agent = TestAgent::start(&server).await;
    fetch(&agent).await;
    let before = tokens(&agent).await.unwrap();
    assert_eq!(before[0].0, "spiffe://example.org/web");
    server.rename_entry(&entry, "/api").await;
    // The caller asks on while the agent hears of it: each answer is of one name, and none of the former after the new.
    let after = loop {
        match &*tokens(&agent).await.unwrap_or_default() {
            [] => tokio::task::yield_now().await,
            [(id, token)] if id == "spiffe://example.org/web" => assert_eq!(*token, before[0].1),
            [(id, token)] => break (id.clone(), token.clone()),
            more => panic!("{more:?}"),
        }
    };
    assert_eq!(after.0, "spiffe://example.org/api");
    assert_ne!(after.1, before[0].1);
    assert_eq!(tokens(&agent).await.unwrap(), [after]);
    assert_eq!(ids(&fetch(&agent).await), ["spiffe://example.org/api"]);
}

/// The version of the workload's first secret.
async fn version(agent: &TestAgent) -> String {
    let request = DiscoveryRequest {
        resource_names: vec!["default".to_owned(), "ROOTCA".to_owned()],
        ..DiscoveryRequest::default()
    };
    let mut client = SecretDiscoveryServiceClient::new(agent.channel());
    let answer = timeout(PATIENCE, client.fetch_secrets(request)).await;
    let answer = answer.expect("an answer must come").unwrap().into_inner();
    assert_eq!(answer.resources.len(), 2);
    answer.version_info
}

/// With the server away an agent goes on serving, over its own restart too, and its secrets have the versions they had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_5_46_s_5_47_secrets_and_their_versions_outlive_the_server_and_the_agent() {
    let server = TestServer::start().await;
    server.entry(&server.id("/node"), "/web", &me(), 0).await;
    let agent = TestAgent::start(&server).await;
    let svids = fetch(&agent).await;
    let before = version(&agent).await;
    let config = TestAgent::config_in(&server, agent.folder(), None);
    server.stop().await;
    assert_eq!(version(&agent).await, before);
    assert_eq!(fetch(&agent).await, svids);
    let dir = agent.stop().await;
    let again = TestAgent::start_with(config, dir).await.unwrap();
    assert_eq!(version(&again).await, before);
}

/// Two agents would each overwrite the other's keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_in_use_is_named() {
    let server = TestServer::start().await;
    let first = TestAgent::start(&server).await;
    ready(&first).await;
    let token = server.join_token("/node").await;
    let elsewhere = TempDir::new().unwrap();
    let mut config = TestAgent::config(&server, &elsewhere, Some(token));
    config.data_dir = first.folder().join("data");
    let error = TestAgent::start_with(config, elsewhere).await.unwrap_err();
    let text = error.to_string();
    let folder = first.folder().join("data");
    assert!(text.contains(&folder.display().to_string()), "{text}");
    assert!(text.contains("in use: another process has it"), "{text}");
    // The first one goes on, and lets go when it ends.
    let dir = first.stop().await;
    let config = config_of(&server, &dir);
    let again = TestAgent::start_with(config, dir).await.unwrap();
    ready(&again).await;
}

/// Waits until an agent is ready.
async fn ready(agent: &TestAgent) {
    while !agent.readiness().is_ready() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e4_a_new_agent_serves_the_same_svids_with_the_server_down() {
    let server = TestServer::start().await;
    server.entry(&server.id("/node"), "/web", &me(), 0).await;
    let agent = TestAgent::start(&server).await;
    let before = fetch(&agent).await;
    let dir = agent.stop().await;
    let config = config_of(&server, &dir);
    server.stop().await;

    let again = TestAgent::start_with(config.clone(), dir).await.unwrap();
    assert!(again.readiness().is_ready(), "the disk knew enough");
    let mut stream = watch(&again).await;
    assert_eq!(next(&mut stream).await.unwrap(), before);

    // A damaged copy is not used, and does not stop the agent.
    let dir = again.stop().await;
    let copy = dir.path().join("data").join(agent::disk::CACHE_FILE);
    let mut bytes = std::fs::read(&copy).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let third = TestAgent::start_with(config, dir).await.unwrap();
    assert!(!third.readiness().is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_keeps_its_own_svid_and_needs_no_token() {
    let server = TestServer::start().await;
    server.entry(&server.id("/node"), "/web", &me(), 0).await;
    let agent = TestAgent::start(&server).await;
    fetch(&agent).await;
    let dir = agent.stop().await;
    std::fs::remove_file(dir.path().join("data").join(agent::disk::CACHE_FILE)).unwrap();
    let config = config_of(&server, &dir);
    let again = TestAgent::start_with(config, dir).await.unwrap();
    assert_eq!(ids(&fetch(&again).await), ["spiffe://example.org/web"]);
    assert_eq!(agents(&server).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_agent_forgets_everything_and_ends() {
    let server = TestServer::start().await;
    server.entry(&server.id("/node"), "/web", &me(), 0).await;
    let agent = TestAgent::start(&server).await;
    fetch(&agent).await;
    let dir = agent.stop().await;
    let config = config_of(&server, &dir);
    let id = agents(&server).await.remove(0);
    let request = BanAgentRequest { id: Some(id) };
    AgentClient::new(server.local())
        .ban_agent(request)
        .await
        .unwrap();

    assert!(is_there(&dir, "svid-cache.key"));
    let again = TestAgent::start_with(config.clone(), dir).await.unwrap();
    let (dir, ended) = timeout(PATIENCE, again.ended()).await.unwrap();
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("banned"), "{error}");
    for file in ["svid-cache.key", "svid-cache.sealed"] {
        assert!(!is_there(&dir, file), "{file}");
    }
    let error = TestAgent::start_with(config, dir).await.unwrap_err();
    assert!(
        error.to_string().contains("no usable agent SVID"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_join_token_ends_the_agent_with_advice() {
    let server = TestServer::start().await;
    let token = server.join_token("/node").await;
    let start = async || {
        let dir = TempDir::new().unwrap();
        let config = TestAgent::config(&server, &dir, Some(token.clone()));
        TestAgent::start_with(config, dir).await.unwrap()
    };
    let first = start().await;
    while !first.readiness().is_ready() {
        tokio::task::yield_now().await;
    }
    let second = start().await;
    let (_, ended) = timeout(PATIENCE, second.ended()).await.unwrap();
    let text = ended.unwrap_err().to_string();
    assert!(text.contains("signet server token generate"), "{text}");
    assert!(!text.contains(&token), "tokens are never told");
}

#[tokio::test]
async fn without_a_token_and_without_an_svid_the_agent_does_not_start() {
    let server = TestServer::start().await;
    let dir = TempDir::new().unwrap();
    let config = TestAgent::config(&server, &dir, None);
    let error = TestAgent::start_with(config, dir).await.unwrap_err();
    assert!(error.to_string().contains("-joinToken"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_8_every_file_with_secrets_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let server = TestServer::start().await;
    server.entry(&server.id("/node"), "/web", &me(), 0).await;
    let agent = TestAgent::start(&server).await;
    fetch(&agent).await;
    let dir = agent.stop().await;
    let files = [
        "agent-data.json",
        "keys.json",
        "svid-cache.key",
        "svid-cache.sealed",
    ];
    for file in files {
        assert!(is_there(&dir, file), "{file}");
        let mode = std::fs::metadata(dir.path().join("data").join(file))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{file}");
    }
}

async fn agents(server: &TestServer) -> Vec<types::Spiffeid> {
    let request = ListAgentsRequest::default();
    let answer = AgentClient::new(server.local()).list_agents(request).await;
    let agents = answer.unwrap().into_inner().agents;
    agents.into_iter().filter_map(|agent| agent.id).collect()
}
