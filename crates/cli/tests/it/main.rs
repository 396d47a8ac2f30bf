//! The built binary: its commands, its names, its exit codes, and what it says about broken configurations.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod client;
mod configs;
mod program;

use std::path::Path;
use std::process::{Command, Output};

const SIGNET: &str = env!("CARGO_BIN_EXE_signet");

/// Runs `program` and waits for its end.
fn run(program: impl AsRef<Path>, args: &[&str]) -> Output {
    Command::new(program.as_ref()).args(args).output().unwrap()
}

/// What a command said on standard error; it must have failed with exit code 1 and without a panic.
fn refusal(args: &[&str]) -> String {
    let output = run(SIGNET, args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}
