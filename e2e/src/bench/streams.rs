//! Row c: a new stream on a warm cache. Row e: what connections and streams cost in memory. The limit of both is the floor
//! server.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use prost::Message as _;
use proto::envoy::core::{Extension, Node};
use proto::envoy::discovery::DiscoveryRequest;
use tokio::time::{Instant, sleep};

use super::h2::{Connection, Stream};
use super::{Figure, Report, floor, percentile, usage};
use crate::{Domain, Settings, wait};

const METHOD: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

const SDS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";

/// As a node with large gateways has them.
const SDS_STREAMS: usize = 10_000;
const SDS_ON_ONE: usize = 2_500;
/// In this time the agent would let that many begin.
const A_BURST: Duration = Duration::from_millis(2_500);

/// The samples of each case.
const SAMPLES: usize = 300;

/// Measures both rows.
///
/// # Errors
/// When something does not run.
pub async fn run(report: &mut Report) -> Result<()> {
    let mut domain = Domain::start(Settings::default()).await?;
    domain.register("/bench", &env::current_exe()?).await?;
    let socket = domain.agent_socket();
    let message = wait::until("the agent serves the bench", || async {
        let mut stream = Connection::open(&socket).await?.stream(METHOD).await?;
        Ok(Some(stream.message().await?))
    })
    .await?;
    let floor_socket = domain.path("floor.sock");
    let floor = floor::start(&floor_socket, message.len(), &domain.path("floor.log")).await?;
    let (agent, floor) = (domain.agent()?.pid()?, floor.pid().map(|pid| (floor, pid))?);

    let (ours, limits) = (
        memory(&socket, agent).await?,
        memory(&floor_socket, floor.1).await?,
    );
    for ((case, value, n), (_, limit, _)) in ours.into_iter().zip(limits) {
        report.add(Figure {
            row: "e",
            case: case.to_owned(),
            value,
            unit: "KiB",
            limit: Some(limit),
            n,
        });
    }
    report.add(Figure {
        row: "e",
        case: "agent, per idle SDS stream, resident".to_owned(),
        value: idle_sds(&socket, agent).await?,
        unit: "KiB",
        limit: None,
        n: SDS_STREAMS,
    });
    for own in [false, true] {
        for number in [1, 100, 1000] {
            let case = format!(
                "Workload API, stream number {number} on {}",
                if own {
                    "as many connections"
                } else {
                    "one connection"
                }
            );
            let ours = measure(&socket, agent, number, own).await?;
            let limit = measure(&floor_socket, floor.1, number, own).await?;
            for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
                report.add(Figure {
                    row: "c",
                    case: format!("{case}, {name}"),
                    value: percentile(&ours.milliseconds, part),
                    unit: "ms",
                    limit: Some(percentile(&limit.milliseconds, part)),
                    n: SAMPLES,
                });
            }
            report.add(Figure {
                row: "c",
                case: format!("{case}, server CPU"),
                value: ours.cpu,
                unit: "ms",
                limit: Some(limit.cpu),
                n: SAMPLES,
            });
        }
    }
    Ok(())
}

struct Measured {
    milliseconds: Vec<f64>,
    /// Of the server, for each sample, in milliseconds.
    cpu: f64,
}

/// Keeps `number - 1` streams open, and opens and closes one more, again and again.
async fn measure(socket: &Path, pid: u32, number: usize, own: bool) -> Result<Measured> {
    let mut open = Streams::new(socket, own).await?;
    for _ in 1..number {
        open.add().await?;
    }
    let before = usage::on_core(pid)?;
    let mut milliseconds = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let started = Instant::now();
        open.add().await?;
        milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
        open.kept.pop();
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let cpu = (usage::on_core(pid)? - before) * 1e3 / SAMPLES as f64;
    Ok(Measured { milliseconds, cpu })
}

/// What the program at `socket` needs: by itself, for each stream, for each connection with one.
async fn memory(socket: &Path, pid: u32) -> Result<Vec<(&'static str, f64, usize)>> {
    const COUNT: usize = 1000;
    let mut last = usage::resident(pid)?;
    let mut figures = vec![("agent, one entry, resident", last, 1)];
    for (own, case) in [
        (
            false,
            "agent, per Workload API stream on one connection, resident",
        ),
        (
            true,
            "agent, per connection with a Workload API stream, resident",
        ),
    ] {
        let mut open = Streams::new(socket, own).await?;
        for _ in 0..COUNT {
            open.add().await?;
        }
        let now = usage::resident(pid)?;
        #[expect(clippy::cast_precision_loss, reason = "a thousand")]
        figures.push((case, (now - last) / COUNT as f64, COUNT));
        last = now;
    }
    Ok(figures)
}

/// What the agent needs for each stream of an Envoy that has its secret and waits, in KiB.
async fn idle_sds(socket: &Path, pid: u32) -> Result<f64> {
    let before = usage::resident(pid)?;
    let mut open = Vec::new();
    let request = envoys_request().encode_to_vec();
    for number in 0..SDS_STREAMS {
        if number % SDS_ON_ONE == 0 {
            open.push((Connection::open(socket).await?, Vec::new()));
        }
        if let Some((connection, streams)) = open.last_mut() {
            let mut stream = connection.talk(SDS, &request).await?;
            stream.message().await?;
            streams.push(stream);
        }
        // An agent lets one process begin a burst of streams, and then one more each millisecond.
        if number % SDS_ON_ONE == SDS_ON_ONE - 1 {
            sleep(A_BURST).await;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "ten thousand")]
    let each = (usage::resident(pid)? - before) / SDS_STREAMS as f64;
    Ok(each)
}

/// What an Envoy says first on a stream: for the most part, what it is made of.
fn envoys_request() -> DiscoveryRequest {
    let extension = |number| Extension {
        name: format!("envoy.filters.http.extension_number_{number}"),
        category: "envoy.filters.http".to_owned(),
        type_urls: vec!["envoy.extensions.filters.http.some.v3.SomeExtension".to_owned()],
        ..Extension::default()
    };
    DiscoveryRequest {
        node: Some(Node {
            id: "bench".to_owned(),
            cluster: "bench".to_owned(),
            extensions: (0..516).map(extension).collect(),
            ..Node::default()
        }),
        resource_names: vec!["default".to_owned()],
        ..DiscoveryRequest::default()
    }
}

/// Streams that have had their first message.
struct Streams {
    socket: PathBuf,
    shared: Option<Connection>,
    kept: Vec<(Connection, Stream)>,
}

impl Streams {
    async fn new(socket: &Path, own: bool) -> Result<Self> {
        let shared = match own {
            true => None,
            false => Some(Connection::open(socket).await?),
        };
        Ok(Self {
            socket: socket.to_owned(),
            shared,
            kept: Vec::new(),
        })
    }

    async fn add(&mut self) -> Result<()> {
        let connection = match &self.shared {
            Some(shared) => shared.clone(),
            None => Connection::open(&self.socket).await?,
        };
        let mut stream = connection.stream(METHOD).await?;
        stream.message().await?;
        self.kept.push((connection, stream));
        Ok(())
    }
}
