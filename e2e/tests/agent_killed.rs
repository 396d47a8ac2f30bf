//! E4: `kill -9` of the agent under two meshes of real Envoys. They go on, and to the agents that follow, with no server,
//! they have nothing to learn.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::bench::h2::Connection;
use e2e::envoy::Updates;
use e2e::load::{self, Load};
use e2e::mesh::Programs;
use e2e::{Bootstrap, Domain, Mesh, Sds, Settings, ports, tls, wait};
use tokio::time::{Instant, sleep};

const X509: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// How soon a new agent has to serve. The best of [`KILLS`] counts: others use this machine too.
const SOON: Duration = Duration::from_secs(1);
const KILLS: usize = 3;

/// An entry with its SVID takes at least so much of the agent's copy.
const SVID_SIZE: u64 = 600;

#[tokio::test(flavor = "multi_thread")]
async fn e4_envoys_go_on_and_are_sent_nothing_twice() -> Result<()> {
    let mut world = World::start().await?;
    let before = world.secrets().await?;
    let load = |mesh: &Mesh| Load::start(mesh.outbound, mesh.expected(), 2);
    let loads = world.meshes.each_ref().map(load);
    world.domain.server()?.kill().await?;
    let mut best = Duration::MAX;
    for _ in 0..KILLS {
        world.domain.agent()?.kill().await?;
        world.goes_on(&loads).await.context("without an agent")?;
        best = best.min(world.new_agent().await?);
        world.all_back().await?;
        let sent = world.figure("sds_api_responses_sent").await?;
        ensure!(sent == 0, "{sent} responses to who has everything");
    }
    println!("first SVID of the best of {KILLS} new agents after {best:?}");
    ensure!(best <= SOON, "the first SVID came after {best:?}");

    // The streams that were taken up are live: one changed entry is one response to each Envoy of that workload.
    world.domain.start_server().await?;
    world.change_backend().await?;
    let after = world.secrets().await?;
    for (secret, was) in &before {
        let news = u64::from(secret.ends_with("/backend"));
        let is = after.get(secret).with_context(|| secret.clone())?;
        ensure!(
            is.accepted == was.accepted + news,
            "{secret}: {was:?}, then {is:?}"
        );
        let same = is.version == was.version;
        ensure!(
            was.version.is_empty() || same == (news == 0),
            "{secret}: {was:?}, then {is:?}"
        );
    }
    let sent = world.figure("sds_api_responses_sent").await?;
    ensure!(
        sent == world.meshes.len() as u64,
        "{sent} responses for one change"
    );
    for load in loads {
        let report = load.stop().await;
        ensure!(report.failed == 0 && report.sent > 100, "{report:?}");
    }
    Ok(())
}

/// A domain with two meshes, one for each form of SDS.
struct World {
    domain: Domain,
    meshes: [Mesh; 2],
    backend: String,
    visitor: tls::Credentials,
    metrics: u16,
}

impl World {
    async fn start() -> Result<Self> {
        let metrics = ports::free()?;
        let domain = Domain::start(Settings {
            agent_blocks: format!(
                "telemetry {{\n Prometheus {{\n host = \"127.0.0.1\"\n port = {metrics}\n}}\n}}"
            ),
            ..Settings::default()
        })
        .await?;
        let copy = domain.path("agent/svid-cache.sealed");
        let size = || Ok(std::fs::metadata(&copy).map(|copy| copy.len()).ok());
        let empty = wait::until("a first copy", || async { size() }).await?;
        domain.register("/probe", &env::current_exe()?).await?;
        let programs = Programs::register(&domain).await?;
        let start = async |name, sds| {
            let file = |file| Bootstrap::read(file)?.speaking(sds);
            let (inbound, outbound) = (file("inbound.yaml")?, file("outbound.yaml")?);
            Mesh::start(&domain, &programs, name, inbound, outbound).await
        };
        let meshes = [
            start("delta", Sds::Delta).await?,
            start("sotw", Sds::StateOfTheWorld).await?,
        ];
        wait::until("the copy to hold three SVIDs", || async {
            Ok(size()?.filter(|size| *size >= empty + 3 * SVID_SIZE))
        })
        .await?;
        Ok(Self {
            visitor: tls::Credentials::mint(&domain, "/frontend").await?,
            backend: programs.backend_entry,
            domain,
            meshes,
            metrics,
        })
    }

