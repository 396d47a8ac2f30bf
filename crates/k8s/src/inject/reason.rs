//! Why a pod was left as it is.

use super::CAPTURE as CAPTURE_CONTAINER;
use super::upstream::Problem;

/// A pod that did not ask, or has what it asked for. Nothing to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unchanged {
    /// Neither pod nor namespace asks.
    #[error("neither the pod nor its namespace asks for it")]
    NotAsked,
    /// Pod or namespace says `disabled`.
    #[error("disabled by the pod or its namespace")]
    Disabled,
    /// It has everything it would get.
    #[error("it already has what it asks for")]
    AlreadyInjected,
    /// A namespace that is never touched, and the pod itself does not ask.
    #[error("the namespace is never touched")]
    ExcludedNamespace,
    /// A mirror of a static pod, which the kubelet runs from a file whatever the API says.
    #[error("a static pod is run from a file of its node")]
    StaticPod,
}

impl Unchanged {
    /// For counters.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Disabled => "disabled",
            Self::AlreadyInjected => "already_injected",
            Self::ExcludedNamespace => "excluded_namespace",
            Self::StaticPod => "static_pod",
        }
    }
}

/// Why a pod that asked does not get it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a pod, or not a well-formed one.
    #[error("not a well-formed pod: {0}")]
    MalformedPod(String),
    /// The switch has an unknown value.
    #[error(
        "signet.dev/inject on the {on} is {value:?}: write enabled, disabled, socket, files or envoy"
    )]
    InvalidInjectValue {
        /// `pod` or `namespace`.
        on: &'static str,
        /// What stands there.
        value: String,
    },
    /// Another annotation has a value that cannot be used.
    #[error("annotation {name}: {problem}")]
    InvalidAnnotation {
        /// The annotation's full name.
        name: &'static str,
        /// What is wrong and what to write.
        problem: String,
    },
    /// The pod itself asks in a namespace that is never touched.
    #[error("namespace {0} is never touched: run the pod in another one")]
    NamespaceExcluded(String),
    /// `hostNetwork` with a sidecar that would take ports of the node.
    #[error(
        "the pod uses the host's network, where Envoy's ports would be the node's: use mode socket or files"
    )]
    HostNetwork,
    /// `hostPID`.
    #[error(
        "the pod sees the host's processes (hostPID), so its identity could be taken for another's: remove hostPID"
    )]
    HostPid,
    /// A Windows pod.
    #[error("the pod runs on Windows, where there is no agent")]
    Windows,
    /// The socket comes by hostPath, which the namespace forbids.
    #[error(
        "the agent's socket comes by a hostPath volume, which the namespace's Pod Security level {0} forbids: install the CSI driver and set socket.kind to csi"
    )]
    HostPathForbidden(String),
    /// A container has the name of one of ours.
    #[error("the pod has a container named {0}: rename it{auto}", auto = or_auto(.0))]
    ContainerNameTaken(String),
    /// A volume has the name of one of ours.
    #[error("the pod has another volume named {0}: rename it")]
    VolumeNameTaken(String),
    /// A container mounts something else where our volume goes.
    #[error(
        "container {container} mounts another volume at {path}: move it, or name the container in signet.dev/skip-containers"
    )]
    MountPathTaken {
        /// The container's name.
        container: String,
        /// The path.
        path: String,
    },
    /// Two listeners on one port.
    #[error("port {port} is taken by {by}: choose another one for {wanted}")]
    PortTaken {
        /// The port.
        port: u16,
        /// Who has it.
        by: String,
        /// What wanted it.
        wanted: String,
    },
    /// Envoy would have nothing to do.
    #[error(
        "Envoy would have nothing to do: declare a containerPort, or set signet.dev/app-port or signet.dev/upstreams"
    )]
    NoPorts,
    /// No container would be left that uses it.
    #[error("the pod has no container of its own")]
    NoContainers,
    /// A Job's pod would never complete beside an ordinary sidecar.
    #[error(
        "the pod belongs to a Job, which would never complete beside an ordinary sidecar: use Kubernetes 1.29 or newer, or mode socket"
    )]
    JobNeedsNativeSidecar,
    /// The capture's init container needs what the namespace forbids.
    #[error(
        "signet.dev/capture takes an init container with the capability NET_ADMIN, which the namespace's Pod Security level {0} forbids: leave it out and let the app listen on 127.0.0.1, or label the namespace pod-security.kubernetes.io/enforce=privileged"
    )]
    CaptureForbidden(String),
    /// Envoy's connections could not be told from the app's.
    #[error(
        "signet.dev/capture tells Envoy's connections from the app's by their user, and {0}: give them different ones (signet.dev/run-as-user for Envoy)"
    )]
    CaptureUser(String),
    /// Init containers cannot use an ordinary sidecar.
    #[error(
        "signet.dev/hold-app needs native sidecars: a hook that holds the app would also hold back the container status from which the sidecar is attested, and neither would start"
    )]
    HoldNeedsNativeSidecar,
}

