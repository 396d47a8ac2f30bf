//! The annotations, and what a pod's ones say.

use std::collections::BTreeMap;

use serde_json::Value;

use super::SOCKET_VARIABLE;
use super::captured::Asked;
use super::quantity::Quantity;
use super::reason::Refusal;
use super::rules::{LOG_LEVELS, Mode, PullPolicy, Resources, Rules};
use super::upstream::{self, Pattern, Problem, Upstream};

mod table;

pub use self::table::{ANNOTATIONS, Annotation, INJECT, MODE, STATUS};

use self::table::{
    ALLOW, APP_PORT, CAPTURE_SKIP_CIDRS, CAPTURE_SKIP_INTERFACES, CAPTURE_SKIP_PORTS, CPU_LIMIT,
    CPU_REQUEST, ENV, GRACE_PERIOD, HOLD_APP, IMAGE, LOG_LEVEL, MEMORY_LIMIT, MEMORY_REQUEST,
    METRICS_PORT, NATIVE_SIDECAR, PORT, PROTOCOL, PULL_POLICY, RUN_AS_USER, SKIP_CONTAINERS,
    STORAGE_LIMIT, STORAGE_REQUEST,
};
pub(crate) use self::table::{CAPTURE, UPSTREAMS};

/// `terminationGracePeriodSeconds` of a pod that does not say.
const GRACE_OF_PODS: u64 = 30;
/// Variables by which a value would become code (as `LD_…` would), or that the injector sets: the address stands in
/// Envoy's configuration, the socket says whose identity is fetched.
const RESERVED: [&str; 5] = [
    "GLIBC_TUNABLES",
    "PATH",
    "POD_NAME",
    "SIGNET_POD_IP",
    SOCKET_VARIABLE,
];

/// What the app speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Tcp,
}

/// What a pod's annotations ask for, the rules' defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) skip: Vec<String>,
    pub(crate) native: Option<bool>,
    pub(crate) hold: bool,
    pub(crate) app_port: Option<u16>,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) allow: Vec<Pattern>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) metrics_port: u16,
    pub(crate) capture: Asked,
    pub(crate) image: String,
    pub(crate) pull_policy: PullPolicy,
    pub(crate) log_level: String,
    pub(crate) user: Option<u32>,
    pub(crate) grace: Option<u64>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) resources: Resources,
    pub(crate) warnings: Vec<String>,
}

impl Wanted {
    /// Reads a pod's annotations.
    pub(crate) fn read(pod: &Value, mode: Mode, rules: &Rules) -> Result<Self, Refusal> {
        let own = &rules.trust_domain;
        let mut reader = Reader {
            annotations: pod.pointer("/metadata/annotations"),
            warnings: Vec::new(),
        };
        let image = if mode == Mode::Envoy {
            &rules.images.envoy
        } else {
            &rules.images.signet
        };
        let mut wanted = Self {
            skip: reader.get(SKIP_CONTAINERS).map(names).unwrap_or_default(),
            native: reader.strict(NATIVE_SIDECAR, boolean)?,
            hold: reader.strict(HOLD_APP, boolean)?.unwrap_or(false),
            app_port: reader.strict(APP_PORT, upstream::parse_port)?,
            port: reader
                .strict(PORT, upstream::parse_port)?
                .unwrap_or(rules.envoy.port),
            protocol: reader.strict(PROTOCOL, protocol)?.unwrap_or(Protocol::Http),
            allow: reader
                .strict(ALLOW, |text| upstream::parse_allow(text, own))?
                .unwrap_or_default(),
            upstreams: reader
                .strict(UPSTREAMS, |text| upstream::parse_upstreams(text, own))?
                .unwrap_or_default(),
            metrics_port: reader
                .strict(METRICS_PORT, upstream::parse_port)?
                .unwrap_or(rules.envoy.metrics_port),
            capture: reader.capture()?,
            image: reader
                .lenient(IMAGE, image_name)
                .unwrap_or_else(|| image.clone()),
            pull_policy: reader
                .lenient(PULL_POLICY, pull_policy)
                .unwrap_or(rules.images.pull_policy),
            log_level: reader
                .lenient(LOG_LEVEL, log_level)
                .unwrap_or_else(|| rules.envoy.log_level.clone()),
            user: reader.lenient(RUN_AS_USER, user),
            grace: reader.grace(pod, rules),
            env: reader.lenient(ENV, environment).unwrap_or_default(),
            resources: Resources::default(),
            warnings: Vec::new(),
        };
        wanted.resources = reader.resources(if mode == Mode::Envoy {
            &rules.envoy.resources
        } else {
            &rules.files.resources
        });
        if mode != Mode::Socket {
            wanted.warnings = reader.warnings;
        }
        wanted.warnings.extend(table::idle(pod, mode));
        Ok(wanted)
    }
}

