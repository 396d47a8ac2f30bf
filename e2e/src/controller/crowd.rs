//! Pods in thousands on nodes that are only objects: created, told to run, finished and deleted by many clients at once,
//! each of which asks again when the API server is away.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Stage;
use crate::{kubelet, wait};

/// How many requests are under way at once.
const CLIENTS: usize = 32;

/// How many pods a list takes at once.
const PAGE: u32 = 500;

/// A cluster's pods and the nodes they are on. The nodes are kept alive as long as this is.
pub struct Crowd {
    client: Client,
    /// UID by name.
    nodes: BTreeMap<String, String>,
    alive: JoinSet<()>,
}

impl Crowd {
    /// Makes this many nodes, which are ready and stay it.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn new(stage: &Stage, nodes: usize) -> Result<Self> {
        let api: Api<Node> = Api::all(stage.client.clone());
        let mut crowd = Self {
            client: stage.client.clone(),
            nodes: BTreeMap::new(),
            alive: JoinSet::new(),
        };
        for number in 0..nodes {
            let name = format!("node-{number}");
            let node = json!({ "metadata": { "name": name } });
            let node: Node = api
                .create(&PostParams::default(), &serde_json::from_value(node)?)
                .await?;
            let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }] } });
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(ready))
                .await?;
            let client = stage.client.clone();
            crowd.alive.spawn(kubelet::keep_alive(client, name.clone()));
            crowd
                .nodes
                .insert(name, node.metadata.uid.context("a node's UID")?);
        }
        Ok(crowd)
    }

    /// The UID of a node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn node(&self, name: &str) -> Result<&str> {
        let uid = self.nodes.get(name);
        Ok(uid.with_context(|| format!("no node {name}"))?)
    }

    /// Pods `p{number}` come: given to the nodes in turn, and told to run by them. Gives their UIDs.
    ///
    /// # Errors
    /// When the API server refuses one, or is away for too long.
    pub async fn arrive(
        &self,
        namespace: &str,
        numbers: Range<usize>,
        labels: &Value,
    ) -> Result<Vec<String>> {
        let api = self.pods(namespace);
        let names: Vec<&String> = self.nodes.keys().collect();
        let one = |number: usize| {
            let (name, api) = (name(number), &api);
            let node = names.get(number % names.len().max(1)).copied();
            async move {
                let object = pod(
                    namespace,
                    &name,
                    "default",
                    labels,
                    node.map(String::as_str),
                );
                let object: Pod = serde_json::from_value(object)?;
                let made = persist(&name, || made(api, &name, &object)).await?;
                told(api, &name, &running(number)).await?;
                made.metadata.uid.context("a pod's UID")
            }
        };
        all(numbers, one).await
    }

    /// The pods end well, and stay as objects.
    ///
    /// # Errors
    /// When the API server refuses one, or is away for too long.
    pub async fn finish(&self, namespace: &str, numbers: Range<usize>) -> Result<()> {
        let api = self.pods(namespace);
        let succeeded = json!({ "status": { "phase": "Succeeded" } });
        let one = |number: usize| {
            let (api, succeeded) = (&api, &succeeded);
            async move { told(api, &name(number), succeeded).await }
        };
        all(numbers, one).await.map(drop)
    }

    /// The pods go.
    ///
    /// # Errors
    /// When the API server refuses, or is away for too long.
    pub async fn leave(&self, namespace: &str, numbers: Range<usize>) -> Result<()> {
        let api = self.pods(namespace);
        let one = |number: usize| {
            let (name, api) = (name(number), &api);
            async move { persist(&name, || gone(api, &name)).await }
        };
        all(numbers, one).await.map(drop)
    }

    /// The pods get other labels.
    ///
    /// # Errors
    /// When the API server refuses, or is away for too long.
    pub async fn label(
        &self,
        namespace: &str,
        numbers: Range<usize>,
        labels: &Value,
    ) -> Result<()> {
        let api = self.pods(namespace);
        let change = json!({ "metadata": { "labels": labels } });
        let one = |number: usize| {
            let (name, api, change) = (name(number), &api, &change);
            async move {
                let (params, patch) = (PatchParams::default(), Patch::Merge(change));
                persist(&name, || async {
                    Ok(Some(api.patch(&name, &params, &patch).await?))
                })
                .await
            }
        };
        all(numbers, one).await.map(drop)
    }

    /// All pods of the cluster.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn all(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let mut pods = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await?;
            pods.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(pods),
            }
        }
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// A pod of one container; on a node, or waiting for one.
pub(super) fn pod(
    namespace: &str,
    name: &str,
    account: &str,
    labels: &Value,
    node: Option<&str>,
) -> Value {
    json!({
        "metadata": { "namespace": namespace, "name": name, "labels": labels },
        "spec": { "serviceAccountName": account, "nodeName": node, "containers": [{ "name": "app", "image": "myapp:1.0" }] },
    })
}

fn name(number: usize) -> String {
    format!("p{number}")
}

/// What a kubelet tells of a pod that runs.
fn running(number: usize) -> Value {
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .map(|kind| json!({ "type": kind, "status": "True" }));
    let address = format!(
        "10.{}.{}.{}",
        number >> 16 & 255,
        number >> 8 & 255,
        number & 255
    );
    json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": conditions,
        "containerStatuses": [{
            "name": "app", "image": "myapp:1.0", "imageID": "", "ready": true, "started": true, "restartCount": 0,
            "containerID": format!("containerd://{number:064x}"), "state": { "running": {} },
        }],
    }})
}

/// Creates it, or finds that an earlier try did.
async fn made(api: &Api<Pod>, name: &str, object: &Pod) -> Result<Option<Pod>> {
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Some(api.get(name).await?)),
        made => Ok(Some(made?)),
    }
}

async fn told(api: &Api<Pod>, name: &str, status: &Value) -> Result<()> {
    let (params, patch) = (PatchParams::default(), Patch::Merge(status));
    let tell = || async {
        api.patch_status(name, &params, &patch).await?;
        Ok(Some(()))
    };
    persist(name, tell).await
}

async fn gone(api: &Api<Pod>, name: &str) -> Result<Option<()>> {
    let at_once = DeleteParams::default().grace_period(0);
    match api.delete(name, &at_once).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Some(())),
        deleted => deleted.map(|_| Some(())).map_err(Into::into),
    }
}

/// Asks until the API server has done it.
async fn persist<T, F, Fut>(name: &str, call: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    wait::until(&format!("the API server to take {name}"), call).await
}

/// Does `one` for all numbers, a few at a time.
async fn all<T, Fut>(numbers: Range<usize>, one: impl Fn(usize) -> Fut) -> Result<Vec<T>>
where
    Fut: Future<Output = Result<T>>,
{
    stream::iter(numbers.map(one))
        .buffer_unordered(CLIENTS)
        .try_collect()
        .await
}
