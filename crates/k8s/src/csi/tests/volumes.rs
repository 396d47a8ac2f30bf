//! What is bound, when it is bound anew, and when it goes.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::*;

#[test]
fn csi_02_publish_and_unpublish_may_come_twice_and_never_stack() {
    in_own_mounts(|| {
        let node = Node::new();
        let mounts = node.mounts();
        for _ in 0..3 {
            mounts.publish(&node.target()).unwrap();
            assert_eq!(node.mounted(), 1);
        }
        assert_eq!(mounts.health(&node.target()).unwrap(), Health::Good);
        for _ in 0..3 {
            mounts.unpublish(&node.target()).unwrap();
            assert_eq!(node.mounted(), 0);
            assert!(!node.target().exists());
        }
        assert_eq!(mounts.count(), 0);
        assert!(
            node.path("agent").exists(),
            "the agent's folder is left alone"
        );
    });
}

#[test]
fn csi_07_a_pod_reaches_the_socket_and_nothing_more() {
    in_own_mounts(|| {
        let node = Node::new();
        // The agent comes after the volume.
        node.mounts().publish(&node.target()).unwrap();
        let listener = StdListener::bind(node.path("agent/spire-agent.sock")).unwrap();
        let mut caller = UnixStream::connect(node.target().join("spire-agent.sock")).unwrap();
        caller.write_all(b"hello").unwrap();
        drop(caller);
        let mut heard = String::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_string(&mut heard)
            .unwrap();
        assert_eq!(heard, "hello");
        let flags = statvfs(&node.target()).unwrap().flags();
        assert!(
            flags.contains(FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC),
            "{flags:?}"
        );
        // Read-only it becomes in the container, by the kubelet; here labels are still to be set.
        assert!(!flags.contains(FsFlags::ST_RDONLY), "{flags:?}");
        node.mounts().unpublish(&node.target()).unwrap();
    });
}

#[test]
fn csi_04_a_folder_that_was_made_anew_is_bound_anew() {
    in_own_mounts(|| {
        let node = Node::new();
        let mounts = node.mounts();
        mounts.publish(&node.target()).unwrap();
        assert_eq!(mounts.heal(), 0);
        std::fs::rename(node.path("agent"), node.path("old")).unwrap();
        assert_eq!(mounts.health(&node.target()).unwrap(), Health::Stale);
        // Without an agent there is nothing to bind; what is there stays.
        assert_eq!((mounts.heal(), node.mounted()), (0, 1));
        std::fs::create_dir(node.path("agent")).unwrap();
        std::fs::write(node.path("agent/new"), "").unwrap();
        assert_eq!((mounts.heal(), node.mounted()), (1, 1));
        assert!(node.target().join("new").exists());
        assert_eq!(
            (mounts.heal(), mounts.health(&node.target()).unwrap()),
            (0, Health::Good)
        );
        // A publish heals, too.
        std::fs::rename(node.path("agent"), node.path("older")).unwrap();
        std::fs::create_dir(node.path("agent")).unwrap();
        mounts.publish(&node.target()).unwrap();
        assert_eq!(
            (node.mounted(), mounts.health(&node.target()).unwrap()),
            (1, Health::Good)
        );
        mounts.unpublish(&node.target()).unwrap();
    });
}

/// The kubelet takes volumes away while others are bound anew.
#[test]
fn csi_04_what_is_taken_away_meanwhile_is_not_bound_anew() {
    in_own_mounts(|| {
        let node = Node::new();
        let mounts = node.mounts();
        for turn in 0..300 {
            mounts.publish(&node.target()).unwrap();
            std::fs::rename(node.path("agent"), node.path(&format!("old-{turn}"))).unwrap();
            std::fs::create_dir(node.path("agent")).unwrap();
            std::thread::scope(|threads| {
                threads.spawn(|| mounts.heal());
                threads.spawn(|| mounts.unpublish(&node.target()).unwrap());
            });
            assert_eq!((node.mounted(), mounts.count()), (0, 0), "turn {turn}");
            assert!(!node.target().exists(), "turn {turn}");
        }
    });
}

