//! CSI volumes: drivers that register themselves in the plugin folder, and their `NodePublishVolume` for volumes that
//! pods name inline.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::node::Node;
use super::{list, text, volumes};

const LOOK_EVERY: Duration = Duration::from_millis(200);
const CALL_BOUND: Duration = Duration::from_secs(10);

/// Takes in drivers that appear in the plugin folder, as the kubelet's plugin watcher does.
pub(super) async fn run(node: Arc<Node>) {
    let folder = node.root().join("var/lib/kubelet/plugins_registry");
    loop {
        let found: Vec<PathBuf> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "sock")
            })
            .collect();
        for socket in found {
            // One that does not answer yet is asked again.
            let _ = register(&node, &socket).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn register(node: &Node, socket: &Path) -> Result<()> {
    let info: PluginInfo = call(
        socket,
        "/pluginregistration.Registration/GetInfo",
        Nothing {},
    )
    .await?;
    let known = node.drivers().contains_key(&info.name);
    if known || info.kind != "CSIPlugin" {
        return Ok(());
    }
    let endpoint = inside(node, Path::new(&info.endpoint));
    let about: NodeInfo = call(&endpoint, "/csi.v1.Node/NodeGetInfo", Nothing {}).await?;
    let problem = match about.node_id == node.name() {
        true => String::new(),
        false => format!("node {} calls itself {}", node.name(), about.node_id),
    };
    if problem.is_empty() {
        announce(node, &info.name).await?;
    }
    let status = RegistrationStatus {
        plugin_registered: problem.is_empty(),
        error: problem.clone(),
    };
    let path = "/pluginregistration.Registration/NotifyRegistrationStatus";
    let _: Nothing = call(socket, path, status).await?;
    if problem.is_empty() {
        node.drivers().insert(info.name, endpoint);
    }
    Ok(())
}

/// The node's CSINode object, with the node's own rights.
async fn announce(node: &Node, driver: &str) -> Result<()> {
    let nodes: Api<CSINode> = Api::all(node.client());
    let object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
        "metadata": {"name": node.name(), "ownerReferences": [{
            "apiVersion": "v1", "kind": "Node", "name": node.name(), "uid": node.uid(),
        }]},
        "spec": {"drivers": [{"name": driver, "nodeID": node.name(), "topologyKeys": null}]},
    });
    if nodes.get_opt(node.name()).await?.is_none() {
        let object = serde_json::from_value(object)?;
        nodes.create(&PostParams::default(), &object).await?;
    }
    Ok(())
}

/// Has the volume's driver mount it at `place`, a path as the node's programs see it.
pub(super) async fn publish(
    node: &Node,
    pod: &Value,
    source: &Value,
    place: &Path,
) -> Result<PathBuf> {
    let driver = text(source, "/driver")?;
    let drivers: Api<CSIDriver> = Api::all(node.client());
    let about = drivers.get(driver).await?.spec;
    let modes = about.volume_lifecycle_modes.unwrap_or_default();
    ensure!(
        modes.iter().any(|mode| mode == "Ephemeral"),
        "driver {driver} is not for inline volumes"
    );
    let socket = node.drivers().get(driver).cloned();
    let socket = socket.with_context(|| format!("no driver {driver} is registered"))?;
    let target = place.join("mount");
    fs::create_dir_all(inside(node, place))?;
    let mut context = attributes(source);
    if about.pod_info_on_mount == Some(true) {
        let account = pod["spec"]["serviceAccountName"].as_str();
        for (name, value) in [
            ("pod.name", text(pod, "/metadata/name")?),
            ("pod.namespace", text(pod, "/metadata/namespace")?),
            ("pod.uid", text(pod, "/metadata/uid")?),
            ("serviceAccount.name", account.unwrap_or("default")),
            ("ephemeral", "true"),
        ] {
            context.insert(format!("csi.storage.k8s.io/{name}"), value.to_owned());
        }
    }
    let request = Publish {
        volume_id: volume_id(&target),
        target_path: target.display().to_string(),
        volume_capability: Some(Capability {
            mount: Some(Nothing {}),
            access_mode: Some(AccessMode { mode: 1 }),
        }),
        readonly: source["readOnly"] == true,
        volume_context: context,
    };
    let _: Nothing = call(&socket, "/csi.v1.Node/NodePublishVolume", request).await?;
    Ok(inside(node, &target))
}

/// Has the drivers take the pod's volumes away.
pub(super) async fn unpublish(node: &Node, pod: &Value) {
    let uid = text(pod, "/metadata/uid").unwrap_or_default();
    let folder = volumes::folder(uid).join("volumes/kubernetes.io~csi");
    for volume in list(pod, "/spec/volumes") {
        let driver = volume.pointer("/csi/driver").and_then(Value::as_str);
        let Some(driver) = driver else { continue };
        let Some(socket) = node.drivers().get(driver).cloned() else {
            continue;
        };
        let name = text(volume, "/name").unwrap_or_default();
        let target = folder.join(name).join("mount");
        let request = Unpublish {
            volume_id: volume_id(&target),
            target_path: target.display().to_string(),
        };
        let path = "/csi.v1.Node/NodeUnpublishVolume";
        let _: Result<Nothing> = call(&socket, path, request).await;
    }
}

fn volume_id(target: &Path) -> String {
    format!("csi-{}", target.display().to_string().replace('/', "-"))
}

fn attributes(source: &Value) -> HashMap<String, String> {
    let given = source["volumeAttributes"].as_object();
    given
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn inside(node: &Node, path: &Path) -> PathBuf {
    node.root().join(path.strip_prefix("/").unwrap_or(path))
}

async fn call<Q, A>(socket: &Path, path: &'static str, request: Q) -> Result<A>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let mut client = tonic::client::Grpc::new(channel(socket)?);
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let path = PathAndQuery::from_static(path);
    let name = path.to_string();
    let answer = async {
        client.ready().await.context("connect to the driver")?;
        let answer = client.unary(tonic::Request::new(request), path, codec);
        answer.await.with_context(|| name.clone())
    };
    let answer = tokio::time::timeout(CALL_BOUND, answer).await;
    Ok(answer
        .with_context(|| format!("{name} hangs"))??
        .into_inner())
}

fn channel(socket: &Path) -> Result<Channel> {
    let socket = socket.to_owned();
    let endpoint = Endpoint::from_static("http://driver.invalid");
    Ok(
        endpoint.connect_with_connector_lazy(service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        })),
    )
}

// The few messages a kubelet needs of the plugin registration and CSI 1.x protocols.

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct PluginInfo {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    endpoint: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    plugin_registered: bool,
    #[prost(string, tag = "2")]
    error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NodeInfo {
    #[prost(string, tag = "1")]
    node_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Publish {
    #[prost(string, tag = "1")]
    volume_id: String,
    #[prost(string, tag = "4")]
    target_path: String,
    #[prost(message, optional, tag = "5")]
    volume_capability: Option<Capability>,
    #[prost(bool, tag = "6")]
    readonly: bool,
    #[prost(map = "string, string", tag = "8")]
    volume_context: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Capability {
    #[prost(message, optional, tag = "2")]
    mount: Option<Nothing>,
    #[prost(message, optional, tag = "3")]
    access_mode: Option<AccessMode>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AccessMode {
    #[prost(int32, tag = "1")]
    mode: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Unpublish {
    #[prost(string, tag = "1")]
    volume_id: String,
    #[prost(string, tag = "2")]
    target_path: String,
}
