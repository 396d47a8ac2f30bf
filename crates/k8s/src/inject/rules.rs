//! What the operator decides: the section `inject` of the injector's configuration.

use identity::TrustDomain;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod resources;

pub use self::resources::Resources;

/// The operator's choices. Every key may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rules {
    /// The trust domain of the cluster's workloads; short names of callers and peers are completed with it.
    #[serde(deserialize_with = "trust_domain", serialize_with = "name")]
    pub trust_domain: TrustDomain,
    /// The injector's own namespace: never touched, or it could not start.
    pub own_namespace: String,
    /// More namespaces that are never touched.
    pub excluded_namespaces: Vec<String>,
    /// The mode of a pod that says only `enabled`.
    pub default_mode: Mode,
    /// Whether a pod that cannot get what it asks for is denied, rather than let through with a warning.
    pub strict: bool,
    /// Whether sidecars are native ones: init containers that keep running.
    pub native_sidecars: NativeSidecars,
    /// How the agent's socket comes into a pod.
    pub socket: SocketRules,
    /// The images of the containers added.
    pub images: Images,
    /// The sidecar of mode `envoy`.
    pub envoy: EnvoyRules,
    /// The helper of mode `files`.
    pub files: FilesRules,
    /// What the cluster runs; the program fills it in.
    #[serde(skip)]
    pub cluster: Versions,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::new("example.org").expect("the name is a good one"),
            own_namespace: String::new(),
            excluded_namespaces: Vec::new(),
            default_mode: Mode::Socket,
            strict: false,
            native_sidecars: NativeSidecars::Auto,
            socket: SocketRules::default(),
            images: Images::default(),
            envoy: EnvoyRules::default(),
            files: FilesRules::default(),
            cluster: Versions::default(),
        }
    }
}

impl Rules {
    /// What is wrong with them, as `key: what to write instead`; nothing when they can be used.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.socket.host_path.starts_with('/') {
            problems.push(
                "socket.hostPath: must be an absolute path, such as /run/spire/agent-sockets"
                    .to_owned(),
            );
        }
        let texts = [
            ("socket.driver", &self.socket.driver),
            ("images.signet", &self.images.signet),
            ("images.envoy", &self.images.envoy),
        ];
        for (key, text) in texts {
            if text.is_empty() || text.contains(char::is_whitespace) {
                problems.push(format!(
                    "{key}: must be a name without spaces, not {text:?}"
                ));
            }
        }
        let envoy = &self.envoy;
        let mut ports = [
            envoy.port,
            envoy.metrics_port,
            envoy.capture_port,
            envoy.probe_port,
        ];
        ports.sort_unstable();
        let names = "envoy: port, metricsPort, capturePort and probePort";
        if ports[0] == 0 {
            problems.push(format!("{names} must be 1 to 65535"));
        } else if ports.windows(2).any(|pair| pair[0] == pair[1]) {
            problems.push(format!("{names} must differ"));
        }
        if self
            .envoy
            .listen_address
            .parse::<std::net::IpAddr>()
            .is_err()
        {
            problems.push(
                "envoy.listenAddress: must be an IP address, such as 0.0.0.0 or ::".to_owned(),
            );
        }
        if self.envoy.concurrency == 0 {
            problems.push("envoy.concurrency: must be at least 1".to_owned());
        }
        if !LOG_LEVELS.contains(&self.envoy.log_level.as_str()) {
            problems.push(format!(
                "envoy.logLevel: must be one of {}",
                LOG_LEVELS.join(", ")
            ));
        }
        for (key, user) in [
            ("envoy.user", self.envoy.user),
            ("files.user", self.files.user),
        ] {
            if user == 0 {
                problems.push(format!(
                    "{key}: must not be 0, since namespaces that enforce `restricted` refuse root"
                ));
            }
        }
        self.envoy
            .resources
            .validate("envoy.resources", &mut problems);
        self.files
            .resources
            .validate("files.resources", &mut problems);
        problems
    }

    /// Whether pods of `namespace` are never touched.
    #[must_use]
    pub fn excludes(&self, namespace: &str) -> bool {
        super::EXCLUDED.contains(&namespace)
            || (!self.own_namespace.is_empty() && self.own_namespace == namespace)
            || self
                .excluded_namespaces
                .iter()
                .any(|excluded| excluded == namespace)
    }
}

/// What a pod gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The agent's socket in every container.
    #[default]
    Socket,
    /// Certificate, key and bundle as files, kept fresh by a helper.
    Files,
    /// An Envoy that speaks mTLS for the pod.
    Envoy,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Socket, Self::Files, Self::Envoy];

    /// As it is written in labels and annotations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Files => "files",
            Self::Envoy => "envoy",
        }
    }

    /// The mode of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }
}

/// When sidecars are native ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NativeSidecars {
    /// When the API server and every kubelet are new enough; unknown versions count as new.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How the socket's folder is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SocketKind {
    /// By the CSI driver; allowed under every Pod Security Standard.
    #[default]
    Csi,
    /// By a folder of the host; forbidden from the standard `baseline` on.
    HostPath,
}

