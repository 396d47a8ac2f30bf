use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::geteuid;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::node_client::NodeClient;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use proto::csi::v1::{
    GetPluginInfoRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest,
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest, ProbeRequest,
    VolumeCapability,
};
use proto::pluginregistration::registration_client::RegistrationClient;
use proto::pluginregistration::{InfoRequest, RegistrationStatus};
use runtime::Supervisor;
use tempfile::TempDir;
use tonic::Code;

use super::*;

/// Runs `test` where its mounts are its own. Says so when this user may not.
fn in_own_mounts(test: impl FnOnce() + Send + 'static) {
    if !geteuid().is_root() {
        testkit::skipped("mounting needs root; run this test as root");
        return;
    }
    // A thread of its own has a mount namespace of its own, and so have the threads it starts.
    let thread = std::thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            testkit::skipped(format_args!("no mount namespace can be made here: {error}"));
            return;
        }
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
        test();
    });
    thread.join().unwrap();
}

/// A node: an agent's folder, and a pod's volume.
struct Node {
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "agent",
            "registration",
            "pods/uid-1/volumes/kubernetes.io~csi/spiffe",
        ] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn target(&self) -> PathBuf {
        self.path("pods/uid-1/volumes/kubernetes.io~csi/spiffe/mount")
    }

    fn mounts(&self) -> Mounts {
        Mounts::new(self.path("agent"), self.path("pods"))
    }

    /// How many mounts there are on the volume.
    fn mounted(&self) -> usize {
        let target = self.target();
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let target = target.to_str().unwrap();
        let at = |line: &&str| line.split(' ').nth(4) == Some(target);
        mounts.lines().filter(at).count()
    }

    fn config(&self) -> Config {
        Config {
            driver_name: "csi.spiffe.io".to_owned(),
            node_id: "node-1".to_owned(),
            socket: self.path("csi.sock"),
            kubelet_socket_path: "/var/lib/kubelet/plugins/csi.spiffe.io/csi.sock".into(),
            registration_dir: self.path("registration"),
            pods_dir: self.path("pods"),
            workload_api_socket_dir: self.path("agent"),
            selinux: None,
            health: None,
            metrics: None,
        }
    }
}

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
fn csi_12_a_volume_goes_without_agent_and_after_a_reboot() {
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

fn publish(target: &Path) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: target.display().to_string(),
        volume_capability: Some(VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(AccessMode { mode: 1 }),
        }),
        readonly: true,
        volume_context: BTreeMap::from([(
            "csi.storage.k8s.io/ephemeral".to_owned(),
            "true".to_owned(),
        )]),
    }
}

/// Serves `node` and gives the test its sockets; then ends in order.
fn served(node: Node, test: impl AsyncFnOnce(&Node)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (_supervisor, tasks) = Supervisor::new();
        let driver = Csi::build(node.config()).await.unwrap();
        let readiness = driver.readiness.clone();
        driver.run(&tasks);
        assert!(!readiness.is_ready(), "the kubelet has not called yet");
        let mut kubelet = registrar(&node);
        let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
        assert_eq!(
            (info.r#type.as_str(), info.name.as_str()),
            ("CSIPlugin", "csi.spiffe.io")
        );
        assert_eq!(
            info.endpoint,
            "/var/lib/kubelet/plugins/csi.spiffe.io/csi.sock"
        );
        assert_eq!(info.supported_versions, ["1.0.0"]);
        notify(&mut kubelet, "").await;
        readiness.ready().await;
        test(&node).await;
        tasks.stop();
    });
}

type Registrar = RegistrationClient<tonic::transport::Channel>;

fn registrar(node: &Node) -> Registrar {
    let path = node.path("registration/csi.spiffe.io-reg.sock");
    RegistrationClient::new(testkit::local_channel(&path))
}

async fn notify(kubelet: &mut Registrar, error: &str) {
    let status = RegistrationStatus {
        plugin_registered: error.is_empty(),
        error: error.to_owned(),
    };
    kubelet.notify_registration_status(status).await.unwrap();
}

#[test]
fn csi_01_the_kubelets_calls_over_the_socket() {
    in_own_mounts(|| {
        served(Node::new(), async |node| {
            let channel = testkit::local_channel(&node.path("csi.sock"));
            let mut identity = IdentityClient::new(channel.clone());
            let info = identity.get_plugin_info(GetPluginInfoRequest {}).await;
            assert_eq!(info.unwrap().into_inner().name, "csi.spiffe.io");
            let probe = identity.probe(ProbeRequest {}).await.unwrap().into_inner();
            assert_eq!(probe.ready, Some(true));
            let mut calls = NodeClient::new(channel);
            let info = calls.node_get_info(NodeGetInfoRequest {}).await.unwrap();
            assert_eq!(info.into_inner().node_id, "node-1");
            let able = calls
                .node_get_capabilities(NodeGetCapabilitiesRequest {})
                .await;
            assert_eq!(able.unwrap().into_inner().capabilities.len(), 2);

            let stats = NodeGetVolumeStatsRequest {
                volume_id: "csi-1".to_owned(),
                volume_path: node.target().display().to_string(),
            };
            let missing = calls
                .node_get_volume_stats(stats.clone())
                .await
                .unwrap_err();
            assert_eq!(missing.code(), Code::NotFound);
            calls
                .node_publish_volume(publish(&node.target()))
                .await
                .unwrap();
            assert_eq!(node.mounted(), 1);
            let good = calls
                .node_get_volume_stats(stats.clone())
                .await
                .unwrap()
                .into_inner();
            assert!(!good.volume_condition.unwrap().abnormal);
            assert!(good.usage[0].total >= good.usage[0].available);
            std::fs::rename(node.path("agent"), node.path("old")).unwrap();
            let stale = calls
                .node_get_volume_stats(stats)
                .await
                .unwrap()
                .into_inner();
            assert!(stale.volume_condition.unwrap().abnormal);
            let unpublish = NodeUnpublishVolumeRequest {
                volume_id: "csi-1".to_owned(),
                target_path: node.target().display().to_string(),
            };
            calls
                .node_unpublish_volume(unpublish.clone())
                .await
                .unwrap();
            calls.node_unpublish_volume(unpublish).await.unwrap();
            assert_eq!((node.mounted(), node.target().exists()), (0, false));
            let elsewhere = calls
                .node_publish_volume(publish(Path::new("/etc/x/y")))
                .await;
            assert_eq!(elsewhere.unwrap_err().code(), Code::InvalidArgument);
        });
    });
}

