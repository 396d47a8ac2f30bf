//! Volumes with real mounts, in a mount namespace of each test's own.

mod calls;
mod label;
mod volumes;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use tempfile::TempDir;

use super::*;

/// Runs `test` where its mounts are its own. Says so when this user may not.
fn in_own_mounts(test: impl FnOnce() + Send + 'static) {
    if !geteuid().is_root() {
        testkit::skipped("mounting needs root; run this test as root");
        return;
    }
    // A thread of its own has a mount namespace of its own, and so have the threads it starts.
    let thread = std::thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            testkit::skipped(format_args!("no mount namespace can be made here: {error}"));
            return;
        }
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
        test();
    });
    thread.join().unwrap();
}

/// A node: an agent's folder, and a pod's volume.
struct Node {
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "agent",
            "registration",
            "pods/uid-1/volumes/kubernetes.io~csi/spiffe",
        ] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn target(&self) -> PathBuf {
        self.path("pods/uid-1/volumes/kubernetes.io~csi/spiffe/mount")
    }

    fn mounts(&self) -> Mounts {
        Mounts::new(self.path("agent"), self.path("pods"))
    }

    /// How many mounts there are on the volume.
    fn mounted(&self) -> usize {
        let target = self.target();
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let target = target.to_str().unwrap();
        let at = |line: &&str| line.split(' ').nth(4) == Some(target);
        mounts.lines().filter(at).count()
    }

    fn config(&self) -> Config {
        Config {
            driver_name: "csi.spiffe.io".to_owned(),
            node_id: "node-1".to_owned(),
            socket: self.path("csi.sock"),
            kubelet_socket_path: "/var/lib/kubelet/plugins/csi.spiffe.io/csi.sock".into(),
            registration_dir: self.path("registration"),
            pods_dir: self.path("pods"),
            workload_api_socket_dir: self.path("agent"),
            selinux: None,
            health: None,
            metrics: None,
        }
    }
}
