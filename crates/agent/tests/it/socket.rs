//! The public socket, as stock clients see it.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::sync::Arc;

use agent::config::{SdsConfig, UnixAttestorConfig, WorkloadApiConfig, WorkloadAttestors};
use agent::endpoints::uds::{PublicSocket, Services};
use agent::workload::Attestors;
use agent::workloads::{WorkloadView, Workloads};
use hyper_util::rt::TokioIo;
use identity::Selectors;
use proto::workload::X509svidRequest;
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use runtime::{Clock, Metrics, Peer, Readiness, Supervisor, Tasks};
use spiffe::{TrustDomain, WorkloadApiClient, X509Source};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::domain::Domain;

pub(crate) struct Agent {
    folder: TempDir,
    workloads: Workloads,
    me: Selectors,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
    readiness: Readiness,
    _supervisor: Supervisor,
}

impl Agent {
    pub(crate) async fn start(view: WorkloadView) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (supervisor, tasks) = Supervisor::new();
        let readiness = Readiness::new();
        let workloads = Workloads::fixed(Arc::new(view));
        let attestors = || {
            let unix = UnixAttestorConfig {
                discover_workload_path: false,
                workload_size_limit: None,
            };
            Attestors::new(&WorkloadAttestors {
                unix: Some(unix),
                k8s: None,
            })
        };
        let (here, _there) = UnixStream::pair().unwrap();
        let me = attestors().attest(&Peer::of(&here).unwrap()).await.unwrap();
        let metrics = Metrics::new("spire_agent");
        let services = Services {
            workloads: workloads.clone(),
            attestors: attestors(),
            workload_api: WorkloadApiConfig::default(),
            sds: SdsConfig::default(),
            clock: Clock::system(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
        };
        let socket = PublicSocket::bind(&folder.path().join("api.sock")).unwrap();
        socket.serve(services, &tasks).unwrap();
        Self {
            folder,
            workloads,
            me,
            tasks,
            metrics,
            readiness,
            _supervisor: supervisor,
        }
    }

    pub(crate) fn feed(&self, view: WorkloadView) {
        self.workloads.feed(self.me.clone(), view);
    }

    fn endpoint(&self) -> String {
        format!("unix://{}/api.sock", self.folder.path().display())
    }

    pub(crate) async fn channel(&self) -> Channel {
        let path = self.folder.path().join("api.sock");
        let connect = move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        };
        let endpoint = Endpoint::from_static("http://localhost");
        let connector = tower::service_fn(connect);
        endpoint.connect_with_connector(connector).await.unwrap()
    }
}

pub(crate) fn domain() -> Domain {
    Domain::at("example.org", Clock::system().now())
}

/// The endpoint is a file of this machine, spoken to in plain HTTP/2 by whoever may open it.
#[tokio::test]
async fn e_01_e_03_e_05_e_07_a_unix_socket_asks_for_no_credentials() {
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let file = std::fs::metadata(agent.folder.path().join("api.sock")).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o777);
    let mut request = tonic::Request::new(X509svidRequest {});
    let header = "true".parse().unwrap();
    request.metadata_mut().insert("workload.spiffe.io", header);
    let mut client = SpiffeWorkloadApiClient::new(agent.channel().await);
    let stream = client.fetch_x509svid(request).await;
    let answer = stream.unwrap().into_inner().message().await.unwrap();
    let svids = answer.unwrap().svids;
    assert_eq!(svids[0].spiffe_id, "spiffe://example.org/web");
}

/// rust-spiffe, unmodified: its source follows rotations.
#[tokio::test]
async fn e_02_a_stock_x509_source_follows_rotations() {
    let domain = domain();
    let first = domain.identity("/web", 1, "");
    let agent = Agent::start(domain.view([first.clone()])).await;
    let endpoint = agent.endpoint();
    let source = X509Source::builder()
        .endpoint(&endpoint)
        .build()
        .await
        .unwrap();
    let mut updates = source.updated();
    let leaf = || source.svid().unwrap().leaf().as_bytes().to_vec();
    assert_eq!(leaf(), first.svid.leaf().der());
    for _ in 0..3 {
        let next = domain.identity("/web", 1, "");
        agent.feed(domain.view([next.clone()]));
        while leaf() != next.svid.leaf().der() {
            updates.changed().await.unwrap();
        }
    }
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let bundle = source.try_bundle_for_trust_domain(&trust_domain).unwrap();
    let authorities: Vec<_> = bundle
        .authorities()
        .iter()
        .map(|one| one.as_bytes())
        .collect();
    let expected = domain.bundle.x509_authorities[0].certificate.der();
    assert_eq!(authorities, [expected]);
}

