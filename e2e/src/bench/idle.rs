//! Row j: what it takes to have the programs at all: the size of the binary, memory with nothing to do, time from the start
//! of the process to the first healthy answer. The limit for a start is the same binary, told to print its version.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use testkit::{local_channel, raw};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::{Figure, Report, percentile, usage};
use crate::{Domain, Settings, binaries};

const STARTS: usize = 5;
/// After so long whatever the start left to do is done, and freed memory has gone back.
const SETTLE: Duration = Duration::from_secs(5);
/// Longer than any start should take.
const BOUND: Duration = Duration::from_secs(60);
const KIB_PER_MIB: f64 = 1024.0;

/// Measures the row.
///
/// # Errors
/// When something does not run.
pub async fn run(report: &mut Report) -> Result<()> {
    let mut figure = |case: &str, value: f64, unit: &'static str, limit: Option<f64>, n: usize| {
        report.add(Figure {
            row: "j",
            case: case.to_owned(),
            value,
            unit,
            limit,
            n,
        });
    };
    let signet = binaries::signet()?;
    #[expect(clippy::cast_precision_loss, reason = "a few MiB")]
    let bytes = std::fs::metadata(&signet)?.len() as f64;
    let size = bytes / (KIB_PER_MIB * KIB_PER_MIB);
    figure("binary size", size, "MiB", None, 1);

    let floor = floor(&signet).await?;
    let mut domain = Domain::new(Settings::default())?;
    let mut server = Vec::new();
    let mut agent = Vec::new();
    for round in 0..=STARTS {
        let socket = domain.server_socket();
        let started = Instant::now();
        domain.spawn_server()?;
        server.push(healthy(&socket, started).await?);
        let socket = domain.agent_socket();
        if round == 0 {
            domain.start_agent_with_token().await?;
        } else {
            let started = Instant::now();
            domain.spawn_agent(&[])?;
            agent.push(healthy(&socket, started).await?);
        }
        if round < STARTS {
            domain.agent()?.terminate().await?;
            domain.server()?.terminate().await?;
        }
    }
    // The first start makes the keys and the database.
    let (first, later) = (server.remove(0), server);
    let limit = Some(floor);
    figure("server, first start to healthy", first, "ms", limit, 1);
    for (case, milliseconds) in [
        ("server, start to healthy, p50", &later),
        ("agent, start with its data to healthy, p50", &agent),
    ] {
        let p50 = percentile(milliseconds, 0.5);
        figure(case, p50, "ms", limit, milliseconds.len());
    }

    sleep(SETTLE).await;
    let memory = usage::resident(domain.server()?.pid()?)? / KIB_PER_MIB;
    figure("server RSS, no entries, one agent", memory, "MiB", None, 1);
    let memory = usage::resident(domain.agent()?.pid()?)? / KIB_PER_MIB;
    figure("agent RSS, no entries", memory, "MiB", None, 1);
    Ok(())
}

/// From `started` to the first healthy answer, in milliseconds.
async fn healthy(socket: &Path, started: Instant) -> Result<f64> {
    const SERVING: [u8; 2] = [8, 1];
    loop {
        let channel = local_channel(socket);
        let answer = raw::call(&channel, "/grpc.health.v1.Health/Check", Bytes::new()).await;
        if answer.is_ok_and(|answer| answer[..] == SERVING) {
            return Ok(started.elapsed().as_secs_f64() * 1e3);
        }
        ensure!(
            started.elapsed() < BOUND,
            "nothing healthy at {}",
            socket.display()
        );
        sleep(Duration::from_millis(1)).await;
    }
}

/// How long the binary takes to print its version, in milliseconds.
pub(super) async fn floor(signet: &Path) -> Result<f64> {
    let mut milliseconds = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let ended = Command::new(signet)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .await?;
        ensure!(ended.success(), "{} --version: {ended}", signet.display());
        milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(percentile(&milliseconds, 0.5))
}
