//! The node itself: its folder, namespaces, network, Node object and Lease.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use super::images::Images;
use super::{Settings, server, text};
use crate::cluster::{Cluster, Tethered};
use crate::netns::NetNs;
use crate::wait;

const HEARTBEAT: Duration = Duration::from_secs(10);

/// The node's address, on the bridge of its pods; theirs count up from it.
pub(super) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

/// Where services live inside the node's namespace.
const SERVICES: &str = "10.96.0.0/16";

/// What pods, volumes and servers of one node share.
pub(super) struct Node {
    name: String,
    uid: Mutex<String>,
    labels: BTreeMap<String, String>,
    images: Images,
    client: Client,
    admin: Client,
    next_address: AtomicU32,
    /// In seconds.
    ahead: AtomicI64,
    pods: Mutex<BTreeMap<String, Running>>,
    hosts: watch::Sender<String>,
    drivers: Mutex<BTreeMap<String, PathBuf>>,
    hold: Tethered,
    root: PathBuf,
    logs: PathBuf,
    // The last one: what uses it ends first.
    folder: TempDir,
}

/// A pod that runs here, for `/pods` and for port forwards.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) object: Value,
    pub(super) network: NetNs,
}

impl Node {
    pub(super) async fn new(cluster: &Cluster, settings: Settings) -> Result<Self> {
        let folder = crate::folder::fresh("sgn")?;
        let root = folder.path().join("root");
        for name in ["root/var/lib/kubelet/plugins_registry", "logs", "hosts"] {
            fs::create_dir_all(folder.path().join(name))?;
        }
        fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        crate::cluster::remove_at_end(folder.path())?;
        let ready = folder.path().join("held");
        let hold = Tethered::shim(
            "node",
            ["hold-node".into(), root.clone(), ready.clone()],
            &folder.path().join("logs/node.log"),
        )?;
        let hold = held(hold, &ready).await?;
        let user = format!("system:node:{}", settings.name);
        let node = Self {
            client: cluster.client_as(&user, &["system:nodes"])?,
            admin: cluster.client()?,
            name: settings.name,
            uid: Mutex::default(),
            labels: settings.labels,
            images: settings.images,
            next_address: AtomicU32::new(u32::from(NODE_ADDRESS) + 1),
            ahead: AtomicI64::default(),
            pods: Mutex::default(),
            hosts: watch::channel(String::new()).0,
            drivers: Mutex::default(),
            hold,
            root,
            logs: folder.path().join("logs"),
            folder,
        };
        node.network()
            .ip(vec![
                "link set lo up".to_owned(),
                "link add br0 type bridge".to_owned(),
                format!("addr add {NODE_ADDRESS}/16 dev br0"),
                "link set br0 up".to_owned(),
                format!("route add local {SERVICES} dev lo"),
            ])
            .await
            .context("make the node's network")?;
        Ok(node)
    }

