//! One container: its process, cgroups and health.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::task::AbortHandle;

use super::cgroup::{self, Cgroups};
use super::images::Image;
use super::node::Node;
use super::spec::{ContainerSpec, Mount, Propagation};
use super::{environment, list, probe, text};
use crate::cluster::Tethered;
use crate::netns::NetNs;

/// What the pod gives to each of its containers.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) network: NetNs,
    /// The pod's address.
    pub(super) address: String,
    pub(super) volumes: BTreeMap<String, PathBuf>,
    pub(super) hosts: PathBuf,
    pub(super) class: String,
}

/// A started container; killed when dropped.
#[derive(Debug)]
pub(super) struct Container {
    /// 64 hex digits.
    pub(super) id: String,
    pub(super) started_at: Timestamp,
    pub(super) health: Arc<Health>,
    process: Tethered,
    prober: AbortHandle,
    // After the process: it is what runs in them.
    cgroups: Cgroups,
}

/// What its probes say.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) started: AtomicBool,
    pub(super) ready: AtomicBool,
    pub(super) unhealthy: AtomicBool,
}

/// How a container ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) id: String,
    pub(super) code: i32,
    pub(super) started_at: Timestamp,
    pub(super) at: Timestamp,
}

impl Container {
    pub(super) async fn start(
        node: &Node,
        pod: &Value,
        around: &Surroundings,
        container: &Value,
    ) -> Result<Self> {
        let name = text(container, "/name")?;
        let id = fresh_id()?;
        let reference = text(container, "/image")?;
        let image = node.images().find(reference);
        let image = image.with_context(|| {
            format!("image {reference}: the test kubelet has no program for it")
        })?;
        let path = cgroup::pod_path(&around.class, text(pod, "/metadata/uid")?);
        let cgroups = Cgroups::new(&path, &id, &node.path("cgroups"))?;
        let spec = describe(node, pod, around, container, image, cgroups.folders()).await?;
        let file = node.path(&format!("{id}.json"));
        crate::cluster::private(&file, &serde_json::to_string(&spec)?)?;
        let log = node.logs().join(format!(
            "{}_{}_{name}.log",
            text(pod, "/metadata/namespace")?,
            text(pod, "/metadata/name")?
        ));
        let args: [OsString; 2] = ["run".into(), file.into()];
        let process = Tethered::shim(name, args, &log)?;
        let health = Arc::new(Health::default());
        let target = probe::Target::new(node, around, container, (&id, process.pid()));
        let prober = probe::watch(container, target, Arc::clone(&health));
        Ok(Self {
            id,
            started_at: Timestamp::now(),
            health,
            process,
            prober,
            cgroups,
        })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.process.ended().ok().flatten()?;
        let code = status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal));
        Some(Ended {
            id: self.id.clone(),
            code: code.unwrap_or(-1),
            started_at: self.started_at,
            at: Timestamp::now(),
        })
    }

    /// Asks it to end.
    pub(super) fn terminate(&mut self) {
        self.prober.abort();
        let _ = self.process.signal(Signal::SIGTERM);
    }

    /// Ends it and its children now.
    pub(super) fn kill(&mut self) {
        self.cgroups.kill();
        let _ = self.process.signal(Signal::SIGKILL);
    }

    /// Ends it now; tells how that looks.
    pub(super) fn killed(self) -> Ended {
        Ended {
            id: self.id.clone(),
            code: 137,
            started_at: self.started_at,
            at: Timestamp::now(),
        }
    }

    /// Where its probes and hooks run.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.prober.abort();
        self.kill();
    }
}

async fn describe(
    node: &Node,
    pod: &Value,
    around: &Surroundings,
    container: &Value,
    image: &Image,
    cgroups: &[PathBuf],
) -> Result<ContainerSpec> {
    let (of_container, of_pod) = (
        &container["securityContext"],
        &pod["spec"]["securityContext"],
    );
    let setting = |name: &str| {
        [of_container, of_pod]
            .into_iter()
            .find_map(|at| at.get(name))
    };
    let number = |name: &str| {
        let value = setting(name).and_then(Value::as_u64);
        value.and_then(|value| u32::try_from(value).ok())
    };
    let uid = number("runAsUser").unwrap_or(image.user);
    let non_root = setting("runAsNonRoot").and_then(Value::as_bool);
    ensure!(
        uid != 0 || non_root != Some(true),
        "container has runAsNonRoot and image will run as root"
    );
    let groups = list(of_pod, "/supplementalGroups")
        .iter()
        .chain(of_pod.get("fsGroup"));
    let environment = environment::resolve(node, pod, container).await?;
    Ok(ContainerSpec {
        cgroups: cgroups.to_vec(),
        mount_namespace: node.mount_namespace(),
        network_namespace: around.network.path().map(Path::to_owned),
        mounts: mounts(around, container, image)?,
        read_only_root: of_container["readOnlyRootFilesystem"] == true,
        uid,
        gid: number("runAsGroup").unwrap_or(uid),
        groups: groups
            .filter_map(Value::as_u64)
            .filter_map(|group| u32::try_from(group).ok())
            .collect(),
        no_new_privileges: of_container["allowPrivilegeEscalation"] == false,
        folder: PathBuf::from(container["workingDir"].as_str().unwrap_or("/")),
        command: command(container, image, &environment),
        environment,
    })
}

fn mounts(around: &Surroundings, container: &Value, image: &Image) -> Result<Vec<Mount>> {
    let plain = |source: &Path, target: &Path| Mount {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: true,
        propagation: Propagation::Private,
    };
    let mut mounts: Vec<Mount> = image
        .files
        .iter()
        .map(|(file, place)| plain(file, place))
        .collect();
    mounts.push(plain(&around.hosts, Path::new("/etc/hosts")));
    let mut wanted = list(container, "/volumeMounts").to_vec();
    // An outer one would hide an inner one.
    wanted.sort_by_key(|mount| mount["mountPath"].as_str().map_or(0, str::len));
    for mount in &wanted {
        let name = text(mount, "/name")?;
        let volume = around.volumes.get(name);
        let mut source = volume.with_context(|| format!("no volume {name}"))?.clone();
        if let Some(path) = mount["subPath"].as_str() {
            source.push(path);
        }
        mounts.push(Mount {
            source,
            target: PathBuf::from(text(mount, "/mountPath")?),
            read_only: mount["readOnly"] == true,
            propagation: match mount["mountPropagation"].as_str() {
                Some("HostToContainer") => Propagation::Slave,
                Some("Bidirectional") => Propagation::Shared,
                _ => Propagation::Private,
            },
        });
    }
    Ok(mounts)
}

fn command(
    container: &Value,
    image: &Image,
    environment: &environment::Environment,
) -> Vec<String> {
    let words = |name: &str| {
        let words = list(container, name).iter().filter_map(Value::as_str);
        words
            .map(|word| environment::expand(word, environment))
            .collect::<Vec<_>>()
    };
    let (command, args) = (words("/command"), words("/args"));
    match (command.is_empty(), args.is_empty()) {
        (false, _) => [command, args].concat(),
        (true, true) => image.entrypoint.clone(),
        // `args` replaces the image's arguments, not its program.
        (true, false) => image
            .entrypoint
            .iter()
            .take(1)
            .cloned()
            .chain(args)
            .collect(),
    }
}

fn fresh_id() -> Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(identity::hex(&bytes))
}