/// Needs no mount, so no root either.
#[test]
fn csi_01_bad_requests_are_told_what_is_wrong() {
    let target = Path::new("/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount");
    type Spoil = fn(&mut NodePublishVolumeRequest);
    let cases: [(&str, Spoil); 10] = [
        ("volume id", |request| request.volume_id.clear()),
        ("target_path", |request| request.target_path.clear()),
        ("volume capability", |request| {
            request.volume_capability = None
        }),
        ("must be a mount", |request| {
            request.volume_capability.as_mut().unwrap().access_type = None;
        }),
        ("fs_type", |request| {
            let mount = MountVolume {
                fs_type: "ext4".to_owned(),
                ..MountVolume::default()
            };
            request.volume_capability.as_mut().unwrap().access_type =
                Some(AccessType::Mount(mount));
        }),
        ("mount_flags", |request| {
            let mount = MountVolume {
                mount_flags: vec!["exec".to_owned()],
                ..MountVolume::default()
            };
            request.volume_capability.as_mut().unwrap().access_type =
                Some(AccessType::Mount(mount));
        }),
        ("access mode", |request| {
            request.volume_capability.as_mut().unwrap().access_mode = None;
        }),
        ("SINGLE_NODE_READER_ONLY", |request| {
            request.volume_capability.as_mut().unwrap().access_mode = Some(AccessMode { mode: 2 });
        }),
        ("readOnly", |request| request.readonly = false),
        ("ephemeral", |request| request.volume_context.clear()),
    ];
    driver::check_publish(&publish(target)).unwrap();
    for (said, spoil) in cases {
        let mut request = publish(target);
        spoil(&mut request);
        let status = driver::check_publish(&request).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(said), "{status:?}");
    }
}

#[test]
fn csi_03_the_driver_makes_itself_known_again() {
    served(Node::new(), async |node| {
        let path = node.path("registration/csi.spiffe.io-reg.sock");
        let file = || {
            use std::os::unix::fs::MetadataExt as _;
            // A new file may get the number of the one before.
            let id = |metadata: std::fs::Metadata| {
                (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
            };
            std::fs::metadata(&path).ok().map(id)
        };
        let anew = async |old: Option<(u64, i64, i64)>| {
            for _ in 0..1000 {
                if file().is_some() && file() != old {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("the socket is not made anew");
        };
        // Somebody clears the folder.
        std::fs::remove_file(&path).unwrap();
        anew(None).await;
        let mut kubelet = registrar(node);
        kubelet.get_info(InfoRequest {}).await.unwrap();
        // The kubelet cannot take it now.
        let old = file();
        notify(&mut kubelet, "no").await;
        anew(old).await;
        registrar(node).get_info(InfoRequest {}).await.unwrap();
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

/// The context that the kernel keeps for a file.
fn context(path: &Path) -> Option<String> {
    let mut value = [0; 256];
    let length = rustix::fs::getxattr(path, "security.selinux", &mut value[..]).ok()?;
    let text = String::from_utf8_lossy(&value[..length]);
    Some(text.trim_end_matches('\0').to_owned())
}

#[test]
fn csi_11_the_folder_and_its_socket_are_labelled_before_they_are_shown() {
    in_own_mounts(|| {
        let node = Node::new();
        let agent = node.path("agent");
        let kind = Some("tmpfs");
        mount(kind, &agent, kind, MsFlags::empty(), None::<&str>).unwrap();
        let _socket = StdListener::bind(agent.join("agent.sock")).unwrap();
        let label: Label = "system_u:object_r:container_file_t:s0".parse().unwrap();
        if let Err(LabelError::Unknown { context }) = label.put(&agent, &agent) {
            testkit::skipped(format_args!("SELinux is on here, and has no {context}"));
            return;
        }
        let mounts = node.mounts().labelled(Some("web_t".parse().unwrap()));
        mounts.publish(&node.target()).unwrap();
        for shown in [node.target(), node.target().join("agent.sock")] {
            let context = context(&shown);
            assert_eq!(
                context.as_deref(),
                Some("system_u:object_r:web_t:s0"),
                "{}",
                shown.display()
            );
        }
    });
}

#[test]
fn csi_11_a_file_system_without_labels_is_named() {
    in_own_mounts(|| {
        let node = Node::new();
        let kind = Some("ramfs");
        mount(
            kind,
            &node.path("agent"),
            kind,
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let mounts = node
            .mounts()
            .labelled(Some("container_file_t".parse().unwrap()));
        let error = mounts.publish(&node.target()).unwrap_err();
        assert!(
            matches!(error, MountError::Label(LabelError::Unsupported(_))),
            "{error}"
        );
        assert!(error.to_string().contains("--selinux-context"), "{error}");
        assert_eq!(node.mounted(), 0, "nothing is shown");
        assert!(
            mounts.label().is_err(),
            "the driver says so when it starts, too"
        );
    });
}