/// How the agent's socket comes into a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SocketRules {
    /// The kind of volume.
    pub kind: SocketKind,
    /// The CSI driver's name.
    pub driver: String,
    /// The host's folder that holds `spire-agent.sock`.
    pub host_path: String,
}

impl Default for SocketRules {
    fn default() -> Self {
        Self {
            kind: SocketKind::Csi,
            driver: "csi.spiffe.io".to_owned(),
            host_path: "/run/spire/agent-sockets".to_owned(),
        }
    }
}

/// The images of the containers added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Images {
    /// Signet's own image, for the helper of mode `files`.
    pub signet: String,
    /// Envoy's image.
    pub envoy: String,
    /// When kubelets pull them.
    pub pull_policy: PullPolicy,
    /// Names of Secrets with registry credentials, added to the pod.
    pub pull_secrets: Vec<String>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            signet: concat!("signet:", env!("CARGO_PKG_VERSION")).to_owned(),
            envoy: "envoyproxy/envoy:distroless-v1.40.0".to_owned(),
            pull_policy: PullPolicy::IfNotPresent,
            pull_secrets: Vec::new(),
        }
    }
}

/// `imagePullPolicy` of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// When the node lacks the image.
    #[default]
    IfNotPresent,
    /// At every start.
    Always,
    /// Never.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::IfNotPresent, Self::Always, Self::Never]
            .into_iter()
            .find(|policy| policy.as_str() == name)
    }
}

/// Envoy's log levels.
pub(crate) const LOG_LEVELS: [&str; 7] = [
    "trace", "debug", "info", "warning", "error", "critical", "off",
];

/// The sidecar of mode `envoy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EnvoyRules {
    /// Where other pods reach the app by mTLS.
    pub port: u16,
    /// Where metrics and readiness are served, in plain HTTP.
    pub metrics_port: u16,
    /// Where captured connections to the app are redirected to.
    pub capture_port: u16,
    /// Where captured pods answer the kubelet's probes, in plain HTTP.
    pub probe_port: u16,
    /// Envoy's log level.
    pub log_level: String,
    /// The user ID Envoy runs as.
    pub user: u32,
    /// Where inbound ports listen; `::` is for IPv6 and IPv4.
    pub listen_address: String,
    /// Worker threads.
    pub concurrency: u16,
    /// Requests and limits.
    pub resources: Resources,
}

impl Default for EnvoyRules {
    fn default() -> Self {
        Self {
            port: 8443,
            metrics_port: 15020,
            capture_port: 15006,
            probe_port: 15021,
            log_level: "warning".to_owned(),
            user: 65532,
            listen_address: "0.0.0.0".to_owned(),
            concurrency: 2,
            resources: Resources {
                cpu_request: Some("20m".to_owned()),
                memory_request: Some("64Mi".to_owned()),
                memory_limit: Some("256Mi".to_owned()),
                ..Resources::default()
            },
        }
    }
}

/// The helper of mode `files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FilesRules {
    /// The user ID it runs as when the app does not name one.
    pub user: u32,
    /// Requests and limits.
    pub resources: Resources,
}

impl Default for FilesRules {
    fn default() -> Self {
        Self {
            user: 65532,
            resources: Resources {
                cpu_request: Some("5m".to_owned()),
                memory_request: Some("16Mi".to_owned()),
                memory_limit: Some("64Mi".to_owned()),
                ..Resources::default()
            },
        }
    }
}

/// What the cluster runs, as (major, minor).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// The API server.
    pub server: Option<(u32, u32)>,
    /// The oldest kubelet of all nodes.
    pub oldest_kubelet: Option<(u32, u32)>,
}

/// Native sidecars are on by default from here.
const NATIVE_SINCE: (u32, u32) = (1, 29);
/// Hooks that only wait are on by default from here.
const SLEEP_SINCE: (u32, u32) = (1, 30);

impl Versions {
    /// Reads `v1.37.1` or `1.29+k3s1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<(u32, u32)> {
        let mut parts = text.trim_start_matches('v').split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?;
        let end = minor
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(minor.len());
        Some((major, minor[..end].parse().ok()?))
    }

    pub(crate) fn has_native_sidecars(self) -> bool {
        self.are_since(NATIVE_SINCE)
    }

    pub(crate) fn has_sleep_hooks(self) -> bool {
        self.are_since(SLEEP_SINCE)
    }

    fn are_since(self, first: (u32, u32)) -> bool {
        let mut known = [self.server, self.oldest_kubelet].into_iter().flatten();
        known.all(|version| version >= first)
    }
}

fn trust_domain<'de, D: Deserializer<'de>>(from: D) -> Result<TrustDomain, D::Error> {
    let name = String::deserialize(from)?;
    TrustDomain::parse(&name).map_err(serde::de::Error::custom)
}

fn name<S: Serializer>(trust_domain: &TrustDomain, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(trust_domain.as_str())
}
