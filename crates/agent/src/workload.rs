//! Workload attestation: from the peer of a connection to its selectors.
//!
//! A caller is attested when it opens a stream, but for one that follows another on the same connection within seconds,
//! and again every few minutes while a stream of SDS is open: the peer's pidfd and credentials are fixed when it connects, but
//! it may become another program (`exec`) or, after its end, leave the connection to a child. What is dear (user names,
//! hashes of programs) is kept by the facts it follows from. A caller is known by a pidfd, so its streams end with the
//! process. A process that passes its connection on passes its identity on, as it could pass on its keys.

pub mod cgroup;
mod digest;
mod k8s;
mod names;
mod process;
mod unix;

use std::io;
use std::sync::Arc;

use futures_util::future::join_all;
use identity::Selectors;
use runtime::{Metrics, Peer};
use tonic::Code;
use tracing::debug;

use crate::config::WorkloadAttestors;

pub use k8s::{K8s, KubeletError};
pub use unix::Unix;

use cgroup::CgroupError;

/// Why a caller cannot be attested. None of them says that it has no identity: the caller may try again.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The peer's PID is not of this PID namespace.
    #[error(
        "the caller is not in the agent's PID namespace, so nothing can be found out about it; run the agent in the \
         host's (hostPID: true)"
    )]
    OutOfSight,
    /// The process that connected has ended.
    #[error("process {pid}, which opened the connection, has ended")]
    Gone {
        /// Its PID while it lived.
        pid: u32,
    },
    /// The process is another user now than when it connected.
    #[error(
        "process {pid} connected as uid {was_uid}, gid {was_gid} and is uid {uid}, gid {gid} now; it must connect again"
    )]
    Changed {
        /// The process.
        pid: u32,
        /// Effective user ID when it connected.
        was_uid: u32,
        /// Effective group ID when it connected.
        was_gid: u32,
        /// Effective user ID now.
        uid: u32,
        /// Effective group ID now.
        gid: u32,
    },
    /// The process becomes one program after the other, so that none of them can be named.
    #[error("process {pid} became another program each time it was looked at")]
    Restless {
        /// The process.
        pid: u32,
    },
    /// `/proc` does not tell.
    #[error("read {what} of process {pid}: {source}")]
    Unreadable {
        /// Which file.
        what: &'static str,
        /// The process.
        pid: u32,
        /// What the system said.
        source: io::Error,
    },
    /// Its cgroups do not tell its container.
    #[error("process {pid}: {reason}")]
    Cgroups {
        /// The process.
        pid: u32,
        /// Why not.
        reason: CgroupError,
    },
    /// It is in a pod's cgroup, but in no container's.
    #[error("process {pid} is in a pod's cgroup, but in none of its containers'")]
    BesideContainers {
        /// The process.
        pid: u32,
    },
    /// The kubelet does not list its container.
    #[error(
        "the kubelet was asked {attempts} times and does not list container {container_id:?} of pod {pod_uid}; \
         see max_poll_attempts"
    )]
    NotListed {
        /// The pod's UID.
        pod_uid: String,
        /// The container's ID.
        container_id: String,
        /// How often it was asked.
        attempts: u32,
    },
    /// The kubelet cannot be asked.
    #[error("the kubelet cannot be asked: {0}")]
    Kubelet(#[source] Arc<KubeletError>),
}

/// What attestors found out about a process.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its selectors.
    pub selectors: Selectors,
    /// Whether no attestor failed.
    pub complete: bool,
}

/// The workload attestors in use. All are asked; what they find out is joined.
#[derive(Debug)]
pub struct Attestors {
    all: Vec<Attestor>,
    metrics: Option<Metrics>,
}

#[derive(Debug)]
enum Attestor {
    Unix(Unix),
    K8s(Box<K8s>),
    #[cfg(test)]
    Told(tokio::sync::watch::Receiver<Told>),
}

/// What an attestor of a test says of everybody; `None`: nothing, for as long as that is.
#[cfg(test)]
pub(crate) type Told = Option<Result<Selectors, AttestError>>;

impl Attestors {
    /// The attestors that `config` asks for.
    #[must_use]
    pub fn new(config: &WorkloadAttestors) -> Self {
        let WorkloadAttestors { unix, k8s } = config;
        let unix = unix.map(|config| Attestor::Unix(Unix::new(config)));
        let k8s = k8s
            .clone()
            .map(|config| Attestor::K8s(Box::new(K8s::new(config))));
        Self {
            all: unix.into_iter().chain(k8s).collect(),
            metrics: None,
        }
    }

    /// The same attestors, each with its figures.
    #[must_use]
    pub fn counted(self, metrics: Metrics) -> Self {
        Self {
            metrics: Some(metrics),
            ..self
        }
    }

    /// Attestors that say what they are told.
    #[cfg(test)]
    pub(crate) fn told(each: impl IntoIterator<Item = tokio::sync::watch::Receiver<Told>>) -> Self {
        Self {
            all: each.into_iter().map(Attestor::Told).collect(),
            metrics: None,
        }
    }

    /// Finds out the selectors of the process behind a connection.
    ///
    /// # Errors
    /// When every attestor fails, or the process ends meanwhile.
    pub async fn attest(&self, peer: &Peer) -> Result<Selectors, AttestError> {
        self.look(peer).await.map(|found| found.selectors)
    }

    /// As [`Attestors::attest`], and tells whether that is all.
    ///
    /// # Errors
    /// As there.
    pub async fn look(&self, peer: &Peer) -> Result<Found, AttestError> {
        let answers = join_all(self.all.iter().map(|one| self.ask(one, peer))).await;
        // What was read is the peer's only if the peer still lives: until then nobody else has its PID.
        process::check_alive(peer)?;
        let mut found = Vec::with_capacity(answers.len());
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok(selectors) => found.push(selectors),
                Err(error) => {
                    debug!(caller = peer.pid(), %error, "a workload attestor failed");
                    failed = Some(error);
                }
            }
        }
        let complete = failed.is_none();
        let selectors = match (failed, found.len()) {
            (Some(error), 0) => return Err(error),
            (_, 1) => found.swap_remove(0),
            _ => found.iter().flatten().cloned().collect(),
        };
        Ok(Found {
            selectors,
            complete,
        })
    }

    async fn ask(&self, attestor: &Attestor, peer: &Peer) -> Result<Selectors, AttestError> {
        let labels = [("attestor", attestor.name())];
        let metrics = self.metrics.as_ref();
        let call = metrics.map(|one| one.call("workload_api_workload_attestor", &labels));
        let answer = attestor.attest(peer).await;
        if let Some(call) = call {
            call.finish(answer.as_ref().map_or(Code::Unavailable, |_| Code::Ok));
        }
        answer
    }
}

impl Attestor {
    const fn name(&self) -> &'static str {
        match self {
            Self::Unix(_) => "unix",
            Self::K8s(_) => "k8s",
            #[cfg(test)]
            Self::Told(_) => "told",
        }
    }

    async fn attest(&self, peer: &Peer) -> Result<Selectors, AttestError> {
        match self {
            Self::Unix(unix) => unix.attest(peer).await,
            Self::K8s(k8s) => k8s.attest(peer).await,
            #[cfg(test)]
            Self::Told(told) => {
                let mut told = told.clone();
                match told.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(Ok(selectors))) => Ok(selectors.clone()),
                    _ => Err(AttestError::OutOfSight),
                }
            }
        }
    }
}
