//! Row g: registering entries, over the private socket, beside bare inserts into a database of the same schema.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{BatchCreateEntryRequest, BatchDeleteEntryRequest};
use proto::spire::api::types;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Figure, Report};
use crate::{Domain, Settings};

/// Entries in each case.
const TOTAL: usize = 8000;

/// Entries per call, callers.
const CASES: [(usize, usize); 3] = [(500, 1), (50, 1), (500, 8)];

/// Measures the row.
///
/// # Errors
/// When something does not run.
pub async fn run(report: &mut Report) -> Result<()> {
    let mut domain = Domain::new(Settings {
        server_extra: "audit_log_enabled = false".to_owned(),
        ..Settings::default()
    })?;
    domain.start_server().await?;
    let socket = domain.server_socket();
    for (number, (batch, callers)) in CASES.into_iter().enumerate() {
        let limit = bare_inserts(&domain, number, batch).await?;
        let first = number * TOTAL;
        let created = timed(callers, batch, first, |range| create(socket.clone(), range)).await?;
        let case = format!(
            "BatchCreateEntry, {batch} per call, {callers} caller{}, SQLite",
            if callers == 1 { "" } else { "s" }
        );
        report.add(figure(case, created, Some(limit)));
    }
    let deleted = timed(1, 500, 0, |range| delete(socket.clone(), range)).await?;
    report.add(figure(
        "BatchDeleteEntry, 500 per call, 1 caller, SQLite".to_owned(),
        deleted,
        None,
    ));
    Ok(())
}

fn figure(case: String, value: f64, limit: Option<f64>) -> Figure {
    Figure {
        row: "g",
        case,
        value,
        unit: "entries/s",
        limit,
        n: TOTAL,
    }
}

type Numbers = std::ops::Range<usize>;

/// Has callers do `work` on [`TOTAL`] entries from `first` on, `batch` at a time; tells how many entries a second.
async fn timed<F, W>(callers: usize, batch: usize, first: usize, work: F) -> Result<f64>
where
    F: Fn(Vec<Numbers>) -> W,
    W: Future<Output = Result<()>> + Send + 'static,
{
    let calls: Vec<Numbers> = (first..first + TOTAL)
        .step_by(batch)
        .map(|from| from..(from + batch).min(first + TOTAL))
        .collect();
    let started = Instant::now();
    let mut running = JoinSet::new();
    for share in calls.chunks(calls.len().div_ceil(callers)) {
        running.spawn(work(share.to_vec()));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(per_second(started.elapsed().as_secs_f64()))
}

/// Creates entries `bench-{number}`, one call for each range.
pub(super) async fn create(socket: std::path::PathBuf, calls: Vec<Numbers>) -> Result<()> {
    let mut client = EntryClient::new(testkit::local_channel(&socket));
    for numbers in calls {
        let request = BatchCreateEntryRequest {
            entries: numbers.map(entry).collect(),
            output_mask: Some(types::EntryMask::default()),
        };
        let results = client
            .batch_create_entry(request)
            .await?
            .into_inner()
            .results;
        let good = results.iter().all(|result| {
            result
                .status
                .as_ref()
                .is_some_and(|status| status.code == 0)
        });
        ensure!(good, "an entry was refused");
    }
    Ok(())
}

async fn delete(socket: std::path::PathBuf, calls: Vec<Numbers>) -> Result<()> {
    let mut client = EntryClient::new(testkit::local_channel(&socket));
    for numbers in calls {
        let ids = numbers.map(|number| format!("bench-{number}")).collect();
        let request = BatchDeleteEntryRequest { ids };
        let results = client
            .batch_delete_entry(request)
            .await?
            .into_inner()
            .results;
        let good = results.iter().all(|result| {
            result
                .status
                .as_ref()
                .is_some_and(|status| status.code == 0)
        });
        ensure!(good, "an entry was not there");
    }
    Ok(())
}

fn entry(number: usize) -> types::Entry {
    let of = |path: String| {
        Some(types::Spiffeid {
            trust_domain: "example.org".to_owned(),
            path,
        })
    };
    let selectors = [
        format!("uid:{number}"),
        "gid:1000".to_owned(),
        "path:/usr/bin/workload".to_owned(),
    ];
    types::Entry {
        id: format!("bench-{number}"),
        spiffe_id: of(format!("/bench/{number}")),
        parent_id: of("/spire/agent/join_token/bench".to_owned()),
        selectors: selectors
            .map(|value| types::Selector {
                r#type: "unix".to_owned(),
                value,
            })
            .into(),
        ..types::Entry::default()
    }
}

/// How many entries a second Python's driver inserts into a fresh database beside the server's, `batch` per transaction.
async fn bare_inserts(domain: &Domain, number: usize, batch: usize) -> Result<f64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/bare_inserts.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(domain.path("server/datastore.sqlite3"))
        .arg(domain.path(&format!("bare-{number}.sqlite3")))
        .args([TOTAL.to_string(), batch.to_string()])
        .output()
        .await
        .context("start python3")?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "bare_inserts.py: {err}");
    Ok(per_second(out.trim().parse()?))
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn per_second(seconds: f64) -> f64 {
    TOTAL as f64 / seconds
}
