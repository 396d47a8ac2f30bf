//! Every annotation by name, and as the documentation shows it.

use serde_json::{Map, Value};

use crate::inject::rules::Mode;

const PREFIX: &str = "signet.dev/";
/// As many are told; the others are told when these are mended.
const MOST_IDLE: usize = 5;

/// The switch; also a label.
pub const INJECT: &str = "signet.dev/inject";
/// The mode of `enabled`.
pub const MODE: &str = "signet.dev/mode";
/// What the injector did; its own.
pub const STATUS: &str = "signet.dev/status";
pub(crate) const SKIP_CONTAINERS: &str = "signet.dev/skip-containers";
pub(crate) const NATIVE_SIDECAR: &str = "signet.dev/native-sidecar";
pub(crate) const HOLD_APP: &str = "signet.dev/hold-app";
pub(crate) const APP_PORT: &str = "signet.dev/app-port";
pub(crate) const PORT: &str = "signet.dev/port";
pub(crate) const PROTOCOL: &str = "signet.dev/protocol";
pub(crate) const ALLOW: &str = "signet.dev/allow";
pub(crate) const UPSTREAMS: &str = "signet.dev/upstreams";
pub(crate) const METRICS_PORT: &str = "signet.dev/metrics-port";
pub(crate) const CAPTURE: &str = "signet.dev/capture";
pub(crate) const CAPTURE_SKIP_PORTS: &str = "signet.dev/capture-skip-ports";
pub(crate) const CAPTURE_SKIP_CIDRS: &str = "signet.dev/capture-skip-cidrs";
pub(crate) const CAPTURE_SKIP_INTERFACES: &str = "signet.dev/capture-skip-interfaces";
pub(crate) const IMAGE: &str = "signet.dev/image";
pub(crate) const PULL_POLICY: &str = "signet.dev/image-pull-policy";
pub(crate) const LOG_LEVEL: &str = "signet.dev/log-level";
pub(crate) const RUN_AS_USER: &str = "signet.dev/run-as-user";
pub(crate) const GRACE_PERIOD: &str = "signet.dev/grace-period";
pub(crate) const ENV: &str = "signet.dev/env";
pub(crate) const CPU_REQUEST: &str = "signet.dev/cpu-request";
pub(crate) const CPU_LIMIT: &str = "signet.dev/cpu-limit";
pub(crate) const MEMORY_REQUEST: &str = "signet.dev/memory-request";
pub(crate) const MEMORY_LIMIT: &str = "signet.dev/memory-limit";
pub(crate) const STORAGE_REQUEST: &str = "signet.dev/ephemeral-storage-request";
pub(crate) const STORAGE_LIMIT: &str = "signet.dev/ephemeral-storage-limit";

/// One annotation, as the documentation shows it.
#[derive(Clone, Copy, Debug)]
pub struct Annotation {
    /// Its full name.
    pub name: &'static str,
    /// The modes that read it.
    pub modes: &'static str,
    /// What kind of value.
    pub kind: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// A good value.
    pub example: &'static str,
    /// What it does.
    pub text: &'static str,
}

impl Annotation {
    fn is_read_in(&self, mode: Mode) -> bool {
        let mut modes = self.modes.split(", ");
        modes.any(|one| one == "all" || one == mode.as_str())
    }
}

/// Annotations with our prefix of which nothing comes: a misspelt allow-list lets everybody in, so it is told.
pub(super) fn idle(pod: &Value, mode: Mode) -> Vec<String> {
    let annotations = pod
        .pointer("/metadata/annotations")
        .and_then(Value::as_object);
    let ours = annotations.into_iter().flat_map(Map::keys);
    let ours = ours.filter(|name| name.starts_with(PREFIX) && *name != STATUS);
    let mut warnings = Vec::new();
    for name in ours {
        let known = ANNOTATIONS.iter().find(|known| known.name == name);
        match known {
            None => warnings.push(format!(
                "annotation {} does not exist: it does nothing",
                // Not yet validated by the API server.
                name.escape_debug()
            )),
            Some(known) if !known.is_read_in(mode) => warnings.push(format!(
                "annotation {name} does nothing in mode {}, only in {}",
                mode.as_str(),
                known.modes
            )),
            Some(_) => {}
        }
        if warnings.len() == MOST_IDLE {
            break;
        }
    }
    warnings
}

const fn row(
    name: &'static str,
    modes: &'static str,
    kind: &'static str,
    default: &'static str,
    example: &'static str,
    text: &'static str,
) -> Annotation {
    Annotation {
        name,
        modes,
        kind,
        default,
        example,
        text,
    }
}

