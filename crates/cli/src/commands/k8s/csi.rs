//! `signet k8s csi`

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use k8s::csi::{self, Config};
use runtime::log::{Format, Level, Options};

use crate::program;

/// `k8s csi`
#[derive(clap::Args, Debug)]
pub(crate) struct Csi {
    /// The Kubernetes node's name
    #[arg(long, value_name = "NAME")]
    node_id: String,
    /// The driver's name, as pods name it
    #[arg(long, value_name = "NAME", default_value = "csi.spiffe.io")]
    driver_name: String,
    /// Path of the driver's socket
    #[arg(long, value_name = "PATH", default_value = "/csi/csi.sock")]
    socket: PathBuf,
    /// Path of the driver's socket as the kubelet sees it
    /// [default: /var/lib/kubelet/plugins/NAME/csi.sock]
    #[arg(long, value_name = "PATH")]
    kubelet_socket_path: Option<PathBuf>,
    /// The kubelet's folder of plugins
    #[arg(long, value_name = "PATH", default_value = "/registration")]
    registration_dir: PathBuf,
    /// The kubelet's folder of pods, under the path the kubelet uses
    #[arg(long, value_name = "PATH", default_value = "/var/lib/kubelet/pods")]
    pods_dir: PathBuf,
    /// The folder of the agent's socket
    #[arg(long, value_name = "PATH", default_value = "/run/spire/agent-sockets")]
    workload_api_socket_dir: PathBuf,
    /// Label that folder, and what is in it, for SELinux: a type such as container_file_t, or a whole context
    #[arg(long, value_name = "CONTEXT")]
    selinux_context: Option<csi::Label>,
    /// Where health is told over HTTP: /live, /ready
    #[arg(long, value_name = "ADDRESS")]
    health_address: Option<SocketAddr>,
    /// Where Prometheus may fetch figures
    #[arg(long, value_name = "ADDRESS")]
    metrics_address: Option<SocketAddr>,
    /// error, warn, info, debug or trace
    #[arg(long = "logLevel", value_name = "LEVEL", default_value = "info")]
    log_level: Level,
    /// text or json
    #[arg(long = "logFormat", value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

impl Csi {
    pub(crate) fn run(self) -> Result<()> {
        let log = runtime::log::init(Options {
            level: self.log_level,
            format: self.log_format,
            file: None,
        })?;
        let endpoint = self.kubelet_socket_path.unwrap_or_else(|| {
            PathBuf::from("/var/lib/kubelet/plugins")
                .join(&self.driver_name)
                .join("csi.sock")
        });
        let config = Config {
            driver_name: self.driver_name,
            node_id: self.node_id,
            socket: self.socket,
            kubelet_socket_path: endpoint,
            registration_dir: self.registration_dir,
            pods_dir: self.pods_dir,
            workload_api_socket_dir: self.workload_api_socket_dir,
            selinux: self.selinux_context,
            health: self.health_address,
            metrics: self.metrics_address,
        };
        program::run(&log, async |tasks| {
            csi::Csi::build(config).await?.run(&tasks);
            Ok(())
        })
    }
}
