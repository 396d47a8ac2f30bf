//! The kubelet's calls, over the driver's sockets.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::node_client::NodeClient;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use proto::csi::v1::{
    GetPluginInfoRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodeUnpublishVolumeRequest, ProbeRequest, VolumeCapability,
};
use proto::pluginregistration::registration_client::RegistrationClient;
use proto::pluginregistration::{InfoRequest, RegistrationStatus};
use runtime::Supervisor;
use tonic::Code;

use super::*;

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

/// Where a driver tells its health and its figures.
struct Pages {
    health: SocketAddr,
    figures: SocketAddr,
}

/// One GET: status line and all.
async fn page(at: SocketAddr, path: &'static str) -> String {
    // On a thread, since the clock runs ahead of a runtime that waits.
    let get = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(at).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    get.await.unwrap()
}

/// Serves `node` and gives the test its sockets; then ends in order.
fn served(node: Node, test: impl AsyncFnOnce(&Node, Pages)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (_supervisor, tasks) = Supervisor::new();
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let config = Config {
            health: any,
            metrics: any,
            ..node.config()
        };
        let driver = Csi::build(config).await.unwrap();
        let at = |listener: &Option<TcpListener>| listener.as_ref().unwrap().local_addr().unwrap();
        let (health, figures) = (at(&driver.health_listener), at(&driver.metrics_listener));
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
        test(&node, Pages { health, figures }).await;
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
        served(Node::new(), async |node, _| {
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

            calls
                .node_publish_volume(publish(&node.target()))
                .await
                .unwrap();
            assert_eq!(node.mounted(), 1);
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

#[test]
fn csi_05_condition_health_and_figures_tell_how_a_volume_fares() {
    in_own_mounts(|| {
        served(Node::new(), async |node, pages| {
            let mut calls = NodeClient::new(testkit::local_channel(&node.path("csi.sock")));
            let request = NodeGetVolumeStatsRequest {
                volume_id: "csi-1".to_owned(),
                volume_path: node.target().display().to_string(),
            };
            let asked = calls.clone();
            let stats = async || asked.clone().node_get_volume_stats(request.clone()).await;
            let missing = stats().await.unwrap_err();
            assert_eq!(missing.code(), Code::NotFound);
            std::fs::create_dir(node.target()).unwrap();
            condition(stats().await, Some("nothing is mounted"));

            calls
                .node_publish_volume(publish(&node.target()))
                .await
                .unwrap();
            let good = condition(stats().await, None);
            assert!(good.usage[0].total > 0 && good.usage[0].total >= good.usage[0].available);
            let health = page(pages.health, "/live").await;
            assert!(health.starts_with("HTTP/1.1 200"), "{health}");
            let figures = page(pages.figures, "/metrics").await;
            let published = figures
                .lines()
                .find(|line| line.starts_with("signet_csi_node_publish_volume{"));
            assert!(
                published.is_some_and(|line| line.ends_with(" 1")),
                "{figures}"
            );

            std::fs::rename(node.path("agent"), node.path("old")).unwrap();
            condition(stats().await, Some("made anew"));
        });
    });
}

/// The answer, which calls the volume abnormal for this reason, or good.
fn condition(
    answer: Result<tonic::Response<NodeGetVolumeStatsResponse>, tonic::Status>,
    reason: Option<&str>,
) -> NodeGetVolumeStatsResponse {
    let answer = answer.unwrap().into_inner();
    let condition = answer.volume_condition.as_ref().unwrap();
    assert_eq!(condition.abnormal, reason.is_some(), "{condition:?}");
    let said = reason.unwrap_or("mounted");
    assert!(condition.message.contains(said), "{condition:?}");
    answer
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
    served(Node::new(), async |node, pages| {
        let ready = async || page(pages.health, "/ready").await;
        assert!(ready().await.starts_with("HTTP/1.1 200"));
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
