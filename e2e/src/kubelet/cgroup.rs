//! Cgroups with a kubelet's names, in the unified tree and in the v1 trees that need no settings first.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

const BASE: &str = "/sys/fs/cgroup";

/// Where trees are mounted: v2 alone, or beside v1.
const TREES: [&str; 5] = ["", "unified", "systemd", "pids", "memory"];

/// The folders of one container; removed when dropped, with whatever still runs in them.
#[derive(Debug)]
pub(super) struct Cgroups {
    folders: Vec<PathBuf>,
}

/// `kubepods/{class}/pod{uid}` as the cgroupfs driver of a kubelet names it.
pub(super) fn pod_path(class: &str, uid: &str) -> PathBuf {
    match class {
        "Guaranteed" => PathBuf::from(format!("kubepods/pod{uid}")),
        class => PathBuf::from(format!("kubepods/{}/pod{uid}", class.to_lowercase())),
    }
}

/// The trees of this machine.
pub(super) fn trees() -> Vec<PathBuf> {
    let trees = TREES.iter().map(|name| Path::new(BASE).join(name));
    trees
        .filter(|tree| tree.join("cgroup.procs").is_file())
        .collect()
}

impl Cgroups {
    /// Names the folders and notes them in `list`; the container makes them as it enters.
    pub(super) fn new(pod: &Path, container: &str, list: &Path) -> Result<Self> {
        let mut file = fs::File::options().create(true).append(true).open(list)?;
        let mut folders = Vec::new();
        for tree in trees() {
            let folder = tree.join(pod).join(container);
            writeln!(file, "{}\n{}", tree.join(pod).display(), folder.display())
                .with_context(|| format!("write {}", list.display()))?;
            folders.push(folder);
        }
        Ok(Self { folders })
    }

    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Kills what runs in them: a container's children have no other parent here.
    pub(super) fn kill(&self) {
        for folder in &self.folders {
            if fs::write(folder.join("cgroup.kill"), "1").is_ok() {
                return;
            }
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        const TRIES: u32 = 50;
        self.kill();
        for folder in &self.folders {
            for _ in 0..TRIES {
                if fs::remove_dir(folder).is_ok() || !folder.exists() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            // The pod's, its class's and kubepods, when this was their last.
            for parent in folder.ancestors().skip(1).take(3) {
                if fs::remove_dir(parent).is_err() || parent.ends_with("kubepods") {
                    break;
                }
            }
        }
    }
}
