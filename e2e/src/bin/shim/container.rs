//! Becoming a container: cgroups, namespaces, a root of its own, a user, then the program.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use e2e::kubelet::spec::{ContainerSpec, Mount, Propagation};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, chdir, pivot_root, setgid, setgroups, setuid};

use crate::tether;

/// An empty folder of every Debian and Fedora; hidden only in the container's mount namespace.
const NEW_ROOT: &str = "/mnt";

const NOTHING: Option<&str> = None;

/// `shim run SPEC`
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let path = Path::new(args.first().context("a file with the container")?);
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let spec: ContainerSpec = serde_json::from_slice(&text).context("parse the container")?;
    tether::with_parent()?;
    for group in &spec.cgroups {
        enter_cgroup(group)?;
    }
    let network = spec.network_namespace.as_ref().map(File::open).transpose();
    let network = network.context("open the pod's network namespace")?;
    let node = File::open(&spec.mount_namespace).context("open the node's mount namespace")?;
    if let Some(network) = network {
        setns(network, CloneFlags::CLONE_NEWNET).context("enter the pod's network namespace")?;
    }
    setns(node, CloneFlags::CLONE_NEWNS).context("enter the node's mount namespace")?;
    unshare(CloneFlags::CLONE_NEWNS).context("leave the node's mount namespace")?;
    make_root(&spec).context("make the container's root")?;
    become_program(&spec)
}

/// `shim enter PID SPEC PROGRAM ARGS…`: a command in a running container, as for an `exec` probe.
pub(crate) fn enter(args: &[OsString]) -> Result<()> {
    let [pid, spec, command @ ..] = args else {
        anyhow::bail!("enter takes a process, a file and a command");
    };
    let text = fs::read(spec).context("read the container")?;
    let mut spec: ContainerSpec = serde_json::from_slice(&text).context("parse the container")?;
    spec.command = command
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    tether::with_parent()?;
    let process = Path::new("/proc").join(pid);
    let network = File::open(process.join("ns/net")).context("open its network namespace")?;
    let files = File::open(process.join("ns/mnt")).context("open its mount namespace")?;
    setns(network, CloneFlags::CLONE_NEWNET).context("enter its network namespace")?;
    setns(files, CloneFlags::CLONE_NEWNS).context("enter its mount namespace")?;
    become_program(&spec)
}

/// Another container's end may take the parent folder away between the two steps, so they are tried again.
fn enter_cgroup(group: &Path) -> Result<()> {
    const TRIES: usize = 10;
    let mut last = Ok(());
    for _ in 0..TRIES {
        last = fs::create_dir_all(group).and_then(|()| fs::write(group.join("cgroup.procs"), "0"));
        if last.is_ok() {
            break;
        }
    }
    last.with_context(|| format!("enter the cgroup {}", group.display()))
}

/// A root of tmpfs with the machine's `/usr` and `/etc` read-only and the container's mounts over it.
fn make_root(spec: &ContainerSpec) -> Result<()> {
    let root = Path::new(NEW_ROOT);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("tmpfs"),
        root,
        Some("tmpfs"),
        flags,
        Some("size=64m,mode=755"),
    )?;
    for name in ["proc", "usr", "etc", "dev", "run", "var/lib", "root", "old"] {
        fs::create_dir_all(root.join(name))?;
    }
    DirBuilder::new().mode(0o777).create(root.join("tmp"))?;
    fs::set_permissions(
        root.join("tmp"),
        std::os::unix::fs::PermissionsExt::from_mode(0o1777),
    )?;
    // As in every distribution's image.
    symlink("../run", root.join("var/run"))?;
    machine(root)?;
    for one in &spec.mounts {
        bind_one(root, one).with_context(|| {
            format!("mount {} on {}", one.source.display(), one.target.display())
        })?;
    }
    pivot_root(root, &root.join("old"))?;
    chdir("/")?;
    // Else the machine's mounts that are shared, a driver's among them, would go everywhere.
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(NOTHING, "/old", NOTHING, slave, NOTHING)?;
    umount2("/old", MntFlags::MNT_DETACH)?;
    fs::remove_dir("/old")?;
    if spec.read_only_root {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_BIND;
        mount(NOTHING, "/", NOTHING, flags, NOTHING)?;
    }
    Ok(())
}

