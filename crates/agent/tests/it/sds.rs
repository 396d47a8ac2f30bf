//! Secret discovery over the socket, with the client made from Envoy's own messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use prost::Message as _;
use proto::envoy::{
    Any,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    secret::secret_discovery_service_client::SecretDiscoveryServiceClient,
    tls::{Secret, secret::Type},
};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::socket::{Agent, domain};

const WEB: &str = "spiffe://example.org/web";
const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

fn ask(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|&name| name.to_owned()).collect(),
        type_url: TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

async fn client(agent: &Agent) -> SecretDiscoveryServiceClient<Channel> {
    SecretDiscoveryServiceClient::new(agent.channel().await)
}

type Open = (Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>);

async fn stream(agent: &Agent) -> Open {
    open(client(agent).await).await
}

/// One more stream on the client's connection.
async fn open(mut client: SecretDiscoveryServiceClient<Channel>) -> Open {
    let (requests, receiver) = channel(8);
    let responses = client.stream_secrets(ReceiverStream::new(receiver)).await;
    (requests, responses.unwrap().into_inner())
}

/// One more stream, which has had its first response.
async fn served(client: SecretDiscoveryServiceClient<Channel>) -> Open {
    let (requests, mut responses) = open(client).await;
    requests.send(ask(&[WEB])).await.unwrap();
    responses.message().await.unwrap().unwrap();
    (requests, responses)
}

async fn delta(
    agent: &Agent,
) -> (
    Sender<DeltaDiscoveryRequest>,
    Streaming<DeltaDiscoveryResponse>,
) {
    let (requests, receiver) = channel(8);
    let responses = client(agent)
        .await
        .delta_secrets(ReceiverStream::new(receiver))
        .await;
    (requests, responses.unwrap().into_inner())
}

fn secret(any: &Any) -> Secret {
    assert_eq!(any.type_url, TYPE_URL);
    Secret::decode(&*any.value).unwrap()
}

fn figure(agent: &Agent, name: &str) -> String {
    let figures = agent.metrics.render();
    let line = figures.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next())
        .unwrap_or("none")
        .to_owned()
}

#[tokio::test]
async fn s_5_01_state_of_the_world() {
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let (requests, mut responses) = stream(&agent).await;
    requests.send(ask(&[WEB])).await.unwrap();
    let first = responses.message().await.unwrap().unwrap();
    let sent = secret(&first.resources[0]);
    assert_eq!(sent.name, WEB);
    assert!(matches!(sent.r#type, Some(Type::TlsCertificate(_))));
    let ack = DiscoveryRequest {
        version_info: first.version_info.clone(),
        response_nonce: first.nonce.clone(),
        ..ask(&[WEB])
    };
    requests.send(ack).await.unwrap();
    assert_eq!(figure(&agent, "spire_agent_sds_api_connections{"), "1");
    agent.feed(domain.view([domain.identity("/web", 1, "")]));
    let second = responses.message().await.unwrap().unwrap();
    assert_ne!(
        (&first.version_info, &first.nonce),
        (&second.version_info, &second.nonce)
    );
    // The client's last word ends the stream in peace.
    drop(requests);
    assert!(responses.message().await.unwrap().is_none());
    assert_eq!(figure(&agent, "spire_agent_sds_api_connections{"), "0");
    assert_eq!(figure(&agent, "spire_agent_sds_api_connection{"), "1");
    assert_eq!(
        figure(&agent, "spire_agent_rpc_sds_v3_stream_secrets{"),
        "1"
    );
}

#[tokio::test]
async fn s_5_01_incremental() {
    let domain = domain();
    let agent = Agent::start(domain.view([])).await;
    let (requests, mut responses) = delta(&agent).await;
    let request = DeltaDiscoveryRequest {
        resource_names_subscribe: vec![WEB.to_owned()],
        type_url: TYPE_URL.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    requests.send(request).await.unwrap();
    let first = responses.message().await.unwrap().unwrap();
    assert_eq!(first.removed_resources, [WEB]);
    agent.feed(domain.view([domain.identity("/web", 1, "")]));
    let second = responses.message().await.unwrap().unwrap();
    assert_eq!(second.resources[0].name, WEB);
    assert_eq!(
        secret(second.resources[0].resource.as_ref().unwrap()).name,
        WEB
    );
}

/// Envoy with ADS asks for everything on one stream: it gets its secrets, and no answer to anything else.
#[tokio::test]
async fn s_5_01_aggregated() {
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let mut client = AggregatedDiscoveryServiceClient::new(agent.channel().await);
    let (requests, receiver) = channel(8);
    let responses = client.stream_aggregated_resources(ReceiverStream::new(receiver));
    let mut responses = responses.await.unwrap().into_inner();
    let cluster = DiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..ask(&[])
    };
    requests.send(cluster).await.unwrap();
    requests.send(ask(&[WEB])).await.unwrap();
    let sent = responses.message().await.unwrap().unwrap();
    assert_eq!(sent.type_url, TYPE_URL);
    assert_eq!(secret(&sent.resources[0]).name, WEB);
    assert_eq!(figure(&agent, "spire_agent_sds_api_names{"), "1");

    let (requests, receiver) = channel(8);
    let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver));
    let mut responses = responses.await.unwrap().into_inner();
    for type_url in [
        "type.googleapis.com/envoy.config.listener.v3.Listener",
        TYPE_URL,
    ] {
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: vec![WEB.to_owned()],
            type_url: type_url.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(request).await.unwrap();
    }
    let sent = responses.message().await.unwrap().unwrap();
    assert_eq!(sent.resources[0].name, WEB);
}

