//! Which container of which pod a process is in, by the kernel's word: `/proc/<pid>/cgroup`.
//!
//! A process may make cgroups below its own and name them as it likes, so a name counts only where the kubelet, or the
//! container runtime, put it: a pod's cgroup below `kubepods`, and the container's right below the pod's. What a workload adds
//! lies further in. `/proc/<pid>/mountinfo` is not asked: a workload can shape it by bind mounts.

/// Which container a process is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The pod's UID; for a static pod the hash that stands for one.
    pub pod_uid: String,
    /// The container's ID, 64 hex digits; `None` when the process is in the pod's cgroup, but in none of its containers'.
    pub id: Option<String>,
}

/// Why the cgroups do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CgroupError {
    /// Two hierarchies name different containers.
    #[error("its cgroups are of different containers")]
    Disagree,
    /// One path names two pods: a cluster in a cluster, or a forgery.
    #[error("its cgroup is a pod's in another pod's")]
    Nested,
    /// A pod's name where no kubelet puts it.
    #[error(
        "its cgroup is named as a pod's, but lies where users, services or containers may make their own"
    )]
    Misplaced,
}

/// Services that the kubelet or the container runtime may run pods below.
const RUNTIMES: &[&str] = &[
    "containerd.service",
    "crio.service",
    "docker.service",
    "k3s-agent.service",
    "k3s.service",
    "kubelet.service",
    "rke2-agent.service",
    "rke2-server.service",
];

/// What runtimes put before a container's ID.
const DRIVERS: &[&str] = &["containerd", "cri-containerd", "crio", "docker", "libpod"];

/// Reads a `cgroup` file: one line `<hierarchy>:<controllers>:<path>` for each hierarchy, version 1 and 2. `None`: the
/// process is in no pod.
///
/// # Errors
/// When the lines, or parts of one, contradict each other.
pub fn locate(cgroup: &str) -> Result<Option<Container>, CgroupError> {
    let mut found: Option<Container> = None;
    for line in cgroup.lines() {
        let Some(path) = line.splitn(3, ':').nth(2) else {
            continue;
        };
        let Some(new) = locate_path(path)? else {
            continue;
        };
        found = Some(match found.take() {
            None => new,
            Some(old) if old.pod_uid != new.pod_uid => return Err(CgroupError::Disagree),
            Some(old) => match (&old.id, &new.id) {
                (Some(one), Some(two)) if one != two => return Err(CgroupError::Disagree),
                (Some(_), _) => old,
                (None, _) => new,
            },
        });
    }
    Ok(found)
}

fn locate_path(path: &str) -> Result<Option<Container>, CgroupError> {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let mut pods = (0..names.len()).filter_map(|at| Some((at, pod(&names, at)?)));
    let Some((at, (pod_uid, id))) = pods.next() else {
        return Ok(None);
    };
    if pods.next().is_some() {
        return Err(CgroupError::Nested);
    }
    // Seen from a cgroup namespace, what lies between may be cut off: then a container's part could be a pretender's.
    let relative = names[0] == "..";
    if names[..at]
        .iter()
        .any(|name| !may_hold_pods(name, relative))
    {
        return Err(CgroupError::Misplaced);
    }
    let id = id.or_else(|| names.get(at + 1).and_then(|name| container(name)));
    Ok(Some(Container { pod_uid, id }))
}

/// Whether a cgroup of this name may lie above the kubelet's.
fn may_hold_pods(name: &str, relative: bool) -> bool {
    if name == "user.slice" || (name.ends_with(".service") && !RUNTIMES.contains(&name)) {
        return false;
    }
    // A node that is a container itself, as kind's are.
    !relative || !(name.ends_with(".scope") || is_hex(name, 64))
}

/// The UID of the pod whose cgroup is `names[at]`, and the container where that name tells it, too.
fn pod(names: &[&str], at: usize) -> Option<(String, Option<String>)> {
    let name = names[at];
    if let Some(uid) = name.strip_prefix("pod") {
        let above = |levels: usize| at.checked_sub(levels).map(|above| names[above]);
        let root = |name: Option<&str>| matches!(name, Some("kubepods" | ".."));
        let by_class = matches!(above(1), Some("besteffort" | "burstable")) && root(above(2));
        return (root(above(1)) || by_class)
            .then(|| uid_of(uid, '-'))?
            .map(|uid| (uid, None));
    }
    // containerd without its systemd driver under a kubelet with it: `<slice>:cri-containerd:<id>`.
    let (slice, rest) = name
        .split_once(':')
        .map_or((name, None), |(slice, rest)| (slice, Some(rest)));
    let (class, uid) = slice.strip_suffix(".slice")?.rsplit_once("-pod")?;
    let class = ["-besteffort", "-burstable"]
        .iter()
        .find_map(|suffix| class.strip_suffix(suffix))
        .unwrap_or(class);
    if class != "kubepods" && !class.ends_with("-kubepods") {
        return None;
    }
    let id = rest.and_then(|rest| rest.split_once(':'));
    let id = id.filter(|(driver, id)| DRIVERS.contains(driver) && is_hex(id, 64));
    Some((uid_of(uid, '_')?, id.map(|(_, id)| id.to_owned())))
}

/// The ID of the container whose cgroup is `name`.
fn container(name: &str) -> Option<String> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = match name.rsplit_once('-') {
        Some((driver, id)) if DRIVERS.contains(&driver) => id,
        Some(_) => return None,
        None => name,
    };
    is_hex(id, 64).then(|| id.to_owned())
}

/// A UID, written with `separator`; or the 32 digits that stand for one.
fn uid_of(text: &str, separator: char) -> Option<String> {
    if is_hex(text, 32) {
        return Some(text.to_owned());
    }
    let groups: Vec<&str> = text.split(separator).collect();
    let lengths = [8, 4, 4, 4, 12];
    let right = groups.len() == lengths.len()
        && groups
            .iter()
            .zip(lengths)
            .all(|(group, length)| is_hex(group, length));
    right.then(|| groups.join("-"))
}

/// Lower-case hex digits, so many.
fn is_hex(text: &str, length: usize) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == length && text.bytes().all(digit)
}

#[cfg(test)]
mod tests;