/// Every annotation a pod can carry.
pub const ANNOTATIONS: &[Annotation] = &[
    row(
        INJECT,
        "all",
        "`enabled`, `disabled`, `socket`, `files` or `envoy`",
        "what the namespace says, else `disabled`",
        "envoy",
        "The switch. Also a label, which beats the annotation; and a label of the namespace, for pods that say nothing.",
    ),
    row(
        MODE,
        "all",
        "`socket`, `files` or `envoy`",
        "what the namespace's annotation says, else `defaultMode`",
        "files",
        "What `enabled` means. Also an annotation of the namespace.",
    ),
    row(
        SKIP_CONTAINERS,
        "socket, files",
        "names",
        "none",
        "istio-proxy, backup",
        "Containers that get neither mount nor variable.",
    ),
    row(
        NATIVE_SIDECAR,
        "files, envoy",
        "`true` or `false`",
        "`nativeSidecars` and the cluster's version",
        "true",
        "Whether the sidecar is an init container that keeps running (Kubernetes 1.29 or newer).",
    ),
    row(
        HOLD_APP,
        "files, envoy",
        "`true` or `false`",
        "`true` for native sidecars, else `false`",
        "true",
        "Whether the app starts only when the sidecar is ready. A native sidecar always holds it; `true` on a cluster without them is refused.",
    ),
    row(
        APP_PORT,
        "envoy",
        "port",
        "the first TCP `containerPort` of the app",
        "8080",
        "Where the app listens, on 127.0.0.1; Envoy hands it the requests.",
    ),
    row(
        PORT,
        "envoy",
        "port",
        "`envoy.port` (8443)",
        "9443",
        "Where Envoy takes mTLS for the app. Point the Service's `targetPort` to it, or to its name `signet-mtls`.",
    ),
    row(
        PROTOCOL,
        "envoy",
        "`http` or `tcp`",
        "`http`",
        "tcp",
        "What the app speaks. With `http` (1.1, 2, gRPC) the caller's ID comes in `x-forwarded-client-cert`.",
    ),
    row(
        ALLOW,
        "envoy",
        "callers",
        "every workload of the trust domain",
        "shop/frontend, spiffe://example.org/ns/ops/*",
        "Who may call: SPIFFE IDs, `spiffe://…/*`, `<namespace>/<service account>` or `<namespace>/*`. Others get 403, or with `tcp` are cut off.",
    ),
    row(
        UPSTREAMS,
        "envoy",
        "upstreams",
        "none",
        "9090=backend.shop:8443=spiffe://example.org/ns/shop/sa/backend",
        "Whom the app calls: `[tcp://][<local port>=]<host>:<port>=<peer>[|<peer>…]`. Envoy listens on 127.0.0.1 at the local port (default: the port), speaks mTLS to the host, and hangs up on anybody but the peer named. With `signet.dev/capture` the host may be a network.",
    ),
    row(
        METRICS_PORT,
        "envoy",
        "port",
        "`envoy.metricsPort` (15020)",
        "15021",
        "Plain HTTP: `/stats/prometheus` and `/ready`, nothing else.",
    ),
    row(
        CAPTURE,
        "envoy",
        "`inbound`, `outbound`, `all` or `off`",
        "`off`",
        "all",
        "Whether connections are redirected to Envoy: those to the app's declared TCP ports, those of the app to its upstreams. Needs a namespace where a container may have `NET_ADMIN`.",
    ),
    row(
        CAPTURE_SKIP_PORTS,
        "envoy",
        "ports",
        "none",
        "9100, 9101",
        "Ports of the app that stay as they are: reached directly, without mTLS.",
    ),
    row(
        CAPTURE_SKIP_CIDRS,
        "envoy",
        "networks",
        "none",
        "10.20.0.0/16, fd00:20::/32",
        "Connections from and to these networks are left alone.",
    ),
    row(
        CAPTURE_SKIP_INTERFACES,
        "envoy",
        "names",
        "none",
        "eth1",
        "Connections through these interfaces of the pod are left alone.",
    ),
    row(
        IMAGE,
        "files, envoy",
        "image",
        "`images.signet` or `images.envoy`",
        "registry.example/envoy:v1.40.0",
        "The sidecar's image.",
    ),
    row(
        PULL_POLICY,
        "files, envoy",
        "`IfNotPresent`, `Always` or `Never`",
        "`images.pullPolicy`",
        "Always",
        "When the kubelet pulls it.",
    ),
    row(
        LOG_LEVEL,
        "envoy",
        "Envoy's log level",
        "`envoy.logLevel`",
        "debug",
        "`trace`, `debug`, `info`, `warning`, `error`, `critical` or `off`.",
    ),
    row(
        RUN_AS_USER,
        "files, envoy",
        "user ID above 0",
        "`envoy.user`; for files the app's own",
        "1000",
        "Whom the sidecar runs as. Left out where OpenShift assigns the IDs.",
    ),
    row(
        GRACE_PERIOD,
        "envoy",
        "seconds",
        "none",
        "10s",
        "How long Envoy goes on serving after the pod was told to end, for an app that still answers then; at most the pod's `terminationGracePeriodSeconds`. A native sidecar outlives the app anyway. Kubernetes 1.30 or newer.",
    ),
    row(
        ENV,
        "files, envoy",
        "`NAME=value`, separated by commas",
        "none",
        "TZ=UTC",
        "More environment for the sidecar; not `PATH`, `LD_…`, `GLIBC_TUNABLES` or what the injector sets.",
    ),
    row(
        CPU_REQUEST,
        "files, envoy",
        "quantity",
        "`resources.cpuRequest`",
        "50m",
        "The sidecar's CPU request.",
    ),
    row(
        CPU_LIMIT,
        "files, envoy",
        "quantity",
        "`resources.cpuLimit`",
        "1",
        "The sidecar's CPU limit.",
    ),
    row(
        MEMORY_REQUEST,
        "files, envoy",
        "quantity",
        "`resources.memoryRequest`",
        "64Mi",
        "The sidecar's memory request.",
    ),
    row(
        MEMORY_LIMIT,
        "files, envoy",
        "quantity",
        "`resources.memoryLimit`",
        "512Mi",
        "The sidecar's memory limit. Below the request it is raised to it, with a warning.",
    ),
    row(
        STORAGE_REQUEST,
        "files, envoy",
        "quantity",
        "`resources.ephemeralStorageRequest`",
        "16Mi",
        "The sidecar's ephemeral storage request.",
    ),
    row(
        STORAGE_LIMIT,
        "files, envoy",
        "quantity",
        "`resources.ephemeralStorageLimit`",
        "64Mi",
        "The sidecar's ephemeral storage limit.",
    ),
];