struct Reader<'a> {
    annotations: Option<&'a Value>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.annotations?.get(name)?.as_str()
    }

    /// A value that must be right: a wrong one is refused.
    fn strict<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&'a str) -> Result<T, Problem>,
    ) -> Result<Option<T>, Refusal> {
        let parsed = self.get(name).map(|text| parse(text.trim()));
        parsed
            .transpose()
            .map_err(|problem| Refusal::annotation(name, &problem))
    }

    fn capture(&self) -> Result<Asked, Refusal> {
        let directions = self.strict(CAPTURE, Asked::directions)?;
        let (inbound, outbound) = directions.unwrap_or((false, false));
        let ports = self.strict(CAPTURE_SKIP_PORTS, upstream::parse_ports)?;
        let nets = self.strict(CAPTURE_SKIP_CIDRS, upstream::parse_nets)?;
        let interfaces = self.strict(CAPTURE_SKIP_INTERFACES, upstream::parse_interfaces)?;
        Ok(Asked {
            inbound,
            outbound,
            skip_ports: ports.unwrap_or_default(),
            skip_nets: nets.unwrap_or_default(),
            skip_interfaces: interfaces.unwrap_or_default(),
        })
    }

    /// A value the pod can do without: a wrong one is told and the default taken.
    fn lenient<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&'a str) -> Result<T, Problem>,
    ) -> Option<T> {
        match parse(self.get(name)?.trim()) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.warnings
                    .push(format!("annotation {name}: {problem}; the default is used"));
                None
            }
        }
    }

    /// More than the pod has, or a hook that the cluster does not know, would make the API server refuse the pod.
    fn grace(&mut self, pod: &Value, rules: &Rules) -> Option<u64> {
        let wanted = self.lenient(GRACE_PERIOD, seconds)?;
        if !rules.cluster.has_sleep_hooks() {
            self.warnings.push(format!(
                "annotation {GRACE_PERIOD} needs Kubernetes 1.30 or newer: left out"
            ));
            return None;
        }
        let pod = pod.pointer("/spec/terminationGracePeriodSeconds");
        let longest = pod.and_then(Value::as_u64).unwrap_or(GRACE_OF_PODS);
        if wanted > longest {
            self.warnings.push(format!(
                "annotation {GRACE_PERIOD}: {wanted}s is more than the pod's terminationGracePeriodSeconds: {longest}s is used"
            ));
        }
        Some(wanted.min(longest)).filter(|seconds| *seconds > 0)
    }

    fn resources(&mut self, default: &Resources) -> Resources {
        let mut quantity = |name, default: &Option<String>| {
            let given = self.lenient(name, |text| {
                Quantity::parse(text)
                    .map(|_| text.to_owned())
                    .map_err(|why| Problem(format!("{text:?}: {why}")))
            });
            given.or_else(|| default.clone())
        };
        let cpu = (
            quantity(CPU_REQUEST, &default.cpu_request),
            quantity(CPU_LIMIT, &default.cpu_limit),
        );
        let memory = (
            quantity(MEMORY_REQUEST, &default.memory_request),
            quantity(MEMORY_LIMIT, &default.memory_limit),
        );
        let storage = (
            quantity(STORAGE_REQUEST, &default.ephemeral_storage_request),
            quantity(STORAGE_LIMIT, &default.ephemeral_storage_limit),
        );
        let (cpu_request, cpu_limit) = self.ordered("cpu", cpu);
        let (memory_request, memory_limit) = self.ordered("memory", memory);
        let (ephemeral_storage_request, ephemeral_storage_limit) =
            self.ordered("ephemeral-storage", storage);
        Resources {
            cpu_request,
            cpu_limit,
            memory_request,
            memory_limit,
            ephemeral_storage_request,
            ephemeral_storage_limit,
        }
    }

    /// A limit below its request would make the API server refuse the pod.
    fn ordered(
        &mut self,
        resource: &str,
        pair: (Option<String>, Option<String>),
    ) -> (Option<String>, Option<String>) {
        if let (Some(request), Some(limit)) = &pair
            && let (Ok(low), Ok(high)) = (Quantity::parse(request), Quantity::parse(limit))
            && high < low
        {
            self.warnings.push(format!(
                "the {resource} limit {limit} is below the request {request}: raised to it"
            ));
            return (pair.0.clone(), pair.0);
        }
        pair
    }
}

