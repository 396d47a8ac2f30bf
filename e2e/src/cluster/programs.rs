//! Where the parts of the control plane are, and how etcd is started.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::{KUBERNETES_VERSION, Ports};
use crate::binaries;

/// A program and the argument that says which part to be, if it needs one.
pub(super) type Command = (PathBuf, Option<String>);

#[derive(Debug)]
pub(super) struct Programs {
    pub(super) etcd: Command,
    pub(super) api_server: Command,
    pub(super) manager: Option<Command>,
}

impl Programs {
    pub(super) fn find() -> Result<Self> {
        match env::var_os("KUBEBUILDER_ASSETS") {
            Some(folder) if !folder.is_empty() => Self::of_folder(Path::new(&folder)),
            _ => Self::built(),
        }
    }

    fn of_folder(folder: &Path) -> Result<Self> {
        let there = |name: &str| folder.join(name).is_file();
        for name in ["etcd", "kube-apiserver"] {
            ensure!(
                there(name),
                "KUBEBUILDER_ASSETS={} has no {name}",
                folder.display()
            );
        }
        let command = |name: &str| (folder.join(name), None);
        Ok(Self {
            etcd: command("etcd"),
            api_server: command("kube-apiserver"),
            manager: there("kube-controller-manager").then(|| command("kube-controller-manager")),
        })
    }

    fn built() -> Result<Self> {
        let program =
            binaries::cache()?.join(format!("controlplane-{KUBERNETES_VERSION}/controlplane"));
        ensure!(
            program.is_file(),
            "no control plane at {}: run e2e/tools/build-controlplane, or set KUBEBUILDER_ASSETS",
            program.display()
        );
        let command = |part: &str| (program.clone(), Some(part.to_owned()));
        Ok(Self {
            etcd: command("etcd"),
            api_server: command("apiserver"),
            manager: Some(command("controller-manager")),
        })
    }

    /// Flags of etcd itself, or of the small program that embeds it.
    pub(super) fn etcd_args(&self, folder: &Path, ports: Ports) -> Vec<String> {
        let data = folder.join("etcd").display().to_string();
        let (client, peer) = (ports.etcd, ports.etcd_peer);
        if self.etcd.1.is_some() {
            return vec![
                format!("--data-dir={data}"),
                format!("--client={client}"),
                format!("--peer={peer}"),
            ];
        }
        let (client, peer) = (
            format!("http://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        vec![
            format!("--data-dir={data}"),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ]
    }
}
