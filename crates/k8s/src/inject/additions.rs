//! What a pod is to get, before anything is done to it.

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::annotations::{UPSTREAMS, Wanted};
use super::captured::Captured;
use super::probes::Probe;
use super::reason::Refusal;
use super::rules::{Mode, Rules, SocketKind};
use super::{
    ENVOY, FILES, FILES_DIR, Namespace, SOCKET_URI, SOCKET_VARIABLE, SOCKET_VOLUME, containers,
    name_of, sidecar,
};

/// What a pod is to get.
#[derive(Clone, Debug)]
pub(crate) struct Additions {
    pub(crate) mode: Mode,
    pub(crate) volumes: Vec<Value>,
    pub(crate) sidecar: Option<Value>,
    pub(crate) native: bool,
    /// The init container that redirects connections to the sidecar, which must run as this user.
    pub(crate) capture: Option<(Value, u32)>,
    /// What is asked of the sidecar instead of the app, at this port.
    pub(crate) probes: (Vec<Probe>, u16),
    /// For each of the pod's own containers that is not in `skip`.
    pub(crate) mount: Option<Value>,
    pub(crate) env: Option<Value>,
    pub(crate) skip: Vec<String>,
    pub(crate) pull_secrets: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl Additions {
    /// A short hash of everything that could be added.
    pub(crate) fn hash(&self) -> String {
        let capture = self.capture.as_ref().map(|(container, _)| container);
        let mut all = Vec::with_capacity(16 * 1024);
        text(&mut all, self.mode.as_str());
        all.push(u8::from(self.native));
        for part in [
            self.sidecar.as_ref(),
            self.mount.as_ref(),
            self.env.as_ref(),
            capture,
        ] {
            bytes(&mut all, part.unwrap_or(&Value::Null));
        }
        self.volumes
            .iter()
            .for_each(|volume| bytes(&mut all, volume));
        self.pull_secrets
            .iter()
            .for_each(|secret| text(&mut all, secret));
        let digest = digest::digest(&digest::SHA256, &all);
        identity::hex(&digest.as_ref()[..8])
    }

    /// What `pod`, which has nothing of ours, is to get. `auto`: its container that is merged over ours is not in it.
    pub(crate) fn plan(
        pod: &Value,
        mode: Mode,
        namespace: &Namespace,
        rules: &Rules,
    ) -> Result<Self, Refusal> {
        let wanted = Wanted::read(pod, mode, rules)?;
        refuse_pod(pod, mode, namespace, rules)?;
        let mut additions = socket_additions(rules);
        additions.mode = mode;
        additions.skip.clone_from(&wanted.skip);
        additions.warnings.clone_from(&wanted.warnings);
        if mode != Mode::Socket {
            additions.mount = None;
            additions.env = None;
        }
        match mode {
            Mode::Socket => {}
            Mode::Files => {
                additions.volumes.push(memory_volume(FILES, "1Mi"));
                additions.sidecar = Some(sidecar::files(pod, &wanted, namespace, rules));
                additions.mount =
                    Some(json!({"name": FILES, "mountPath": FILES_DIR, "readOnly": true}));
            }
            Mode::Envoy => {
                let app_port = wanted.app_port.or_else(|| first_port(pod));
                let all = ports(pod).map(|(_, port)| port).chain(app_port);
                let captured = Captured::plan(pod, &wanted, all, namespace, rules)?;
                check_ports(pod, &wanted, app_port, &captured, rules)?;
                additions.volumes.push(memory_volume(ENVOY, "1Mi"));
                let envoy = sidecar::envoy(pod, &wanted, app_port, &captured, namespace, rules);
                check_length(&envoy)?;
                additions.sidecar = Some(envoy);
                let user = wanted.user.unwrap_or(rules.envoy.user);
                let init = captured.init(&wanted, rules);
                additions.capture = init.map(|init| (init, user));
                additions.probes = (captured.probes, rules.envoy.probe_port);
            }
        }
        if additions.sidecar.is_some() {
            additions
                .pull_secrets
                .clone_from(&rules.images.pull_secrets);
            additions.make_native(pod, &wanted, rules)?;
        }
        Ok(additions)
    }

    /// Native sidecars where they exist; elsewhere ordinary ones, unless they would do harm.
    fn make_native(&mut self, pod: &Value, wanted: &Wanted, rules: &Rules) -> Result<(), Refusal> {
        use super::rules::NativeSidecars::{Always, Auto, Never};
        self.native = wanted
            .native
            .unwrap_or_else(|| match rules.native_sidecars {
                Always => true,
                Never => false,
                Auto => rules.cluster.has_native_sidecars(),
            });
        if self.native {
            if let Some(sidecar) = &mut self.sidecar {
                sidecar["restartPolicy"] = json!("Always");
            }
            return Ok(());
        }
        let owners = pod
            .pointer("/metadata/ownerReferences")
            .and_then(Value::as_array);
        let job = owners
            .into_iter()
            .flatten()
            .any(|owner| owner["kind"] == "Job");
        let restart = pod.pointer("/spec/restartPolicy");
        if job || restart.is_some_and(|policy| policy == "OnFailure" || policy == "Never") {
            return Err(Refusal::JobNeedsNativeSidecar);
        }
        if wanted.hold {
            return Err(Refusal::HoldNeedsNativeSidecar);
        }
        if containers(pod, "initContainers").next().is_some() {
            self.warnings
                .push("init containers run before the sidecar: they cannot use it".to_owned());
        }
        Ok(())
    }
}

/// A value as it is, to be hashed: as JSON, the bootstrap in it would be escaped once more.
fn bytes(all: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(string) => text(all, string),
        Value::Array(items) => {
            all.push(b'[');
            items.iter().for_each(|item| bytes(all, item));
            all.push(b']');
        }
        Value::Object(members) => {
            all.push(b'{');
            for (name, value) in members {
                text(all, name);
                bytes(all, value);
            }
            all.push(b'}');
        }
        plain => all.extend(plain.to_string().into_bytes()),
    }
}

