//! What the cluster runs, asked again from time to time: nodes come and go, and are upgraded.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use runtime::Tasks;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::inject::{Rules, Versions};

/// Nodes in one answer: each has a long status, and there may be thousands.
const NODES: u32 = 100;
/// What the API server has not told by then stays as it was known.
const ASKING: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_secs(600);

/// The rules with what the cluster runs, from now on and until shutdown.
pub(super) async fn keep(
    mut rules: Rules,
    client: Client,
    tasks: &Tasks,
) -> watch::Receiver<Arc<Rules>> {
    look(&client, &mut rules.cluster).await;
    let (newest, receiver) = watch::channel(Arc::new(rules));
    let shutdown = tasks.shutdown();
    tasks.spawn("versions", async move {
        loop {
            tokio::select! {
                () = sleep(EVERY) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            let mut cluster = newest.borrow().cluster;
            tokio::select! {
                () = look(&client, &mut cluster) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            newest.send_if_modified(|rules| {
                let is_new = rules.cluster != cluster;
                if is_new {
                    tracing::info!(?cluster, "the cluster's versions have changed");
                    Arc::make_mut(rules).cluster = cluster;
                }
                is_new
            });
        }
    });
    receiver
}

async fn look(client: &Client, versions: &mut Versions) {
    if timeout(ASKING, ask(client, versions)).await.is_err() {
        tracing::warn!("the API server does not tell in time what runs in the cluster");
    }
}

async fn ask(client: &Client, versions: &mut Versions) {
    match client.apiserver_version().await {
        Ok(version) => versions.server = Versions::parse(&version.git_version),
        Err(error) => tracing::warn!(%error, "the API server's version is not known"),
    }
    match oldest_kubelet(&Api::all(client.clone())).await {
        Ok(oldest) => versions.oldest_kubelet = oldest,
        Err(error) => {
            tracing::warn!(%error, "the nodes are not read; the API server's version stands for theirs");
        }
    }
}

async fn oldest_kubelet(nodes: &Api<Node>) -> Result<Option<(u32, u32)>, kube::Error> {
    let version = |node: &Node| {
        let info = node.status.as_ref()?.node_info.as_ref()?;
        Versions::parse(&info.kubelet_version)
    };
    let mut oldest = None;
    let mut page = ListParams::default().limit(NODES);
    loop {
        let listed = nodes.list(&page).await?;
        oldest = listed.items.iter().filter_map(version).chain(oldest).min();
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(oldest),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use kube::client::Body;
    use runtime::Supervisor;
    use serde_json::{Value, json};

    use super::*;

    fn node(version: &str) -> Value {
        json!({"metadata": {"name": version}, "status": {"nodeInfo": {
            "kubeletVersion": version, "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
        }}})
    }

    /// Version 1.37, and nodes in two pages; the second has an old one when told so.
    fn client(has_old: &Arc<AtomicBool>) -> Client {
        let has_old = Arc::clone(has_old);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let uri = request.uri().clone();
            let is_second = uri.query().unwrap_or_default().contains("continue=more");
            let object = match (uri.path(), is_second) {
                ("/version", _) => json!({
                    "major": "1", "minor": "37", "gitVersion": "v1.37.1", "gitCommit": "", "gitTreeState": "",
                    "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
                }),
                (_, false) => {
                    json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"continue": "more"}, "items": [node("v1.37.0")]})
                }
                (_, true) => {
                    let version = if has_old.load(Relaxed) {
                        "v1.28.3"
                    } else {
                        "v1.36.2"
                    };
                    json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"continue": ""}, "items": [node(version)]})
                }
            };
            let body = Body::from(object.to_string().into_bytes());
            async { Ok::<_, Infallible>(http::Response::new(body)) }
        });
        Client::new(service, "default")
    }

    /// INJ-06: of all nodes, however many answers that takes, and again when nodes have come.
    #[tokio::test(start_paused = true)]
    async fn the_oldest_kubelet_of_all_nodes_is_followed() {
        let has_old = Arc::new(AtomicBool::new(false));
        let (_supervisor, tasks) = Supervisor::new();
        let mut rules = keep(Rules::default(), client(&has_old), &tasks).await;
        let first = rules.borrow_and_update().cluster;
        assert_eq!(
            (first.server, first.oldest_kubelet),
            (Some((1, 37)), Some((1, 36)))
        );
        assert!(first.has_native_sidecars());
        has_old.store(true, Relaxed);
        rules.changed().await.expect("other rules");
        let second = rules.borrow_and_update().cluster;
        assert_eq!(second.oldest_kubelet, Some((1, 28)));
        assert!(!second.has_native_sidecars());
    }
}
