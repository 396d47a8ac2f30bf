use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use identity::Bundle;
use proto::envoy::{
    discovery::DiscoveryRequest,
    secret::secret_discovery_service_client::SecretDiscoveryServiceClient,
};
use runtime::Supervisor;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;
use crate::{fixtures::trust_domain, workloads::WorkloadView};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an HTTP/2 client says first: the preface, and settings without a word (RFC 9113, sections 3.4 and 4.1).
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SETTINGS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// The settings that a server sends to a new connection, by their number.
async fn settings(path: &Path) -> BTreeMap<u16, u32> {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(GREETING).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], SETTINGS);
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let (chunks, rest) = settings.as_chunks::<6>();
    assert!(rest.is_empty());
    let setting = |[a, b, c, d, e, f]: &[u8; 6]| {
        (
            u16::from_be_bytes([*a, *b]),
            u32::from_be_bytes([*c, *d, *e, *f]),
        )
    };
    chunks.iter().map(setting).collect()
}

async fn connect(path: &Path) -> Channel {
    let path = path.to_owned();
    let connect = move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    };
    let endpoint = Endpoint::from_static("http://localhost");
    let connector = tower::service_fn(connect);
    endpoint.connect_with_connector(connector).await.unwrap()
}

/// Dials with a deadline of a second are common: they must not fail because attestors are slow.
#[tokio::test]
async fn s_5_30_a_new_connection_never_waits_for_attestation() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("api.sock");
    let silent = watch::Sender::new(None);
    let (_supervisor, tasks) = Supervisor::new();
    let services = Services {
        workloads: Workloads::fixed(Arc::new(nothing())),
        attestors: Attestors::told([silent.subscribe()]),
        workload_api: WorkloadApiConfig::default(),
        sds: SdsConfig::default(),
        clock: Clock::system(),
        metrics: Metrics::new("spire_agent"),
        readiness: Readiness::new(),
    };
    let socket = PublicSocket::bind(&path).unwrap();
    socket.serve(services, &tasks).unwrap();

    let client = SecretDiscoveryServiceClient::new(connect(&path).await);
    let waiting = futures_util::future::select_all((0..100).map(|_| {
        let mut client = client.clone();
        Box::pin(async move {
            let (_requests, receiver) = mpsc::channel::<DiscoveryRequest>(1);
            client.stream_secrets(ReceiverStream::new(receiver)).await
        })
    }));
    let others = async {
        let settings = settings(&path).await;
        // And it has room for an Envoy of many secrets (row 44).
        assert_eq!(settings.get(&MAX_CONCURRENT_STREAMS), Some(&4096));
        let mut health = HealthClient::new(connect(&path).await);
        health.check(HealthCheckRequest::default()).await.unwrap();
    };
    tokio::select! {
        answered = waiting => panic!("a stream of a caller that is not attested: {:?}", answered.0),
        passed = timeout(PATIENCE, others) => passed.expect("in time"),
    }
    tasks.stop();
}

fn nothing() -> WorkloadView {
    WorkloadView {
        synced: true,
        identities: Vec::new(),
        pending: Vec::new(),
        bundle: Arc::new(Bundle::empty(trust_domain())),
        federated: BTreeMap::new(),
    }
}
