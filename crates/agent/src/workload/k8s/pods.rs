//! What of the kubelet's pods becomes selectors. Only that much of its answer is kept.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use crate::workload::cgroup::Container;

/// The kubelet's answer to `/pods`.
#[derive(Debug, Deserialize)]
pub(super) struct PodList {
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) items: Vec<Pod>,
}

/// One pod.
#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    annotations: Annotations,
    #[serde(default, deserialize_with = "null_is_empty")]
    owner_references: Vec<Owner>,
}

#[derive(Debug, Default, Deserialize)]
struct Annotations {
    /// What a static pod's cgroup is named after.
    #[serde(default, rename = "kubernetes.io/config.hash")]
    config_hash: String,
}

#[derive(Debug, Deserialize)]
struct Owner {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    service_account_name: String,
    #[serde(default)]
    node_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "null_is_empty")]
    container_statuses: Vec<ContainerStatus>,
    #[serde(default, deserialize_with = "null_is_empty")]
    init_container_statuses: Vec<ContainerStatus>,
}

/// One container of a pod.
#[derive(Debug, Deserialize)]
pub(super) struct ContainerStatus {
    #[serde(default)]
    name: String,
    #[serde(default)]
    image: String,
    #[serde(default, rename = "imageID")]
    image_id: String,
    /// `<runtime>://<id>`; empty before it runs.
    #[serde(default, rename = "containerID")]
    container_id: String,
}

/// What the kubelet knows of a container.
pub(super) enum Found<'a> {
    /// It and its pod.
    Container(&'a Pod, &'a ContainerStatus),
    /// Its pod, but not it.
    Pod(&'a Pod),
    /// Not even its pod.
    Nothing,
}

/// Looks for a container in the pod that its cgroup names, first among the usual ones, then among the init containers
/// (native sidecars are there).
pub(super) fn find<'a>(pods: &'a [Pod], container: &Container) -> Found<'a> {
    let uid = container.pod_uid.as_str();
    let is_it = |pod: &&Pod| pod.metadata.uid == uid || pod.metadata.annotations.config_hash == uid;
    let Some(pod) = pods.iter().find(is_it) else {
        return Found::Nothing;
    };
    let is_it = |status: &&ContainerStatus| {
        let id = status.container_id.split_once("://").map(|(_, id)| id);
        container.id.is_some() && id == container.id.as_deref()
    };
    let status = &pod.status;
    let mut all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses);
    match all.find(is_it) {
        Some(status) => Found::Container(pod, status),
        None => Found::Pod(pod),
    }
}

impl Pod {
    /// Its selectors' values.
    pub(super) fn values(&self) -> impl Iterator<Item = String> {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        let mut values = vec![
            format!("sa:{}", spec.service_account_name),
            format!("ns:{}", metadata.namespace),
            format!("node-name:{}", spec.node_name),
            format!("pod-uid:{}", metadata.uid),
            format!("pod-name:{}", metadata.name),
            format!("pod-image-count:{}", status.container_statuses.len()),
            format!(
                "pod-init-image-count:{}",
                status.init_container_statuses.len()
            ),
        ];
        let images = |kind: &str, statuses: &[ContainerStatus]| {
            let images: BTreeSet<_> = statuses.iter().flat_map(ContainerStatus::images).collect();
            let named = images.into_iter().map(|image| format!("{kind}:{image}"));
            named.collect::<Vec<_>>()
        };
        values.extend(images("pod-image", &status.container_statuses));
        values.extend(images("pod-init-image", &status.init_container_statuses));
        let labels = metadata.labels.iter();
        values.extend(labels.map(|(key, value)| format!("pod-label:{key}:{value}")));
        for Owner { kind, name, uid } in &metadata.owner_references {
            values.push(format!("pod-owner:{kind}:{name}"));
            values.push(format!("pod-owner-uid:{kind}:{uid}"));
        }
        values.into_iter()
    }
}

impl ContainerStatus {
    /// Its selectors' values.
    pub(super) fn values(&self) -> impl Iterator<Item = String> {
        let images = self.images();
        std::iter::once(format!("container-name:{}", self.name))
            .chain(images.map(|image| format!("container-image:{image}")))
    }

    /// As the pod names it, and as the runtime does, by digest.
    fn images(&self) -> impl Iterator<Item = &str> {
        let both = [self.image.as_str(), self.image_id.as_str()];
        both.into_iter().filter(|image| !image.is_empty())
    }
}

/// Go writes empty lists and maps as `null`, too.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