fn names(text: &str) -> Vec<String> {
    let items = text.split(|c: char| c == ',' || c.is_whitespace());
    items
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

fn boolean(text: &str) -> Result<bool, Problem> {
    text.parse()
        .map_err(|_| Problem(format!("{text:?}: write true or false")))
}

fn protocol(text: &str) -> Result<Protocol, Problem> {
    match text {
        "http" => Ok(Protocol::Http),
        "tcp" => Ok(Protocol::Tcp),
        _ => Err(Problem(format!("{text:?}: write http or tcp"))),
    }
}

fn image_name(text: &str) -> Result<String, Problem> {
    // A name begins with no dash: whatever handles it later must not take it for an option.
    let good = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c);
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') || !text.chars().all(good)
    {
        return Err(Problem(format!("{text:?} is no image name")));
    }
    Ok(text.to_owned())
}

fn pull_policy(text: &str) -> Result<PullPolicy, Problem> {
    PullPolicy::named(text)
        .ok_or_else(|| Problem(format!("{text:?}: write IfNotPresent, Always or Never")))
}

fn log_level(text: &str) -> Result<String, Problem> {
    if LOG_LEVELS.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(Problem(format!(
        "{text:?}: write one of {}",
        LOG_LEVELS.join(", ")
    )))
}

fn user(text: &str) -> Result<u32, Problem> {
    match text.parse::<u32>() {
        Ok(user) if user > 0 && i32::try_from(user).is_ok() => Ok(user),
        _ => Err(Problem(format!(
            "{text:?}: write a user ID from 1 to {}",
            i32::MAX
        ))),
    }
}

fn seconds(text: &str) -> Result<u64, Problem> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(u64::from(seconds)),
        _ => Err(Problem(format!(
            "{text:?}: write whole seconds, such as 10s"
        ))),
    }
}

fn environment(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut all = BTreeMap::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let (name, value) = item.split_once('=').unwrap_or((item, ""));
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !item.contains('=')
            || name.is_empty()
            || !name.bytes().all(good)
            || name.as_bytes()[0].is_ascii_digit()
        {
            return Err(Problem(format!("{item:?}: write NAME=value")));
        }
        if name.starts_with("LD_") || RESERVED.contains(&name) {
            return Err(Problem(format!("{name} cannot be set here: remove it")));
        }
        if value.contains('\0') {
            return Err(Problem(format!("{item:?} has a NUL: remove it")));
        }
        all.insert(name.to_owned(), value.to_owned());
    }
    Ok(all.into_iter().collect())
}
