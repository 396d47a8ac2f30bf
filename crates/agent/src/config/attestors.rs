//! How workloads are told apart.

use std::{path::PathBuf, time::Duration};

/// The workload attestors in use.
#[derive(Debug, Clone, Default)]
pub struct WorkloadAttestors {
    /// `unix`: by user, group and program.
    pub unix: Option<UnixAttestorConfig>,
    /// `k8s`: by pod and container.
    pub k8s: Option<K8sAttestorConfig>,
}

/// How `k8s` asks the kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct K8sAttestorConfig {
    /// The kubelet's port, and what goes with it.
    pub port: KubeletPort,
    /// The node's name, by which the kubelet is called and must be certified; `None`: it is called on 127.0.0.1.
    pub node_name: Option<String>,
    /// The environment's variable that holds the node's name when `node_name` does not.
    pub node_name_env: String,
    /// How often the kubelet is asked for a container before that one is given up.
    pub max_poll_attempts: u32,
    /// How long lies between two questions, whoever asks.
    pub poll_retry_interval: Duration,
    /// Give selectors of the pod alone: they are there before the container is listed.
    pub disable_container_selectors: bool,
}

/// One of the kubelet's two ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeletPort {
    /// Plain HTTP, to anyone.
    ReadOnly(u16),
    /// HTTPS.
    Secure {
        /// The port.
        port: u16,
        /// PEM file of the authorities that vouch for the kubelet; `None`: whoever answers is believed.
        ca_path: Option<PathBuf>,
        /// How the agent shows itself.
        auth: KubeletAuth,
    },
}

/// How the agent shows itself to the kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeletAuth {
    /// By a bearer token, read from this file for each question.
    Token(PathBuf),
    /// By a certificate, PEM files read for each question.
    Certificate {
        /// The certificate and the chain behind it.
        certificate_path: PathBuf,
        /// Its key.
        private_key_path: PathBuf,
    },
    /// Not at all.
    Anonymous,
}

impl KubeletPort {
    /// The port's number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        match self {
            Self::ReadOnly(port) | Self::Secure { port, .. } => *port,
        }
    }
}

/// What `unix` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixAttestorConfig {
    /// Whether `unix:path` and `unix:sha256` are found out.
    pub discover_workload_path: bool,
    /// Up to how large a program is hashed, in bytes; `None`: of any size; `Some(0)`: never.
    pub workload_size_limit: Option<u64>,
}
