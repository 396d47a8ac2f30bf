//! What a process uses.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Resident memory, in KiB.
///
/// # Errors
/// When the process is not there.
pub fn resident(pid: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).context("Rss")
}

/// Time on a core so far, of all threads, in seconds.
///
/// # Errors
/// When the process is not there.
pub fn on_core(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended meanwhile.
        let Ok(line) = fs::read_to_string(thread?.path().join("schedstat")) else {
            continue;
        };
        let first = line.split_whitespace().next().context("schedstat")?;
        nanoseconds += first.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// Lets this process and its children open as many files as the system allows.
///
/// # Errors
/// When the system refuses.
pub fn raise_open_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