    /// Every secret of every Envoy, by mesh and service.
    async fn secrets(&self) -> Result<BTreeMap<String, Updates>> {
        let mut all = BTreeMap::new();
        for (number, mesh) in self.meshes.iter().enumerate() {
            for (service, envoy) in [("frontend", &mesh.frontend), ("backend", &mesh.backend)] {
                let secrets = envoy.secrets().await?.into_iter();
                all.extend(secrets.map(|(name, is)| (format!("{number} {service} {name}"), is)));
            }
        }
        ensure!(
            all.len() == 8,
            "two secrets of each of four Envoys: {all:?}"
        );
        Ok(all)
    }

    /// Requests come through, on connections that were there and on new ones.
    async fn goes_on(&self, loads: &[Load]) -> Result<()> {
        for (mesh, load) in self.meshes.iter().zip(loads) {
            let before = load.report();
            wait::until("more requests to come through", || async {
                Ok((load.report().sent > before.sent + 50).then_some(()))
            })
            .await?;
            let after = load.report();
            ensure!(after.failed == 0, "{after:?}");
            let answer = tls::get(mesh.inbound, Some(&self.visitor)).await?;
            ensure!(answer.body.trim() == mesh.expected(), "{answer:?}");
        }
        Ok(())
    }

    /// Starts an agent; tells after how long it served its first SVID.
    async fn new_agent(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.domain.spawn_agent(&[])?;
        let socket = self.domain.agent_socket();
        loop {
            if first_svid(&socket).await.is_ok() {
                return Ok(started.elapsed());
            }
            self.domain.agent()?.check_running()?;
            ensure!(started.elapsed() < wait::PATIENCE, "no SVID");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until all streams of all Envoys are back.
    async fn all_back(&self) -> Result<()> {
        wait::until("the streams of eight secrets", || async {
            Ok((self.figure("sds_api_names").await? == 8).then_some(()))
        })
        .await
    }

    /// Gives the backend's entry another TTL, and waits until both its Envoys use the SVID that comes of it.
    async fn change_backend(&self) -> Result<()> {
        let mut former = Vec::new();
        for mesh in &self.meshes {
            former.push(mesh.backend.serials().await?);
        }
        let selector = format!("unix:path:{}", self.domain.path("backend-envoy").display());
        let (id, parent) = (self.domain.id("/backend"), self.domain.agent_id());
        let args = [
            "entry",
            "update",
            "-entryID",
            &self.backend,
            "-spiffeID",
            &id,
            "-parentID",
            &parent,
            "-selector",
            &selector,
            "-x509SVIDTTL",
            "1800",
        ];
        self.domain.server_cli(&args).await?;
        for (mesh, former) in self.meshes.iter().zip(&former) {
            wait::until("another certificate", || async {
                Ok((mesh.backend.serials().await? != *former).then_some(()))
            })
            .await?;
            mesh.passes().await?;
        }
        Ok(())
    }

    /// A figure of the agent's; 0 before there is one.
    async fn figure(&self, name: &str) -> Result<u64> {
        let page = load::get(ports::local(self.metrics), "/metrics").await?;
        let name = format!("spire_agent_{name}{{");
        let line = page.body.lines().find(|line| line.starts_with(&name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map_or(Ok(0), |value| {
            value.parse().with_context(|| format!("{name} {value}"))
        })
    }
}

async fn first_svid(socket: &Path) -> Result<()> {
    let mut stream = Connection::open(socket).await?.stream(X509).await?;
    stream.message().await.map(drop)
}
