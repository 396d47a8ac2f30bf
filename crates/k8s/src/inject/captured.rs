//! What of a pod is captured, and the init container that sees to it.

use serde_json::Value;

use super::annotations::{CAPTURE, Wanted};
use super::probes::{self, Probe};
use super::reason::Refusal;
use super::rules::Rules;
use super::sidecar::{self, UID_RANGE};
use super::upstream::{Problem, Upstream};
use super::{CAPTURE as NAME, Namespace, containers, name_of};
use crate::capture::{Interface, Net};

/// What a pod's annotations say of its capture; nothing is captured by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) inbound: bool,
    pub(crate) outbound: bool,
    pub(crate) skip_ports: Vec<u16>,
    pub(crate) skip_nets: Vec<Net>,
    pub(crate) skip_interfaces: Vec<Interface>,
}

/// What comes of it for this pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured {
    /// The app's ports in front of which Envoy stands.
    pub(crate) ports: Vec<u16>,
    /// Whether the app's connections to its upstreams are taken.
    pub(crate) outbound: bool,
    /// What the kubelet asks of these ports.
    pub(crate) probes: Vec<Probe>,
}

impl Asked {
    /// `inbound`, `outbound`, `all` or `off`.
    pub(crate) fn directions(text: &str) -> Result<(bool, bool), Problem> {
        match text {
            "inbound" => Ok((true, false)),
            "outbound" => Ok((false, true)),
            "all" => Ok((true, true)),
            "off" => Ok((false, false)),
            _ => Err(Problem(format!(
                "{text:?}: write inbound, outbound, all or off"
            ))),
        }
    }
}

impl Captured {
    /// `ports`: the app's TCP ports.
    pub(crate) fn plan(
        pod: &Value,
        wanted: &Wanted,
        ports: impl Iterator<Item = u16>,
        namespace: &Namespace,
        rules: &Rules,
    ) -> Result<Self, Refusal> {
        let asked = &wanted.capture;
        let network = wanted.upstreams.iter().find_map(Upstream::network);
        if let (Some(network), false) = (network, asked.outbound) {
            return Err(refuse(format!(
                "the upstream {network} is a network, of which only captured connections tell an address: write outbound or all"
            )));
        }
        if !asked.inbound && !asked.outbound {
            return Ok(Self::default());
        }
        refuse_pod(pod, wanted, namespace, rules)?;
        let mut captured = Self {
            outbound: asked.outbound && !wanted.upstreams.is_empty(),
            ..Self::default()
        };
        if asked.inbound {
            captured.ports = ports
                .filter(|port| !asked.skip_ports.contains(port))
                .collect();
            captured.ports.sort_unstable();
            captured.ports.dedup();
            captured.probes = probes::find(pod, &captured.ports);
        }
        if captured.ports.is_empty() && !captured.outbound {
            return Err(refuse(
                "nothing is there to capture: declare a containerPort or signet.dev/upstreams, or write off"
                    .to_owned(),
            ));
        }
        Ok(captured)
    }

    /// Whether there is anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.ports.is_empty() && !self.outbound
    }

    /// The init container that sets the rules.
    pub(crate) fn init(&self, wanted: &Wanted, rules: &Rules) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        let mut args = vec![
            "k8s".to_owned(),
            "capture".to_owned(),
            "--envoy-user".to_owned(),
            wanted.user.unwrap_or(rules.envoy.user).to_string(),
        ];
        let mut add = |flag: &str, values: Vec<String>| {
            if !values.is_empty() {
                args.extend([flag.to_owned(), values.join(",")]);
            }
        };
        add("--app-ports", texts(&self.ports));
        if !self.ports.is_empty() {
            add("--inbound-port", texts(&[rules.envoy.capture_port]));
        }
        let asked = &wanted.capture;
        add("--skip-cidrs", texts(&asked.skip_nets));
        let interfaces = asked.skip_interfaces.iter();
        add(
            "--skip-interfaces",
            interfaces.map(|name| name.as_str().to_owned()).collect(),
        );
        for upstream in wanted.upstreams.iter().filter(|_| self.outbound) {
            add(
                "--upstream",
                vec![format!("{}={}", upstream.local_port, upstream.authority())],
            );
        }
        Some(sidecar::capture(args, wanted, rules))
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn refuse(problem: String) -> Refusal {
    Refusal::annotation(CAPTURE, &Problem(problem))
}

/// Rules take `NET_ADMIN`, and a user that is Envoy's alone.
fn refuse_pod(
    pod: &Value,
    wanted: &Wanted,
    namespace: &Namespace,
    rules: &Rules,
) -> Result<(), Refusal> {
    let level = namespace.labels.get("pod-security.kubernetes.io/enforce");
    if let Some(level) = level
        && level != "privileged"
    {
        return Err(Refusal::CaptureForbidden(level.clone()));
    }
    if namespace.annotations.contains_key(UID_RANGE) {
        return Err(Refusal::CaptureUser(
            "OpenShift gives all containers of the namespace one user".to_owned(),
        ));
    }
    let user = wanted.user.unwrap_or(rules.envoy.user);
    for list in ["containers", "initContainers"] {
        for container in containers(pod, list) {
            let name = name_of(container);
            if name == NAME {
                return Err(Refusal::ContainerNameTaken(name.to_owned()));
            }
            if sidecar::user_of(pod, container) == Some(user) {
                return Err(Refusal::CaptureUser(format!(
                    "container {name} runs as user {user}, as Envoy does"
                )));
            }
        }
    }
    Ok(())
}
