//! A test kubelet: plays one node of a [`Cluster`] with that node's own credentials. It schedules pods onto itself, mounts
//! their volumes, starts their containers as processes (an image's name leads to a local program), probes them, writes
//! their statuses and serves `/pods` over TLS.
//!
//! What a container gets: a cgroup with a kubelet's name, a mount namespace with a root of its own, the pod's network
//! namespace (a veth pair to a bridge in the node's namespace), its user. What it does not get: a process namespace,
//! seccomp filters, dropped capabilities of root, limits. Services are relayed by this process, names are in
//! `/etc/hosts`. No address is added to the machine's own network: `hostNetwork` means the node's namespace.

mod cgroup;
mod container;
mod csi;
mod environment;
mod forward;
mod images;
mod node;
mod pod;
mod probe;
mod scheduler;
mod server;
mod services;
pub mod spec;
mod status;
mod tokens;
mod volumes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cluster::{self, Cluster};
use crate::load::{self, Answer};
use crate::netns::NetNs;
use crate::ports;
use crate::wait::PATIENCE;

pub use images::{Image, Images};

pub(crate) use node::keep_alive;

use node::Node;

/// What differs between one node and another.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name.
    pub name: String,
    /// What containers may be.
    pub images: Images,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "node-1".to_owned(),
            images: Images::default(),
            labels: BTreeMap::new(),
        }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Kubelet {
    node: Arc<Node>,
    port: u16,
    stop: watch::Sender<bool>,
    pods: JoinSet<()>,
    tasks: JoinSet<()>,
}

/// Why this machine or user cannot run pods; none when it can.
#[must_use]
pub fn unable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("running pods takes root: namespaces, mounts and cgroups".to_owned());
    }
    if cgroup::trees().is_empty() {
        return Some("no cgroup tree is mounted under /sys/fs/cgroup".to_owned());
    }
    let ip = Command::new("ip")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !ip.is_ok_and(|status| status.success()) {
        return Some("`ip` is missing (Debian: apt-get install iproute2)".to_owned());
    }
    let namespaces = Command::new("unshare")
        .args(["--mount", "--net", "true"])
        .stderr(Stdio::null())
        .status();
    let able = namespaces.is_ok_and(|status| status.success());
    if !able {
        return Some("this user may not make mount and network namespaces".to_owned());
    }
    cluster::unable().map(str::to_owned)
}

impl Kubelet {
    /// Registers the node and starts to run what is scheduled onto it.
    ///
    /// # Errors
    /// When a part of the node cannot be made; see [`unable`].
    pub async fn start(cluster: &Cluster, settings: Settings) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let node = Arc::new(Node::new(cluster, settings).await?);
        let port = server::start(Arc::clone(&node), cluster, &mut tasks).await?;
        node.register().await?;
        cluster.lead_into(node.network());
        tasks.spawn(keep_alive(node.client(), node.name().to_owned()));
        tasks.spawn(scheduler::run(Arc::clone(&node)));
        tasks.spawn(services::run(Arc::clone(&node), cluster.port()));
        tasks.spawn(csi::run(Arc::clone(&node)));
        let (stop, stopped) = watch::channel(false);
        let mut pods = JoinSet::new();
        pods.spawn(run_pods(Arc::clone(&node), stopped));
        Ok(Self {
            node,
            port,
            stop,
            pods,
            tasks,
        })
    }

    /// What `/` of the node is on this machine: where its `hostPath` volumes are.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.node.root()
    }

    /// The folder of the containers' logs: `{namespace}_{pod}_{container}.log`.
    #[must_use]
    pub fn logs(&self) -> &Path {
        self.node.logs()
    }

    /// The port of `/pods` on the machine's loopback; in the node's network it is 10250.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The UID of the Node object.
    #[must_use]
    pub fn uid(&self) -> String {
        self.node.uid()
    }

    /// A port on loopback that leads to this port of the pod, as `kubectl port-forward`: on the pod's own loopback.
    ///
    /// # Errors
    /// When the pod does not run here.
    pub async fn forward(&self, namespace: &str, pod: &str, port: u16) -> Result<SocketAddr> {
        forward::start(&self.node, namespace, pod, port).await
    }

    /// One plain GET from the node, as from a kubelet or from a stranger in the node's network.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn get(&self, address: SocketAddr, path: &str) -> Result<Answer> {
        load::get_on(self.node.network().connect(address).await?, path).await
    }

    /// One plain GET from inside a pod, as its app would.
    ///
    /// # Errors
    /// When the pod does not run here, or nobody answers.
    pub async fn get_from(
        &self,
        (namespace, pod): (&str, &str),
        address: SocketAddr,
        path: &str,
    ) -> Result<Answer> {
        let network = self.node.running(namespace, pod)?.network;
        load::get_on(network.connect(address).await?, path).await
    }

    /// Has the node take it for so much later, when it renews tokens.
    pub fn go_ahead(&self, seconds: i64) {
        self.node.go_ahead(seconds);
    }

    /// Makes a port of this machine's loopback reachable at the same port of the node's loopback.
    ///
    /// # Errors
    /// When the port is taken there.
    pub async fn reach_machine(&mut self, port: u16) -> Result<()> {
        let listener = self.node.network().listen(ports::local(port)).await?;
        self.tasks
            .spawn(forward::pass(listener, NetNs::machine(), port));
        Ok(())
    }

    /// Ends every pod's processes and everything that was made for them. The pods' objects stay.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let all = async { while self.pods.join_next().await.is_some() {} };
        let _ = timeout(PATIENCE, all).await;
        self.tasks.shutdown().await;
    }
}

/// One task per pod of this node, told by a watch of its object; none means that it is gone.
async fn run_pods(node: Arc<Node>, mut stopped: watch::Receiver<bool>) {
    let api: Api<Pod> = Api::all(node.client());
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", node.name()));
    let mut running: BTreeMap<String, watch::Sender<Option<Value>>> = BTreeMap::new();
    let mut workers = JoinSet::new();
    let following = node::follow(api, mine, |pods: Vec<Arc<Pod>>| {
        let mut seen = BTreeMap::new();
        for pod in pods {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if let Ok(pod) = serde_json::to_value(&*pod) {
                seen.insert(uid, pod);
            }
        }
        running.retain(|uid, object| {
            let here = seen.contains_key(uid);
            if !here {
                let _ = object.send(None);
            }
            here
        });
        for (uid, pod) in seen {
            if let Some(object) = running.get(&uid) {
                object.send_replace(Some(pod));
            } else {
                let (object, updates) = watch::channel(Some(pod));
                workers.spawn(pod::run(Arc::clone(&node), updates));
                running.insert(uid, object);
            }
        }
    });
    tokio::select! {
        () = following => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    for object in running.values() {
        let _ = object.send(None);
    }
    while workers.join_next().await.is_some() {}
}

/// A text at a JSON pointer.
fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.with_context(|| format!("{pointer} is missing"))
}

/// The elements of a list at a JSON pointer; none when there is no list.
fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
