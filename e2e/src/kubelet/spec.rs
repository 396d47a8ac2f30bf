//! What the kubelet tells the shim about a container, as JSON in a file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A container to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Cgroup folders to make and enter.
    pub cgroups: Vec<PathBuf>,
    /// The node's mount namespace.
    pub mount_namespace: PathBuf,
    /// The pod's network namespace; none for a pod on the host's network.
    pub network_namespace: Option<PathBuf>,
    /// Over the root that the shim makes, in order.
    pub mounts: Vec<Mount>,
    /// Whether the root is read-only.
    pub read_only_root: bool,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// More groups.
    pub groups: Vec<u32>,
    /// Whether `allowPrivilegeEscalation` is false.
    pub no_new_privileges: bool,
    /// The working folder.
    pub folder: PathBuf,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// One bind mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// A file or folder of the node.
    pub source: PathBuf,
    /// Where in the container.
    pub target: PathBuf,
    /// Not to be written.
    pub read_only: bool,
    /// Which later mounts are seen.
    pub propagation: Propagation,
}

/// `mountPropagation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// None.
    Private,
    /// `HostToContainer`.
    Slave,
    /// `Bidirectional`.
    Shared,
}