/// With its length, so that no two rows of texts are alike.
fn text(all: &mut Vec<u8>, text: &str) {
    all.extend(text.len().to_be_bytes());
    all.extend(text.as_bytes());
}

/// The name of the mode's sidecar.
pub(crate) const fn sidecar_name(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Socket => None,
        Mode::Files => Some(FILES),
        Mode::Envoy => Some(ENVOY),
    }
}

fn refuse_pod(
    pod: &Value,
    mode: Mode,
    namespace: &Namespace,
    rules: &Rules,
) -> Result<(), Refusal> {
    let spec = &pod["spec"];
    if spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows" {
        return Err(Refusal::Windows);
    }
    if spec["hostPID"] == true {
        return Err(Refusal::HostPid);
    }
    if spec["hostNetwork"] == true && mode == Mode::Envoy {
        return Err(Refusal::HostNetwork);
    }
    let level = namespace.labels.get("pod-security.kubernetes.io/enforce");
    if let Some(level) = level
        && rules.socket.kind == SocketKind::HostPath
        && level != "privileged"
    {
        return Err(Refusal::HostPathForbidden(level.clone()));
    }
    if containers(pod, "containers").next().is_none() {
        return Err(Refusal::NoContainers);
    }
    Ok(())
}

/// The volume with the agent's socket.
fn socket_volume(rules: &Rules) -> Value {
    match rules.socket.kind {
        SocketKind::Csi => {
            json!({"name": SOCKET_VOLUME, "csi": {"driver": rules.socket.driver, "readOnly": true}})
        }
        SocketKind::HostPath => {
            json!({"name": SOCKET_VOLUME, "hostPath": {"path": rules.socket.host_path, "type": "Directory"}})
        }
    }
}

