use proptest::prelude::*;

use super::*;

const UID: &str = "0d5e35e2-1e16-4f5b-a7e5-8cc3ca0d5f1a";
const OTHER: &str = "99999999-1e16-4f5b-a7e5-8cc3ca0d5f1a";

fn id(letter: char) -> String {
    letter.to_string().repeat(64)
}

/// Puts UID and container into a pattern: `U`, `S` (with underscores), `C`.
fn fill(pattern: &str) -> String {
    pattern
        .replace("{U}", UID)
        .replace("{S}", &UID.replace('-', "_"))
        .replace("{O}", OTHER)
        .replace("{C}", &id('c'))
        .replace("{D}", &id('d'))
}

fn ours() -> Container {
    Container {
        pod_uid: UID.to_owned(),
        id: Some(id('c')),
    }
}

#[test]
fn the_runtimes_ways() {
    for pattern in [
        // cgroupfs
        "11:memory:/kubepods/burstable/pod{U}/{C}",
        "0::/kubepods/besteffort/pod{U}/{C}",
        "0::/kubepods/pod{U}/{C}",
        "1:name=systemd:/kubepods/pod{U}/crio-{C}",
        // systemd
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{S}.slice/cri-containerd-{C}.scope",
        "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{S}.slice/crio-{C}.scope",
        "0::/kubepods.slice/kubepods-pod{S}.slice/docker-{C}.scope",
        "0::/kubepods.slice/kubepods-pod{S}.slice/libpod-{C}.scope",
        // a kubelet with a cgroup root of its own, kind's
        "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{S}.slice/cri-containerd-{C}.scope",
        "9:pids:/docker/{D}/kubelet/kubepods/besteffort/pod{U}/{C}",
        "0::/system.slice/docker-{D}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{S}.slice/cri-containerd-{C}.scope",
        // containerd without its systemd driver
        "0::/system.slice/containerd.service/kubepods-burstable-pod{S}.slice:cri-containerd:{C}",
        "0::/kubepods-pod{S}.slice:cri-containerd:{C}",
        // from within a cgroup namespace
        "0::/../../kubepods-burstable.slice/kubepods-burstable-pod{S}.slice/cri-containerd-{C}.scope",
        "0::/../../pod{U}/{C}",
        "0::/../../../burstable/pod{U}/{C}",
        // what the workload made below its own
        "0::/kubepods/burstable/pod{U}/{C}/init.scope",
        "0::/kubepods/burstable/pod{U}/{C}/system.slice/docker.service/x",
        "0::/kubepods/burstable/pod{U}/{C}/{D}",
        // version 1 and the unified tree beside each other
        "12:cpuset:/\n9:pids:/kubepods/burstable/pod{U}/{C}\n1:name=systemd:/kubepods/burstable/pod{U}/{C}\n0::/\n",
        "9:pids:/kubepods/burstable/pod{U}\n0::/kubepods/burstable/pod{U}/{C}",
    ] {
        assert_eq!(locate(&fill(pattern)), Ok(Some(ours())), "{pattern}");
    }
}

#[test]
fn a_static_pod_has_a_hash() {
    let hash = "5e0b1a2c3d4e5f60718293a4b5c6d7e8";
    let cgroup = format!("0::/kubepods/burstable/pod{hash}/{}", id('c'));
    let found = locate(&cgroup).unwrap().unwrap();
    assert_eq!((found.pod_uid.as_str(), found.id), (hash, Some(id('c'))));
}

#[test]
fn who_is_in_no_pod() {
    for pattern in [
        "",
        "0::/",
        "garbage",
        "0::/user.slice/user-1000.slice/session-1.scope",
        "0::/system.slice/docker-{C}.scope",
        "9:pids:/docker/{C}",
        "0::/pod{U}/{C}",
        "0::/burstable/pod{U}/{C}",
        "0::/machine.slice/pod{U}/{C}",
        "0::/kubepods/burstable/podX/{C}",
        "0::/kubepods/burstable/pod{S}/{C}",
        "0::/kubepods.slice/kubepods-pod{U}.slice/cri-containerd-{C}.scope",
        "0::/evilkubepods-pod{S}.slice/cri-containerd-{C}.scope",
    ] {
        assert_eq!(locate(&fill(pattern)), Ok(None), "{pattern}");
    }
}

#[test]
fn a_process_beside_the_containers() {
    for pattern in [
        "0::/kubepods/burstable/pod{U}",
        "0::/kubepods/burstable/pod{U}/short",
        "0::/kubepods.slice/kubepods-pod{S}.slice/crio-conmon-{C}.scope",
    ] {
        let expected = Container {
            pod_uid: UID.to_owned(),
            id: None,
        };
        assert_eq!(locate(&fill(pattern)), Ok(Some(expected)), "{pattern}");
    }
}

#[test]
fn as_03_forgeries_are_refused() {
    for (pattern, error) in [
        (
            "0::/kubepods/burstable/pod{O}/{D}/kubepods/burstable/pod{U}/{C}",
            CgroupError::Nested,
        ),
        (
            "0::/kubepods/pod{O}/{D}/kubepods.slice/kubepods-pod{S}.slice/docker-{C}.scope",
            CgroupError::Nested,
        ),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/kubepods/pod{U}/{C}",
            CgroupError::Misplaced,
        ),
        (
            "0::/system.slice/evil.service/kubepods/pod{U}/{C}",
            CgroupError::Misplaced,
        ),
        // The agent's own pod's neighbour, seen from the agent's cgroup namespace.
        (
            "0::/../{D}/kubepods/burstable/pod{U}/{C}",
            CgroupError::Misplaced,
        ),
        (
            "0::/../cri-containerd-{D}.scope/kubepods/pod{U}/{C}",
            CgroupError::Misplaced,
        ),
        (
            "9:pids:/kubepods/pod{U}/{C}\n0::/kubepods/pod{O}/{C}",
            CgroupError::Disagree,
        ),
        (
            "9:pids:/kubepods/pod{U}/{C}\n0::/kubepods/pod{U}/{D}",
            CgroupError::Disagree,
        ),
    ] {
        assert_eq!(locate(&fill(pattern)), Err(error), "{pattern}");
    }
}

proptest! {
    #[test]
    fn locating_never_panics(text in ".{0,300}") {
        let _ = locate(&text);
    }

    /// Whatever a workload makes below its cgroup, it is itself or nobody.
    #[test]
    fn as_03_nothing_below_a_container_makes_another_of_it(
        below in proptest::collection::vec(
            prop_oneof![
                Just(format!("pod{OTHER}")), Just("kubepods".to_owned()), Just("..".to_owned()),
                Just("burstable".to_owned()), Just(id('d')), Just(format!("cri-containerd-{}.scope", id('d'))),
                Just(format!("kubepods-pod{}.slice", OTHER.replace('-', "_"))),
                Just(format!("kubepods-pod{}.slice:docker:{}", OTHER.replace('-', "_"), id('d'))),
                "[a-z0-9.:_-]{1,12}",
            ],
            0..6,
        ),
    ) {
        let base = fill("/kubepods/burstable/pod{U}/{C}");
        let cgroup = format!("0::{base}/{}", below.join("/"));
        match locate(&cgroup) {
            Ok(found) => prop_assert_eq!(found, Some(ours())),
            Err(error) => prop_assert_eq!(error, CgroupError::Nested),
        }
    }
}
