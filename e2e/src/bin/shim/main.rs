//! `shim`: the small steps between a test and the processes it starts, which must happen in the new process itself.
//!
//! ```text
//! shim tether PROGRAM ARGS…       become PROGRAM, killed by the kernel when the parent ends
//! shim remove-at-end FOLDER       wait for the end of standard input, then remove FOLDER and the cgroups it lists
//! shim hold-node ROOT READY       hold a node's mount and network namespaces
//! shim hold-pod READY             hold a pod's network namespace
//! shim run SPEC                   become the container of this file
//! shim enter PID SPEC COMMAND…    run a command in a running container
//! shim app PORT                   the app of the tests
//! shim get HOST:PORT PATH         a client of it
//! shim health PORT                a gRPC server of nothing but its health
//! shim svid FOLDER                whose SVID the files in FOLDER are, if they fit
//! ```

#![expect(clippy::print_stderr, reason = "a program's last words")]

mod app;
mod container;
mod hold;
mod tether;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let part = args.next().context("say which part to play")?;
    let rest: Vec<OsString> = args.collect();
    match part.to_str() {
        Some("tether") => tether::become_program(&rest),
        Some("remove-at-end") => tether::remove_at_end(&rest),
        Some("hold-node") => hold::node(&rest),
        Some("hold-pod") => hold::pod(&rest),
        Some("run") => container::run(&rest),
        Some("enter") => container::enter(&rest),
        Some("app") => app::serve(&rest.first().context("a port")?.to_string_lossy()),
        Some("health") => app::health(&rest.first().context("a port")?.to_string_lossy()),
        Some("svid") => app::svid(Path::new(rest.first().context("a folder")?)),
        Some("get") => match &rest[..] {
            [host, path] => app::get(&host.to_string_lossy(), &path.to_string_lossy()),
            _ => bail!("get takes HOST:PORT and a path"),
        },
        _ => bail!("no part is called {}", part.display()),
    }
}