    /// Makes the Node object, with the node's own credentials.
    pub(super) async fn register(&self) -> Result<()> {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client());
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.name, "labels": self.labels()},
        });
        let node = nodes
            .create(&PostParams::default(), &serde_json::from_value(node)?)
            .await
            .context("register the node")?;
        *lock(&self.uid) = node.metadata.uid.unwrap_or_default();
        let now = Timestamp::now().to_string();
        let size = json!({"cpu": "8", "memory": "16Gi", "pods": "110"});
        let status = json!({"status": {
            "capacity": size, "allocatable": size,
            "addresses": [
                {"type": "InternalIP", "address": NODE_ADDRESS},
                {"type": "Hostname", "address": self.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": server::PORT}},
            "nodeInfo": {
                "kubeletVersion": crate::cluster::KUBERNETES_VERSION,
                "containerRuntimeVersion": "containerd://e2e", "operatingSystem": "linux",
                "architecture": "amd64", "osImage": "e2e", "kernelVersion": "", "machineID": "",
                "systemUUID": "", "bootID": "", "kubeProxyVersion": "",
            },
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady",
                "message": "the test kubelet runs", "lastHeartbeatTime": now, "lastTransitionTime": now,
            }],
        }});
        nodes
            .patch_status(&self.name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .context("say that the node is ready")?;
        Ok(())
    }

    /// A network namespace for a pod, and its address.
    pub(super) async fn sandbox(&self, uid: &str) -> Result<(Tethered, Ipv4Addr)> {
        let ready = self.folder.path().join(format!("held-{uid}"));
        let log = self.logs().join("node.log");
        let hold = Tethered::shim("pod", ["hold-pod".into(), ready.clone()], &log)?;
        let hold = held(hold, &ready).await?;
        let address = Ipv4Addr::from(self.next_address.fetch_add(1, Ordering::Relaxed));
        let pid = hold.pid();
        self.network()
            .ip(vec![
                format!("link add v{pid} type veth peer name eth0 netns {pid}"),
                format!("link set v{pid} master br0 up"),
            ])
            .await?;
        NetNs::of(pid)
            .ip(vec![
                "link set lo up".to_owned(),
                format!("addr add {address}/16 dev eth0"),
                "link set eth0 up".to_owned(),
                format!("route add default via {NODE_ADDRESS}"),
            ])
            .await?;
        Ok((hold, address))
    }

    /// The time by which tokens are renewed.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.ahead.load(Ordering::Relaxed))
    }

    pub(super) fn go_ahead(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(super) fn network(&self) -> NetNs {
        NetNs::of(self.hold.pid())
    }

    pub(super) fn mount_namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/mnt", self.hold.pid()))
    }

    /// With the node's own rights.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// For what other programs of a cluster do: scheduling, services.
    pub(super) fn admin(&self) -> Client {
        self.admin.clone()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn uid(&self) -> String {
        lock(&self.uid).clone()
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert("kubernetes.io/hostname".to_owned(), self.name.clone());
        labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
        labels
    }

    pub(super) fn images(&self) -> &Images {
        &self.images
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    pub(super) fn pods(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        lock(&self.pods)
    }

    pub(super) fn drivers(&self) -> MutexGuard<'_, BTreeMap<String, PathBuf>> {
        lock(&self.drivers)
    }

    /// The lines of `/etc/hosts` for services.
    pub(super) fn hosts(&self) -> &watch::Sender<String> {
        &self.hosts
    }

    /// The pod of this name.
    pub(super) fn running(&self, namespace: &str, name: &str) -> Result<Running> {
        let pods = self.pods();
        let is_it = |running: &&Running| {
            text(&running.object, "/metadata/namespace").is_ok_and(|is| is == namespace)
                && text(&running.object, "/metadata/name").is_ok_and(|is| is == name)
        };
        let found = pods.values().find(is_it);
        let found = found.with_context(|| format!("no pod {namespace}/{name} runs here"))?;
        Ok(found.clone())
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// Renews a node's Lease, without which the controllers take the node for dead.
pub(crate) async fn keep_alive(client: Client, name: String) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let ours = PatchParams::apply("kubelet").force();
    loop {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name},
            "spec": {
                "holderIdentity": name, "leaseDurationSeconds": 40,
                "renewTime": format!("{:.6}", Timestamp::now()),
            },
        });
        // What fails is tried again with the next beat.
        let _ = leases.patch(&name, &ours, &Patch::Apply(&lease)).await;
        tokio::time::sleep(HEARTBEAT).await;
    }
}

/// Waits until the holder has made its namespaces.
async fn held(mut hold: Tethered, ready: &Path) -> Result<Tethered> {
    wait::until("a namespace to be held", || {
        let alive = hold.check_running();
        async move {
            alive?;
            Ok(ready.exists().then_some(()))
        }
    })
    .await?;
    Ok(hold)
}

/// Tells `changed` all objects of a kind, whenever one changes; ends never.
pub(super) async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    mut changed: impl FnMut(Vec<Arc<K>>),
) where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync,
    K: 'static,
{
    let (objects, writer) = reflector::store::<K>();
    let stream = watcher(api, config).default_backoff().reflect(writer);
    let mut stream = pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) | Err(_) => {}
            Ok(_) => changed(objects.state()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