/// The stream's own metadata choose the form of bundles, as `grpc_services[].initial_metadata` sets them.
#[tokio::test]
async fn s_5_22_metadata_of_a_stream() {
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let (requests, receiver) = channel(8);
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    let yes = "true".parse().unwrap();
    request
        .metadata_mut()
        .insert("disable_spiffe_cert_validation", yes);
    let responses = client(&agent).await.stream_secrets(request).await;
    let mut responses = responses.unwrap().into_inner();
    requests.send(ask(&["ROOTCA"])).await.unwrap();
    let sent = responses.message().await.unwrap().unwrap();
    let Some(Type::ValidationContext(context)) = secret(&sent.resources[0]).r#type else {
        panic!("a validation context");
    };
    assert!(context.trusted_ca.is_some() && context.custom_validator_config.is_none());
}

#[tokio::test]
async fn s_5_01_fetch() {
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let mut client = client(&agent).await;
    let response = client
        .fetch_secrets(ask(&["ROOTCA", WEB]))
        .await
        .unwrap()
        .into_inner();
    let names: Vec<_> = response
        .resources
        .iter()
        .map(|any| secret(any).name)
        .collect();
    assert_eq!(names, ["ROOTCA", WEB]);
    let refused = client
        .fetch_secrets(ask(&["spiffe://example.org/other"]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let unnamed = client.fetch_secrets(ask(&[])).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument);
    // What is on its way is waited for.
    let mut waiting = domain.view([]);
    waiting.pending.push(domain.entry("/web", 1, ""));
    agent.feed(waiting);
    let (fetched, ()) = tokio::join!(client.fetch_secrets(ask(&[WEB])), async {
        tokio::task::yield_now().await;
        agent.feed(domain.view([domain.identity("/web", 1, "")]));
    });
    assert_eq!(fetched.unwrap().into_inner().resources.len(), 1);
}

/// E7: each a clear error, and the agent goes on.
#[tokio::test]
async fn s_5_32_bad_requests_end_their_stream_alone() {
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let (good, mut served) = stream(&agent).await;
    good.send(ask(&[WEB])).await.unwrap();
    served.message().await.unwrap().unwrap();
    let many: Vec<String> = (0..10_000)
        .map(|number| format!("{WEB}/{number}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut cluster = ask(&[WEB]);
    cluster.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    let huge = ask(&[&"x".repeat(2 << 20)]);
    for (request, code, text) in [
        (
            cluster,
            Code::InvalidArgument,
            "envoy.config.cluster.v3.Cluster",
        ),
        (ask(&many), Code::ResourceExhausted, "at most 4096"),
        (huge, Code::OutOfRange, "at most 1048576"),
    ] {
        let (requests, mut responses) = stream(&agent).await;
        requests.send(request).await.unwrap();
        let status = responses.message().await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
    agent.feed(domain.view([domain.identity("/web", 1, "")]));
    assert!(served.message().await.unwrap().is_some());
}

#[tokio::test]
async fn s_5_45_streams_end_with_the_agent() {
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let (requests, mut responses) = stream(&agent).await;
    requests.send(ask(&[WEB])).await.unwrap();
    responses.message().await.unwrap().unwrap();
    agent.tasks.stop();
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

/// An Envoy has a stream for each secret, all on one connection.
#[tokio::test]
async fn s_5_44_one_connection_has_room_for_more_than_a_thousand_streams() {
    const STREAMS: usize = 1_500;
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let client = client(&agent).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(served(client.clone()).await);
    }
    let open = figure(&agent, "spire_agent_sds_api_connections{");
    assert_eq!(open, STREAMS.to_string());
    agent.feed(domain.view([domain.identity("/web", 1, "")]));
    for (_, responses) in &mut streams {
        assert_eq!(
            responses.message().await.unwrap().unwrap().resources.len(),
            1
        );
    }
}

/// All Envoys of a node come back at once, as after a restart of the agent: each stream is served, and each connection
/// attested once, or once more for each five seconds that all takes.
#[tokio::test]
async fn s_5_42_a_storm_of_two_thousand_streams() {
    const CONNECTIONS: usize = 40;
    const STREAMS: usize = 50;
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let began = tokio::time::Instant::now();
    let envoys = (0..CONNECTIONS).map(async |_| {
        let client = client(&agent).await;
        join_all((0..STREAMS).map(|_| served(client.clone()))).await
    });
    let envoys = join_all(envoys).await;
    let rounds = 1 + usize::try_from(began.elapsed().as_secs()).unwrap() / 5;
    assert_eq!(envoys.iter().flatten().count(), CONNECTIONS * STREAMS);
    let attested = figure(&agent, "spire_agent_workload_api_workload_attestation{");
    let attested: usize = attested.parse().unwrap();
    assert!(
        (CONNECTIONS..=CONNECTIONS * rounds).contains(&attested),
        "{attested} attestations in {rounds} rounds"
    );
}

/// An Envoy that goes away, or drops a listener, does nothing wrong.
#[tokio::test]
async fn s_5_48_a_client_that_cancels_is_no_error() {
    let complaints = Complaints::default();
    let _guard = tracing::subscriber::set_default(complaints.clone());
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let client = client(&agent).await;
    let (cancelled, kept) = (served(client.clone()).await, served(client.clone()).await);
    drop(cancelled);
    while figure(&agent, "spire_agent_sds_api_connections{") != "1" {
        tokio::task::yield_now().await;
    }
    drop((kept, client));
    while figure(&agent, "spire_agent_sds_api_connections{") != "0" {
        tokio::task::yield_now().await;
    }
    let figures = agent.metrics.render();
    let calls = figures
        .lines()
        .filter(|line| line.starts_with("spire_agent_rpc_sds_v3_stream_secrets{"));
    let calls: Vec<_> = calls.collect();
    assert!(
        matches!(&*calls, [call] if call.contains("status=\"Canceled\"") && call.ends_with(" 2")),
        "{calls:?}"
    );
    assert_eq!(complaints.0.load(Ordering::Relaxed), 0, "lines in the log");
}

/// Counts the warnings and errors of the log.
#[derive(Clone, Default)]
struct Complaints(Arc<AtomicUsize>);

impl Subscriber for Complaints {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
