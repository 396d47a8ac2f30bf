//! The k8s attestor, against a real process in a cgroup named as a kubelet names it. Making one needs root.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use agent::config::{K8sAttestorConfig, KubeletPort, WorkloadAttestors};
use agent::workload::Attestors;
use identity::Selector;
use nix::unistd::geteuid;
use runtime::Peer;

use crate::attestation::Caller;

const UID: &str = "7b5e35e2-1e16-4f5b-a7e5-8cc3ca0d5f1a";

/// Where a hierarchy is writable: version 2, or one of version 1.
const TREES: &[&str] = &[
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/pids",
    "/sys/fs/cgroup",
];

/// Cgroups of a pod and its container; gone when dropped.
struct Cgroup(Vec<PathBuf>);

impl Cgroup {
    fn make(container: &str) -> Option<Self> {
        let tree = TREES
            .iter()
            .map(Path::new)
            .find(|tree| tree.join("cgroup.procs").exists())?;
        let mut folders = Vec::new();
        let mut folder = tree.to_owned();
        for name in ["kubepods", "besteffort", &format!("pod{UID}"), container] {
            folder.push(name);
            if fs::create_dir(&folder).is_ok() {
                folders.push(folder.clone());
            }
        }
        folder
            .join("cgroup.procs")
            .exists()
            .then_some(Self(folders))
    }

    fn add(&self, process: &Child) {
        let procs = self.0.last().unwrap().join("cgroup.procs");
        fs::write(procs, process.id().to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // Another test may use the upper ones.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// A kubelet on its read-only port: answers `pods` to one request.
fn kubelet(pods: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap();
        assert!(request[..length].starts_with(b"GET /pods HTTP/1.1\r\n"));
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{pods}",
            pods.len()
        )
        .unwrap();
    });
    port
}

#[tokio::test]
async fn a_process_is_known_by_its_pod_and_container() {
    let container = format!("{:064x}", std::process::id());
    let cgroup = geteuid()
        .is_root()
        .then(|| Cgroup::make(&container))
        .flatten();
    let Some(cgroup) = cgroup else {
        println!(
            "skipped: cgroups cannot be made here; that needs root and a writable /sys/fs/cgroup"
        );
        return;
    };
    let caller = Caller::start("end");
    cgroup.add(&caller.child);
    let pods = serde_json::json!({"items": [{
        "metadata": {"uid": UID, "name": "web", "namespace": "shop"},
        "spec": {"serviceAccountName": "web", "nodeName": "n"},
        "status": {"containerStatuses": [
            {"name": "web", "image": "web:1", "containerID": format!("containerd://{container}")}
        ]},
    }]});
    let config = K8sAttestorConfig {
        port: KubeletPort::ReadOnly(kubelet(pods.to_string())),
        node_name: None,
        node_name_env: String::new(),
        max_poll_attempts: 1,
        poll_retry_interval: Duration::from_millis(1),
        disable_container_selectors: false,
    };
    let k8s = Some(config);
    let attestors = Attestors::new(&WorkloadAttestors { unix: None, k8s });
    let selectors = attestors.attest(&caller.peer).await.unwrap();
    for selector in [
        "k8s:ns:shop",
        "k8s:sa:web",
        "k8s:pod-name:web",
        "k8s:container-name:web",
        "k8s:container-image:web:1",
    ] {
        let selector = Selector::parse(selector).unwrap();
        assert!(selectors.contains(&selector), "{selectors:?}");
    }
    // Who is in no pod has nothing to fear from the kubelet, which is gone by now.
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let here = attestors.attest(&Peer::of(&ours).unwrap()).await.unwrap();
    assert!(here.is_empty(), "{here:?}");
    // It leaves its cgroup, which can be removed then.
    drop(caller);
}
