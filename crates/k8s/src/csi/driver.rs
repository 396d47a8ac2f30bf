//! The driver's two services, as the kubelet calls them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::csi::v1::identity_server::Identity;
use proto::csi::v1::node_server::Node;
use proto::csi::v1::node_service_capability::rpc::Type as Capability;
use proto::csi::v1::node_service_capability::{Rpc, Type};
use proto::csi::v1::volume_capability::AccessType;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_usage::Unit;
use proto::csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, ProbeRequest, ProbeResponse,
    VolumeCondition, VolumeUsage,
};
use runtime::Metrics;
use tonic::{Request, Response, Status};

use super::mounts::{Health, MountError, Mounts};

/// What Kubernetes adds for a volume that a pod names inline.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// The driver.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    pub(super) name: String,
    pub(super) node_id: String,
    pub(super) mounts: Arc<Mounts>,
    pub(super) metrics: Metrics,
}

#[tonic::async_trait]
impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(GetPluginCapabilitiesResponse {}))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}

#[tonic::async_trait]
impl Node for Driver {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let call = self.metrics.call("node_publish_volume", &[]);
        let published = async {
            let request = request.into_inner();
            let target = check_publish(&request)?;
            self.blocking(move |mounts| mounts.publish(&target)).await?;
            tracing::info!(
                volume_id = request.volume_id,
                target_path = request.target_path,
                pod = request.volume_context.get("csi.storage.k8s.io/pod.name"),
                namespace = request
                    .volume_context
                    .get("csi.storage.k8s.io/pod.namespace"),
                "Volume published"
            );
            Ok(Response::new(NodePublishVolumeResponse {}))
        };
        call.record(published.await)
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let call = self.metrics.call("node_unpublish_volume", &[]);
        let unpublished = async {
            let request = request.into_inner();
            let target = named(&request.volume_id, &request.target_path, "target_path")?;
            self.blocking(move |mounts| mounts.unpublish(&target))
                .await?;
            tracing::info!(
                volume_id = request.volume_id,
                target_path = request.target_path,
                "Volume unpublished"
            );
            Ok(Response::new(NodeUnpublishVolumeResponse {}))
        };
        call.record(unpublished.await)
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let path = named(&request.volume_id, &request.volume_path, "volume_path")?;
        let look = move |mounts: &Mounts| Ok((mounts.health(&path)?, mounts.usage().ok()));
        let (health, usage) = self.blocking(look).await?;
        let (abnormal, message) = match health {
            Health::Good => (false, "mounted"),
            Health::Missing => return Err(Status::not_found("no such volume is published here")),
            Health::NotMounted => (true, "nothing is mounted on the volume's path"),
            Health::Stale => (
                true,
                "the agent's folder was made anew and is not bound yet",
            ),
        };
        // The kubelet takes an answer without usage for an error.
        let (available, total) = usage.map_or((0, 0), |usage| (usage.available, usage.total));
        let usage = VolumeUsage {
            available: bytes(available),
            total: bytes(total),
            used: bytes(total.saturating_sub(available)),
            unit: Unit::Bytes.into(),
        };
        Ok(Response::new(NodeGetVolumeStatsResponse {
            usage: vec![usage],
            volume_condition: Some(VolumeCondition {
                abnormal,
                message: message.to_owned(),
            }),
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability = |capability: Capability| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc {
                r#type: capability.into(),
            })),
        };
        let all = [Capability::GetVolumeStats, Capability::VolumeCondition];
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: all.into_iter().map(capability).collect(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node_id.clone(),
        }))
    }
}

impl Driver {
    /// Mounts block, so they have a thread of their own.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mounts) -> Result<T, MountError> + Send + 'static,
    ) -> Result<T, Status> {
        let mounts = self.mounts.clone();
        let done = tokio::task::spawn_blocking(move || work(&mounts)).await;
        let done = done.map_err(|_| Status::internal("mounting was interrupted"))?;
        done.map_err(|error| {
            tracing::warn!(%error, "a volume call fails");
            match &error {
                MountError::Target(_) => Status::invalid_argument(error.to_string()),
                MountError::Label(_) | MountError::NoParent(_) => {
                    Status::failed_precondition(error.to_string())
                }
                MountError::NoSource { .. } => Status::unavailable(error.to_string()),
                MountError::System { .. } => Status::internal(error.to_string()),
            }
        })
    }
}

/// The rules of a volume that a pod names inline and mounts read-only. Gives its path.
pub(super) fn check_publish(request: &NodePublishVolumeRequest) -> Result<PathBuf, Status> {
    let target = named(&request.volume_id, &request.target_path, "target_path")?;
    let refuse = |message: &str| Err(Status::invalid_argument(message));
    let Some(capability) = &request.volume_capability else {
        return refuse("request missing required volume capability");
    };
    match &capability.access_type {
        Some(AccessType::Mount(mount)) if !mount.fs_type.is_empty() => {
            return refuse("volume capability mount: fs_type must not be set");
        }
        Some(AccessType::Mount(mount)) if !mount.mount_flags.is_empty() => {
            return refuse("volume capability mount: mount_flags must not be set");
        }
        Some(AccessType::Mount(_)) => {}
        _ => return refuse("volume capability must be a mount, not a block device"),
    }
    let Some(mode) = &capability.access_mode else {
        return refuse("request missing required volume capability access mode");
    };
    if mode.mode() == Mode::SingleNodeReaderOnly {
        return refuse("access mode SINGLE_NODE_READER_ONLY is not supported");
    }
    if !request.readonly {
        return refuse("pod.spec.volumes[].csi.readOnly must be set to 'true'");
    }
    if request
        .volume_context
        .get(EPHEMERAL)
        .is_none_or(|value| value != "true")
    {
        return refuse(
            "only ephemeral volumes are supported: name the driver inline, in the pod's volumes",
        );
    }
    Ok(target)
}

fn named(volume_id: &str, path: &str, key: &str) -> Result<PathBuf, Status> {
    if volume_id.is_empty() {
        return Err(Status::invalid_argument(
            "request missing required volume id",
        ));
    }
    if path.is_empty() {
        return Err(Status::invalid_argument(format!(
            "request missing required {key}"
        )));
    }
    Ok(Path::new(path).to_owned())
}

fn bytes(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
