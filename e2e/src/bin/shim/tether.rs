//! Processes and folders that end with the test that made them.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// How often a folder is tried to be removed while its users are still ending.
const TRIES: u32 = 20;

pub(crate) fn become_program(args: &[OsString]) -> Result<()> {
    let (program, args) = args.split_first().context("a program")?;
    with_parent()?;
    let error = Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("start {}", program.display()))
}

/// From now on the kernel kills this process when its parent ends.
pub(crate) fn with_parent() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("ask to end with the parent")
}

pub(crate) fn remove_at_end(args: &[OsString]) -> Result<()> {
    let folder = Path::new(args.first().context("a folder")?);
    let mut nothing = Vec::new();
    io::stdin().lock().read_to_end(&mut nothing)?;
    let cgroups = fs::read_to_string(folder.join("cgroups")).unwrap_or_default();
    for _ in 0..TRIES {
        // The innermost were noted last.
        for group in cgroups.lines().rev() {
            let _ = fs::remove_dir(group);
        }
        if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(250));
    }
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}
