//! Labels for SELinux.

use std::os::unix::net::UnixListener as StdListener;

use nix::mount::{MsFlags, mount};

use super::*;

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
