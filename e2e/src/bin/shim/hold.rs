//! Holding namespaces open: the node's mounts and network, and each pod's network. They end with their holder.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::pause;

use crate::tether;

/// `shim hold-node ROOT READY`: a mount namespace in which only ROOT shares its mounts, and a network namespace.
pub(crate) fn node(args: &[OsString]) -> Result<()> {
    let [root, ready] = args else {
        anyhow::bail!("hold-node takes a folder and a file");
    };
    tether::with_parent()?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("make namespaces")?;
    let (nothing, root) = (None::<&str>, Path::new(root));
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(nothing, "/", nothing, private, nothing).context("part from the machine's mounts")?;
    mount(Some(root), root, nothing, MsFlags::MS_BIND, nothing).context("mount the root")?;
    mount(nothing, root, nothing, MsFlags::MS_SHARED, nothing).context("share the root")?;
    wait_for_the_end(Path::new(ready))
}

/// `shim hold-pod READY`: a network namespace.
pub(crate) fn pod(args: &[OsString]) -> Result<()> {
    let ready = args.first().context("a file")?;
    tether::with_parent()?;
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
    wait_for_the_end(Path::new(ready))
}

fn wait_for_the_end(ready: &Path) -> Result<()> {
    fs::write(ready, "").with_context(|| format!("write {}", ready.display()))?;
    loop {
        pause();
    }
}
