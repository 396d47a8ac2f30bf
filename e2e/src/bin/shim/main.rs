//! `shim`: the small steps between a test and the processes it starts, which must happen in the new process itself.
//!
//! ```text
//! shim tether PROGRAM ARGS…       become PROGRAM, killed by the kernel when the parent ends
//! shim remove-at-end FOLDER       wait for the end of standard input, then remove FOLDER
//! ```

#![expect(clippy::print_stderr, reason = "a program's last words")]

mod tether;

use std::ffi::OsString;
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
        _ => bail!("no part is called {}", part.display()),
    }
}