fn memory_volume(name: &str, size: &str) -> Value {
    json!({"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}})
}

/// Linux takes no argument of 128 KiB or more: such a container would never start.
fn check_length(envoy: &Value) -> Result<(), Refusal> {
    const LONGEST: usize = 120 * 1024;
    let bootstrap = envoy["args"][1].as_str().unwrap_or_default();
    if bootstrap.len() > LONGEST {
        return Err(Refusal::InvalidAnnotation {
            name: UPSTREAMS,
            problem: format!(
                "Envoy's configuration would have {} bytes; {LONGEST} are the most: name fewer",
                bootstrap.len()
            ),
        });
    }
    Ok(())
}

/// The declared TCP ports of all containers that stay: native sidecars are among the init containers.
fn ports(pod: &Value) -> impl Iterator<Item = (&str, u16)> {
    let stays = |container: &&Value| container["restartPolicy"] == "Always";
    let natives = containers(pod, "initContainers").filter(stays);
    containers(pod, "containers")
        .chain(natives)
        .flat_map(|container| {
            let ports = container.get("ports").and_then(Value::as_array);
            ports.into_iter().flatten().filter_map(move |port| {
                let tcp = port
                    .get("protocol")
                    .is_none_or(|protocol| protocol == "TCP");
                let number = u16::try_from(port.get("containerPort")?.as_u64()?).ok()?;
                tcp.then_some((name_of(container), number))
            })
        })
}

fn first_port(pod: &Value) -> Option<u16> {
    ports(pod).map(|(_, port)| port).next()
}

/// Every port can have one listener only, in the pod's one network.
fn check_ports(
    pod: &Value,
    wanted: &Wanted,
    app_port: Option<u16>,
    captured: &Captured,
    rules: &Rules,
) -> Result<(), Refusal> {
    if app_port.is_none() && wanted.upstreams.is_empty() {
        return Err(Refusal::NoPorts);
    }
    let mut taken: Vec<(u16, String)> = ports(pod)
        .map(|(container, port)| (port, format!("container {container}")))
        .collect();
    taken.extend(app_port.map(|port| (port, "the app".to_owned())));
    let mut ours = vec![(
        wanted.metrics_port,
        "metrics (signet.dev/metrics-port)".to_owned(),
    )];
    if app_port.is_some() {
        ours.push((wanted.port, "mTLS (signet.dev/port)".to_owned()));
    }
    if !captured.ports.is_empty() {
        ours.push((
            rules.envoy.capture_port,
            "captured connections (envoy.capturePort)".to_owned(),
        ));
    }
    if !captured.probes.is_empty() {
        ours.push((
            rules.envoy.probe_port,
            "probes (envoy.probePort)".to_owned(),
        ));
    }
    for upstream in &wanted.upstreams {
        ours.push((
            upstream.local_port,
            format!("upstream {} (signet.dev/upstreams)", upstream.authority()),
        ));
    }
    for (port, wanted) in ours {
        if let Some((_, by)) = taken.iter().find(|(taken, _)| *taken == port) {
            return Err(Refusal::PortTaken {
                port,
                by: by.clone(),
                wanted,
            });
        }
        taken.push((port, wanted));
    }
    Ok(())
}

/// The hash of mode `socket`, which depends on the rules alone.
pub(crate) fn socket_hash(rules: &Rules) -> String {
    socket_additions(rules).hash()
}

fn socket_additions(rules: &Rules) -> Additions {
    Additions {
        mode: Mode::Socket,
        volumes: vec![socket_volume(rules)],
        sidecar: None,
        native: false,
        capture: None,
        probes: (Vec::new(), 0),
        mount: Some(sidecar::socket_mount()),
        env: Some(json!({"name": SOCKET_VARIABLE, "value": SOCKET_URI})),
        skip: Vec::new(),
        pull_secrets: Vec::new(),
        warnings: Vec::new(),
    }
}