/// What an image would bring: programs and libraries, without `/usr/local`; the process folder; harmless devices.
fn machine(root: &Path) -> Result<()> {
    for entry in fs::read_dir("/usr")? {
        let entry = entry?;
        let to = root.join("usr").join(entry.file_name());
        if entry.file_name() == "local" {
            fs::create_dir_all(to.join("bin"))?;
        } else if entry.file_name() == "bin" {
            programs(&to)?;
        } else if entry.file_type()?.is_dir() {
            bind(&entry.path(), &to, true)?;
        }
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        let from = Path::new("/").join(name);
        let to = root.join(name);
        if let Ok(target) = fs::read_link(&from) {
            symlink(target, to)?;
        } else if from.is_dir() {
            bind(&from, &to, true)?;
        }
    }
    bind(Path::new("/etc"), &root.join("etc"), true)?;
    bind(Path::new("/proc"), &root.join("proc"), false)?;
    for name in ["null", "zero", "full", "random", "urandom"] {
        let from = Path::new("/dev").join(name);
        bind(&from, &root.join("dev").join(name), false)?;
    }
    DirBuilder::new().mode(0o777).create(root.join("dev/shm"))?;
    Ok(())
}

/// `/usr/bin` as links, so that an image can have a program of its own there.
fn programs(to: &Path) -> Result<()> {
    const MACHINE: &str = "/usr/machine-bin";
    let beside = to.with_file_name("machine-bin");
    bind(Path::new("/usr/bin"), &beside, true)?;
    fs::create_dir_all(to)?;
    for entry in fs::read_dir("/usr/bin")? {
        let name = entry?.file_name();
        symlink(Path::new(MACHINE).join(&name), to.join(&name))?;
    }
    Ok(())
}

fn bind_one(root: &Path, one: &Mount) -> Result<()> {
    let target = root.join(one.target.strip_prefix("/").unwrap_or(&one.target));
    bind(&one.source, &target, one.read_only)?;
    let kind = match one.propagation {
        Propagation::Private => MsFlags::MS_PRIVATE,
        Propagation::Slave => MsFlags::MS_SLAVE,
        // As its source is.
        Propagation::Shared => return Ok(()),
    };
    mount(NOTHING, &target, NOTHING, kind | MsFlags::MS_REC, NOTHING)?;
    Ok(())
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    if source.is_dir() {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        fs::create_dir_all(target.parent().context("a folder")?)?;
        File::create(target)?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, NOTHING, flags, NOTHING)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(NOTHING, target, NOTHING, flags, NOTHING)?;
    }
    Ok(())
}

fn become_program(spec: &ContainerSpec) -> Result<()> {
    let groups: Vec<Gid> = spec.groups.iter().map(|id| Gid::from_raw(*id)).collect();
    setgroups(&groups).context("set the groups")?;
    setgid(Gid::from_raw(spec.gid)).context("set the group")?;
    setuid(Uid::from_raw(spec.uid)).context("set the user")?;
    // A change of the user forgets it.
    tether::with_parent()?;
    if spec.no_new_privileges {
        prctl::set_no_new_privs().context("give up new privileges")?;
    }
    let folder: &PathBuf = &spec.folder;
    chdir(folder).with_context(|| format!("enter {}", folder.display()))?;
    let (program, args) = spec.command.split_first().context("a command")?;
    let environment = spec.environment.iter().map(|(name, value)| (name, value));
    let error = Command::new(program)
        .args(args)
        .env_clear()
        .envs(environment)
        .exec();
    Err(error).with_context(|| format!("start {program}"))
}
