//! `make bench`: prints the figures as a table, and writes them to bench-report.json. With names of rows as arguments
//! (`c`), only those.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own, which speaks through its output"
)]

use std::path::Path;

use anyhow::Result;
use e2e::bench::{Report, agent, controller, entries, floor, idle, issue, streams, usage, webhook};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    usage::raise_open_files()?;
    if let [word, socket, length] = &arguments[..]
        && word == "floor"
    {
        return floor::serve(Path::new(socket), length.parse()?).await;
    }
    let wanted = |row: &str| arguments.is_empty() || arguments.iter().any(|one| one == row);
    let mut report = Report::default();
    if wanted("a1") {
        eprintln!("row a1: issuing X.509-SVIDs");
        issue::x509(&mut report).await?;
    }
    if wanted("i") {
        eprintln!("row i: minting JWT-SVIDs");
        issue::jwt(&mut report).await?;
    }
    if wanted("c") || wanted("e") {
        eprintln!("rows c and e: streams");
        streams::run(&mut report).await?;
    }
    if wanted("b") {
        eprintln!("row b: start-up of an agent");
        agent::starts(&mut report).await?;
    }
    if wanted("k") {
        eprintln!("row k: from an entry to its SVID");
        agent::entries(&mut report).await?;
    }
    if wanted("g") {
        eprintln!("row g: registering entries");
        entries::run(&mut report).await?;
    }
    if wanted("h") {
        eprintln!("row h: the injector's webhook");
        webhook::run(&mut report).await?;
        eprintln!("row h: the controller, from a pod to its entry and its SVID");
        if let Some(why) = controller::run(&mut report).await? {
            eprintln!("row h, SVIDs in pods: not run: {why}");
        }
    }
    if wanted("j") {
        eprintln!("row j: the programs with nothing to do");
        idle::run(&mut report).await?;
    }
    print!("{report}");
    report.write(Path::new("bench-report.json"))
}