/// Every refusal's code, its meaning.
pub const REFUSALS: &[(&str, &str)] = &[
    ("malformed_pod", "It is not a well-formed pod."),
    (
        "invalid_inject_value",
        "`signet.dev/inject` has an unknown value.",
    ),
    (
        "invalid_annotation",
        "Another `signet.dev/` annotation has a value that cannot be used. (Resources, image, pull policy, log level, user, grace period and environment only warn; the default is used.)",
    ),
    (
        "namespace_excluded",
        "The pod asks in `kube-system`, `kube-public`, `kube-node-lease`, the injector's own namespace or one the operator excludes.",
    ),
    (
        "host_network",
        "Mode `envoy` in a pod with `hostNetwork`: Envoy's ports would be the node's.",
    ),
    ("host_pid", "The pod has `hostPID`."),
    ("windows", "The pod runs on Windows."),
    (
        "host_path_forbidden",
        "The socket comes by `hostPath`, and the namespace enforces `baseline` or `restricted`.",
    ),
    (
        "container_name_taken",
        "A container is already named `signet-envoy` or `signet-files`, and its image is not `auto`; or `signet-capture`.",
    ),
    (
        "volume_name_taken",
        "Another volume has the name `spiffe-workload-api`, `signet-files` or `signet-envoy`.",
    ),
    (
        "mount_path_taken",
        "A container mounts something else at `/spiffe-workload-api` or `/run/signet/files`.",
    ),
    (
        "port_taken",
        "Two of the app's, Envoy's and the upstreams' ports are the same.",
    ),
    (
        "no_ports",
        "Mode `envoy` without any port of the app and without upstreams.",
    ),
    ("no_containers", "Nothing but the sidecar is in the pod."),
    (
        "job_needs_native_sidecar",
        "A Job's pod on a cluster without native sidecars (before 1.29): it would never complete.",
    ),
    (
        "capture_forbidden",
        "`signet.dev/capture` in a namespace that enforces `baseline` or `restricted`, where no container gets `NET_ADMIN`.",
    ),
    (
        "capture_user",
        "`signet.dev/capture` where a container runs as Envoy's user, or where OpenShift assigns the users.",
    ),
    (
        "hold_needs_native_sidecar",
        "`signet.dev/hold-app: \"true\"` on a cluster without native sidecars.",
    ),
];

/// What else helps where the name is a sidecar's; nothing is merged over the init container of the capture.
fn or_auto(name: &str) -> &'static str {
    if name == CAPTURE_CONTAINER {
        return "";
    }
    ", or give it the image \"auto\" to have it merged over the injected one"
}

impl Refusal {
    /// For counters and events; one of [`REFUSALS`].
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MalformedPod(_) => "malformed_pod",
            Self::InvalidInjectValue { .. } => "invalid_inject_value",
            Self::InvalidAnnotation { .. } => "invalid_annotation",
            Self::NamespaceExcluded(_) => "namespace_excluded",
            Self::HostNetwork => "host_network",
            Self::HostPid => "host_pid",
            Self::Windows => "windows",
            Self::HostPathForbidden(_) => "host_path_forbidden",
            Self::ContainerNameTaken(_) => "container_name_taken",
            Self::VolumeNameTaken(_) => "volume_name_taken",
            Self::MountPathTaken { .. } => "mount_path_taken",
            Self::PortTaken { .. } => "port_taken",
            Self::NoPorts => "no_ports",
            Self::NoContainers => "no_containers",
            Self::JobNeedsNativeSidecar => "job_needs_native_sidecar",
            Self::CaptureForbidden(_) => "capture_forbidden",
            Self::CaptureUser(_) => "capture_user",
            Self::HoldNeedsNativeSidecar => "hold_needs_native_sidecar",
        }
    }

    pub(crate) fn annotation(name: &'static str, problem: &Problem) -> Self {
        Self::InvalidAnnotation {
            name,
            problem: problem.to_string(),
        }
    }
}
