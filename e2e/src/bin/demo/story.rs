//! The seven steps.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::app::App;
use e2e::load::{self, Load};
use e2e::screen::Screen;
use e2e::{Domain, Settings, ports};
use tokio::time::{Instant, sleep};

use crate::probe;
use crate::sidecar::{Held, Sidecar, alias};

/// How many SVIDs must be renewed under load, over both Envoys.
const ROTATIONS: usize = 10;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(120);
const SVID_TTL: Duration = Duration::from_secs(10);
/// The next authority is prepared at half of it, and signs from five sixths on.
const CA_TTL: Duration = Duration::from_secs(36);

/// Short lives, so that a minute holds many rotations.
pub(crate) fn settings() -> Settings {
    Settings {
        ca_ttl: CA_TTL,
        x509_svid_ttl: SVID_TTL,
        ..Settings::default()
    }
}

/// Everything that runs.
pub(crate) struct Story {
    domain: Domain,
    app: App,
    sidecars: Vec<Sidecar>,
}

impl Story {
    pub(crate) async fn new(domain: Domain) -> Result<Self> {
        Ok(Self {
            domain,
            app: App::start().await?,
            sidecars: Vec::new(),
        })
    }

    pub(crate) async fn tell(&mut self, screen: &mut Screen) -> Result<()> {
        self.server_and_agent(screen).await?;
        self.workloads(screen).await?;
        self.who_got_what(screen).await?;
        self.one_request(screen).await?;
        self.the_stranger(screen).await?;
        self.rotation_under_load(screen).await
    }