#[tokio::test]
async fn e_02_p_01_a_stock_client_fetches_everything() {
    let domain = domain();
    let other = Domain::at("other.org", Clock::system().now());
    let view = domain.federated([domain.identity("/web", 1, "web")], [&other.bundle]);
    let agent = Agent::start(view).await;
    let token = domain.jwt_svid("/web", &["me"]);
    agent.workloads.feed_jwt(Ok(token));
    let client = WorkloadApiClient::connect_to(agent.endpoint())
        .await
        .unwrap();

    let context = client.fetch_x509_context().await.unwrap();
    let svid = context.default_svid().unwrap();
    assert_eq!(svid.spiffe_id().to_string(), "spiffe://example.org/web");
    assert_eq!(svid.hint(), Some("web"));
    assert_eq!(client.fetch_x509_bundles().await.unwrap().len(), 2);
    assert_eq!(client.fetch_jwt_bundles().await.unwrap().len(), 2);
    let svid = client.fetch_jwt_svid(["me"], None).await.unwrap();
    let validated = client.validate_jwt_token("me", svid.token()).await.unwrap();
    assert_eq!(validated.spiffe_id(), svid.spiffe_id());
    let refused = client.validate_jwt_token("you", svid.token()).await;
    assert!(refused.is_err());

    agent.feed(domain.view([]));
    let error = client.fetch_x509_svid().await.unwrap_err();
    assert!(error.to_string().contains("no identity issued"), "{error}");
}

/// A reader that does not read keeps no other stream waiting, as long as its connection has room (here of 5 MiB).
#[tokio::test]
async fn p_05_slow_streams_block_no_others() {
    let domain = domain();
    let agent = Agent::start(domain.view([domain.identity("/web", 1, "")])).await;
    let client = WorkloadApiClient::connect_to(agent.endpoint())
        .await
        .unwrap();
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(client.stream_x509_contexts().await.unwrap());
    }
    let mut read = client.stream_x509_contexts().await.unwrap();
    for _ in 0..50 {
        let context = read.next().await.unwrap().unwrap();
        assert!(context.default_svid().is_some());
        agent.feed(domain.view([domain.identity("/web", 1, "")]));
    }
    for stream in &mut unread {
        assert!(stream.next().await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn health_follows_readiness() {
    let domain = domain();
    let agent = Agent::start(domain.view([])).await;
    let part = agent.readiness.part("sync");
    let mut health = HealthClient::new(agent.channel().await);
    let whole = HealthCheckRequest::default;
    let status = health.check(whole()).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    let mut watch = health.watch(whole()).await.unwrap().into_inner();
    let mut next = async || Some(watch.message().await.unwrap()?.status());
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    part.done();
    assert_eq!(next().await, Some(ServingStatus::Serving));
    let status = health.check(whole()).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
    agent.tasks.stop();
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn health_is_of_the_agent_as_a_whole() {
    let agent = Agent::start(domain().view([])).await;
    let mut health = HealthClient::new(agent.channel().await);
    let request = HealthCheckRequest {
        service: "SpiffeWorkloadAPI".to_owned(),
    };
    let status = health.check(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn e_11_reflection_tells_what_is_served_and_nothing_else() {
    let agent = Agent::start(domain().view([])).await;
    let channel = agent.channel().await;
    let question = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answers = client
        .server_reflection_info(tokio_stream::once(question))
        .await;
    let answer = answers
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("a list of services");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|one| one.name).collect();
    names.sort();
    assert!(names.contains(&"SpiffeWorkloadAPI".to_owned()), "{names:?}");
    assert!(
        names.contains(&"grpc.health.v1.Health".to_owned()),
        "{names:?}"
    );
    assert!(
        !names.iter().any(|name| name.contains("spire")),
        "{names:?}"
    );

    let question = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "SpiffeWorkloadAPI".to_owned(),
            ),
        ),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = client
        .server_reflection_info(tokio_stream::once(question))
        .await;
    let answer = answers
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(
        answer.message_response,
        Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
    ));
}
