//! Row b: an agent that starts with nothing, to the first SVID of a workload that waits; the limit is a client that attests
//! and has one SVID issued. Row k: an entry is created, to its SVID in a workload that watches; the limit is a client that
//! creates an entry, asks for it and has its SVID issued.

use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::bare::{self, Bare};
use super::h2::{Connection, Stream};
use super::{Figure, Report, idle, percentile};
use crate::{Domain, Settings, wait};

const METHOD: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// What the server takes in one call.
const AT_ONCE: usize = 500;

/// What an agent leaves behind.
const FILES: [&str; 4] = [
    "agent-data.json",
    "keys.json",
    "svid-cache.key",
    "svid-cache.sealed",
];

const STARTS: usize = 3;
const ENTRIES: usize = 10;

/// Longer than anything here should take.
const BOUND: Duration = Duration::from_secs(60);

/// Measures row b.
///
/// # Errors
/// When something does not run.
pub async fn starts(report: &mut Report) -> Result<()> {
    for number in [1, 1000, 5000] {
        let mut domain = Domain::new(Settings {
            // Else one attestation and 500 SVIDs a second would be what is measured.
            server_extra: "ratelimit {\n    attestation = false\n    signing = false\n  }"
                .to_owned(),
            ..Settings::default()
        })?;
        domain.start_server().await?;
        register_many(&domain, number).await?;
        let bare = Bare::new(&domain).await?;
        let (mut milliseconds, mut limit) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            milliseconds.push(start(&mut domain).await?);
            limit.push(bare.first_svid(&new_token(&domain).await?).await?);
        }
        let mut figure = |case: &str, milliseconds: &[f64], limit: f64| {
            report.add(Figure {
                row: "b",
                case: format!("{case}, {number} entries for the workload"),
                value: percentile(milliseconds, 0.5),
                unit: "ms",
                limit: Some(limit),
                n: milliseconds.len(),
            });
        };
        let limit = percentile(&limit, 0.5);
        figure("agent start to first SVID", &milliseconds, limit);
        if number == 1 {
            let milliseconds = restart(&mut domain).await?;
            // Nothing but the program's own start cannot be done without.
            let limit = idle::floor(domain.signet()).await?;
            figure("agent after kill -9, server down", &[milliseconds], limit);
        }
    }
    Ok(())
}

/// From the start of the program to the first message, from its disk alone.
async fn restart(domain: &mut Domain) -> Result<f64> {
    domain.start_agent_with_token().await?;
    let socket = domain.agent_socket();
    timeout(BOUND, first_message(&socket)).await?;
    let copy = domain.path("agent/svid-cache.sealed");
    wait::until("the copy is written", || async {
        Ok(copy.exists().then_some(()))
    })
    .await?;
    domain.agent()?.kill().await?;
    domain.server()?.kill().await?;
    let started = Instant::now();
    domain.spawn_agent(&[])?;
    timeout(BOUND, first_message(&socket)).await?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

/// From the start of the program to the first message.
async fn start(domain: &mut Domain) -> Result<f64> {
    let token = new_token(domain).await?;
    let socket = domain.agent_socket();
    let started = Instant::now();
    domain.spawn_agent(&["-joinToken", &token])?;
    timeout(BOUND, first_message(&socket)).await?;
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    domain.agent()?.terminate().await?;
    for file in FILES.map(|file| domain.path("agent").join(file)) {
        if file.exists() {
            std::fs::remove_file(file)?;
        }
    }
    Ok(milliseconds)
}

/// A join token for the agent of the domain.
async fn new_token(domain: &Domain) -> Result<String> {
    let agent_id = domain.agent_id();
    let args = ["token", "generate", "-spiffeID", &agent_id];
    bare::token(&domain.server_cli(&args).await?)
}

async fn first_message(socket: &Path) {
    loop {
        if let Ok(connection) = Connection::open(socket).await
            && let Ok(mut stream) = connection.stream(METHOD).await
            && stream.message().await.is_ok()
        {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn register_many(domain: &Domain, number: usize) -> Result<()> {
    let program = format!("path:{}", env::current_exe()?.display());
    let all: Vec<Value> = (0..number)
        .map(|index| {
            json!({
                "spiffe_id": domain.id(&format!("/bench/{index}")),
                "parent_id": domain.agent_id(),
                "selectors": [{ "type": "unix", "value": program }],
            })
        })
        .collect();
    for (index, entries) in all.chunks(AT_ONCE).enumerate() {
        let text = json!({ "entries": entries }).to_string();
        let path = domain.write(&format!("entries-{index}.json"), &text)?;
        let path = path.to_string_lossy();
        domain
            .server_cli(&["entry", "create", "-data", &path])
            .await?;
    }
    Ok(())
}

/// Measures row k, with the interval at which agents ask by default.
///
/// # Errors
/// When something does not run.
pub async fn entries(report: &mut Report) -> Result<()> {
    let settings = Settings {
        sync_interval: Duration::from_secs(5),
        ..Settings::default()
    };
    let domain = Domain::start(settings).await?;
    let program = env::current_exe()?;
    domain.register("/bench", &program).await?;
    let mut stream = watching(&domain.agent_socket()).await?;
    let bare = Bare::new(&domain).await?;
    let printed = domain.server_cli(&["token", "generate"]).await?;
    let agent = bare.attest(&bare::token(&printed)?).await?;
    let channel = bare.channel(&agent);
    let (mut milliseconds, mut limit) = (Vec::new(), Vec::new());
    for index in 0..ENTRIES {
        limit.push(bare.entry_to_svid(&agent, &channel, index).await?);
        let started = Instant::now();
        domain
            .register(&format!("/bench/{index}"), &program)
            .await?;
        timeout(BOUND, stream.message()).await??;
        milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
    }
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        report.add(Figure {
            row: "k",
            case: format!("entry created to its SVID in a workload, asking every 5 s, {name}"),
            value: percentile(&milliseconds, part),
            unit: "ms",
            limit: Some(percentile(&limit, part)),
            n: ENTRIES,
        });
    }
    Ok(())
}

/// A stream that has had its first message.
async fn watching(socket: &Path) -> Result<Stream> {
    let deadline = Instant::now() + BOUND;
    loop {
        let mut stream = Connection::open(socket).await?.stream(METHOD).await?;
        if stream.message().await.is_ok() {
            return Ok(stream);
        }
        ensure!(
            Instant::now() < deadline,
            "the agent does not serve the bench"
        );
        sleep(Duration::from_millis(20)).await;
    }
}