    async fn server_and_agent(&mut self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "An issuing server, and an agent that attests with a join token",
            "both say that they are healthy",
        );
        screen.line(format!("folder  {}", self.domain.folder().display()));
        let started = Instant::now();
        self.domain.start_server().await?;
        screen.line(format!(
            "server  healthy after {:.1} s: trust domain example.org, 127.0.0.1:{}, SQLite, self-signed CA",
            started.elapsed().as_secs_f32(),
            self.domain.server_port()
        ));
        let started = Instant::now();
        self.domain.start_agent_with_token().await?;
        screen.line(format!(
            "agent   healthy after {:.1} s: serves SDS and the Workload API on {}",
            started.elapsed().as_secs_f32(),
            self.domain.agent_socket().display()
        ));
        Ok(())
    }

    async fn workloads(&mut self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "Two workloads and a stranger, each beside a real Envoy",
            "entries for frontend and backend, and three Envoys that ask the agent",
        );
        let backend = Sidecar::inbound("backend", &self.domain, self.app.port)?;
        let frontend = Sidecar::outbound("frontend", &self.domain, backend.port)?;
        let stranger = Sidecar::outbound("stranger", &self.domain, backend.port)?;
        for sidecar in [&frontend, &backend] {
            let path = format!("/{}", sidecar.name);
            let entry = self.domain.register(&path, &sidecar.program).await?;
            screen.line(format!(
                "entry {entry}: {} is {}",
                sidecar.selector(),
                self.domain.id(&path)
            ));
        }
        screen.line("stranger: no entry; its Envoy asks for the frontend's identity by name");
        self.sidecars = vec![frontend, backend, stranger];
        Ok(())
    }

    async fn who_got_what(&mut self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "Who got which SPIFFE ID",
            "frontend and backend hold an SVID within seconds, the stranger holds none",
        );
        let mut rows = Vec::new();
        for sidecar in &mut self.sidecars[..2] {
            let held = sidecar.served().await?;
            let expected = self.domain.id(&format!("/{}", sidecar.name));
            ensure!(
                held.id == expected,
                "{}'s Envoy holds {}",
                sidecar.name,
                held.id
            );
            rows.push([
                sidecar.name.to_owned(),
                held.id,
                sidecar.selector(),
                held.valid_until,
            ]);
        }
        let stranger = &self.sidecars[2];
        ensure!(
            stranger.held().await?.is_none(),
            "the stranger's Envoy holds an SVID"
        );
        rows.push([
            stranger.name.to_owned(),
            "-".to_owned(),
            stranger.selector(),
            "-".to_owned(),
        ]);
        screen.table(["workload", "SPIFFE ID", "selector", "valid until"], &rows);
        Ok(())
    }

    async fn one_request(&self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "A request: client → frontend's Envoy → mTLS → backend's Envoy → app",
            "the app answers, and saw spiffe://example.org/frontend",
        );
        let port = self.sidecars[0].port;
        let answer = load::get(ports::local(port), "/").await?;
        screen.line(format!(
            "GET http://127.0.0.1:{port}/ → {} {}",
            answer.status,
            answer.body.trim()
        ));
        let caller = self.domain.id("/frontend");
        ensure!(
            answer.body.contains(&caller),
            "the app did not see {caller}"
        );
        Ok(())
    }

    async fn the_stranger(&self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "The stranger is refused",
            "no key from the agent, no handshake with the backend",
        );
        let program = alias(self.domain.signet(), "stranger-cli", &self.domain)?;
        let socket = self.domain.agent_socket();
        let output = tokio::process::Command::new(program)
            .args(["agent", "api", "fetch", "x509", "-socketPath"])
            .arg(&socket)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(
            !output.status.success(),
            "the agent gave the stranger an SVID: {said}"
        );
        screen.line(format!("Workload API: {said}"));

        let stranger = &self.sidecars[2];
        let asked = stranger
            .envoy
            .stat("cluster.signet_agent.upstream_rq_total")
            .await?;
        ensure!(asked > 0, "the stranger's Envoy has not asked the agent");
        ensure!(
            stranger.held().await?.is_none(),
            "the stranger's Envoy holds an SVID"
        );
        screen.line(format!(
            "SDS: asked {asked} times by name, got no key: none of its selectors has an entry"
        ));

        let seen = probe::without_certificate(self.sidecars[1].port).await?;
        screen.line(format!("backend: {}", seen.refusal));
        Ok(())
    }

    async fn rotation_under_load(&mut self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "Load, while SVIDs live 10 s and the authority is replaced",
            "at least 10 SVID rotations, 1 CA rotation, and no failed request",
        );
        let caller = self.domain.id("/frontend");
        let load = Load::start(ports::local(self.sidecars[0].port), &caller, 4);
        let mut watched = Watched::new(&self.sidecars[..2]).await?;
        let started = Instant::now();
        let mut shown = 0;
        while !watched.is_enough() {
            sleep(Duration::from_millis(250)).await;
            for sidecar in &mut self.sidecars[..2] {
                sidecar.envoy.process().check_running()?;
            }
            watched.look(&self.sidecars[..2]).await?;
            let seconds = started.elapsed().as_secs();
            if seconds / 5 > shown {
                shown = seconds / 5;
                let report = load.report();
                screen.line(format!(
                    "{seconds:>3} s: {} requests, {} failed; {watched}",
                    report.sent, report.failed
                ));
            }
            if started.elapsed() > PATIENCE {
                bail!("after {PATIENCE:?}: {watched}");
            }
        }
        let report = load.stop().await;
        screen.line(format!(
            "sent {}, failed {}; {watched}",
            report.sent, report.failed
        ));
        let first = report.first_failure.unwrap_or_default();
        ensure!(
            report.failed == 0,
            "{} requests failed, the first: {first}",
            report.failed
        );
        self.stranger_still_without(screen).await
    }

    async fn stranger_still_without(&self, screen: &Screen) -> Result<()> {
        let stranger = &self.sidecars[2];
        ensure!(
            stranger.held().await?.is_none(),
            "the stranger's Envoy holds an SVID"
        );
        match load::get(ports::local(stranger.port), "/").await {
            Ok(answer) if answer.status == 200 => {
                bail!("the stranger got through: {}", answer.body)
            }
            Ok(answer) => screen.line(format!("stranger, all the while: status {}", answer.status)),
            Err(error) => screen.line(format!("stranger, all the while: {error:#}")),
        }
        Ok(())
    }

    /// Says how to look around; registers `signet` itself, so that it gets an SVID too.
    pub(crate) async fn look_around(&self, screen: &mut Screen) -> Result<()> {
        screen.step("Look around; Ctrl-C ends it", "an entry for signet itself");
        let signet = self.domain.signet().canonicalize()?;
        self.domain.register("/visitor", &signet).await?;
        let (signet, agent) = (signet.display(), self.domain.agent_socket());
        let (server, agent) = (self.domain.server_socket(), agent.display());
        screen.line(format!("{signet} agent api fetch x509 -socketPath {agent}"));
        screen.line(format!(
            "{signet} server entry show -socketPath {}",
            server.display()
        ));
        for sidecar in &self.sidecars {
            screen.line(format!(
                "curl http://127.0.0.1:{}/certs   # {}",
                sidecar.admin, sidecar.name
            ));
        }
        screen.line(format!(
            "curl http://127.0.0.1:{}/   # through both Envoys",
            self.sidecars[0].port
        ));
        Ok(())
    }

    /// Leaves the folder with its logs when all has ended.
    pub(crate) fn keep_logs(&mut self) -> PathBuf {
        self.domain.keep_folder();
        self.domain.folder().to_owned()
    }

    pub(crate) async fn clean_up(mut self, screen: &Screen) {
        self.end().await;
        let folder = self.domain.folder().to_owned();
        drop(self);
        screen.line(format!("all ended; {} removed", folder.display()));
    }

    /// Ends what runs, in order; what does not end is killed when the story is dropped.
    pub(crate) async fn end(&mut self) {
        for sidecar in &mut self.sidecars {
            let _ = sidecar.envoy.process().terminate().await;
        }
        if let Ok(agent) = self.domain.agent() {
            let _ = agent.terminate().await;
        }
        if let Ok(server) = self.domain.server() {
            let _ = server.terminate().await;
        }
    }
}