/// The driver's own view of the agent's folder is a mount, too.
#[test]
fn csi_04_a_driver_that_holds_a_removed_folder_knows() {
    in_own_mounts(|| {
        let node = Node::new();
        let view = node.path("view");
        std::fs::create_dir(&view).unwrap();
        let bind = || {
            let flags = MsFlags::MS_BIND;
            mount(
                Some(&node.path("agent")),
                &view,
                None::<&str>,
                flags,
                None::<&str>,
            )
            .unwrap();
        };
        bind();
        let mounts = || Mounts::new(view.clone(), node.path("pods"));
        let before = mounts();
        before.publish(&node.target()).unwrap();
        assert!(!before.source_is_removed());
        std::fs::remove_dir(node.path("agent")).unwrap();
        std::fs::create_dir(node.path("agent")).unwrap();
        assert!(before.source_is_removed());
        assert_eq!(before.heal(), 0);
        // The container starts anew.
        nix::mount::umount(&view).unwrap();
        bind();
        let after = mounts();
        assert!(!after.source_is_removed());
        after.adopt([node.target()]);
        assert_eq!((after.heal(), node.mounted()), (1, 1));
        after.unpublish(&node.target()).unwrap();
        nix::mount::umount(&view).unwrap();
    });
}

#[test]
fn csi_02_csi_12_a_volume_goes_without_agent_and_after_a_reboot() {
    in_own_mounts(|| {
        let node = Node::new();
        node.mounts().publish(&node.target()).unwrap();
        std::fs::remove_dir(node.path("agent")).unwrap();
        node.mounts().unpublish(&node.target()).unwrap();
        assert!(!node.target().exists());
        // After a reboot the folder is there, and nothing is mounted on it.
        std::fs::create_dir(node.target()).unwrap();
        assert_eq!(
            node.mounts().health(&node.target()).unwrap(),
            Health::NotMounted
        );
        node.mounts().unpublish(&node.target()).unwrap();
        assert!(!node.target().exists());
        let refused = node.mounts().publish(&node.target());
        assert!(
            matches!(refused, Err(MountError::NoSource { .. })),
            "{refused:?}"
        );
        assert_eq!(node.mounted(), 0);
    });
}

#[test]
fn csi_02_what_others_stacked_is_taken_away() {
    in_own_mounts(|| {
        let node = Node::new();
        node.mounts().publish(&node.target()).unwrap();
        std::fs::create_dir(node.path("other")).unwrap();
        for _ in 0..2 {
            let flags = MsFlags::MS_BIND;
            mount(
                Some(&node.path("other")),
                &node.target(),
                None::<&str>,
                flags,
                None::<&str>,
            )
            .unwrap();
        }
        assert_eq!(node.mounted(), 3);
        node.mounts().publish(&node.target()).unwrap();
        assert_eq!(node.mounted(), 1);
        node.mounts().unpublish(&node.target()).unwrap();
    });
}

#[test]
fn csi_06_a_link_in_place_of_the_volume_is_not_followed() {
    in_own_mounts(|| {
        let node = Node::new();
        std::fs::create_dir(node.path("victim")).unwrap();
        std::os::unix::fs::symlink(node.path("victim"), node.target()).unwrap();
        for refused in [
            node.mounts().publish(&node.target()),
            node.mounts().unpublish(&node.target()),
        ] {
            assert!(
                matches!(refused, Err(MountError::Target(TargetError::Link(_)))),
                "{refused:?}"
            );
        }
        assert!(node.path("victim").exists());
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains("victim"));
    });
}

#[test]
fn volumes_of_an_earlier_run_are_taken_up() {
    let node = Node::new();
    let data =
        |driver: &str| format!(r#"{{"driverName":"{driver}","volumeLifecycleMode":"Ephemeral"}}"#);
    let volumes = node.path("pods/uid-1/volumes/kubernetes.io~csi");
    for (volume, driver, mounted) in [
        ("spiffe", "csi.spiffe.io", true),
        ("gone", "csi.spiffe.io", false),
        ("other", "ebs.csi.aws.com", true),
    ] {
        std::fs::create_dir_all(volumes.join(volume)).unwrap();
        std::fs::write(volumes.join(volume).join("vol_data.json"), data(driver)).unwrap();
        if mounted {
            std::fs::create_dir(volumes.join(volume).join("mount")).unwrap();
        }
    }
    assert_eq!(
        published(&node.path("pods"), "csi.spiffe.io"),
        [node.target()]
    );
    assert_eq!(
        published(&node.path("nothing"), "csi.spiffe.io"),
        Vec::<PathBuf>::new()
    );
}