/// What has rotated so far.
struct Watched {
    held: Vec<Held>,
    rotations: Vec<usize>,
    authority: Option<Vec<u8>>,
    authorities: usize,
}

impl Watched {
    async fn new(sidecars: &[Sidecar]) -> Result<Self> {
        let mut held = Vec::new();
        for sidecar in sidecars {
            held.push(sidecar.held().await?.context("an SVID")?);
        }
        Ok(Self {
            rotations: vec![0; held.len()],
            held,
            authority: authority(sidecars).await?,
            authorities: 0,
        })
    }

    async fn look(&mut self, sidecars: &[Sidecar]) -> Result<()> {
        for (at, sidecar) in sidecars.iter().enumerate() {
            let held = sidecar.held().await?.context("an SVID")?;
            if held.serial != self.held[at].serial {
                self.rotations[at] += 1;
                self.held[at] = held;
            }
        }
        let authority = authority(sidecars).await?;
        if authority != self.authority {
            self.authorities += 1;
            self.authority = authority;
        }
        Ok(())
    }

    fn is_enough(&self) -> bool {
        self.rotations.iter().sum::<usize>() >= ROTATIONS && self.authorities > 0
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [frontend, backend] = self.rotations[..] else {
            return Ok(());
        };
        write!(
            f,
            "SVID rotations: frontend {frontend}, backend {backend}; CA rotations: {}",
            self.authorities
        )
    }
}

/// The authority that signed what the backend shows.
async fn authority(sidecars: &[Sidecar]) -> Result<Option<Vec<u8>>> {
    let seen = probe::without_certificate(sidecars[1].port).await?;
    Ok(seen.leaf.authority_key_id().map(<[u8]>::to_vec))
}
