//! The `k8s` attestor: by pod and container, from the kernel's word (cgroups) and the kubelet's (its list of pods).
//!
//! The kubelet lists a container a moment after it started, and a caller may be faster; so it is asked again for a while. All
//! callers share one list: it is fetched at most once per `poll_retry_interval`, however many wait for it.

mod kubelet;
mod pods;

use std::sync::Arc;

use identity::{Selector, Selectors};
use runtime::Peer;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::AttestError;
use super::cgroup::{self, Container};
use super::process::{Process, check_alive};
use crate::config::K8sAttestorConfig;
use kubelet::Kubelet;
use pods::{Found, Pod};

pub use kubelet::KubeletError;

pub(super) const KIND: &str = "k8s";

/// The attestor, with the kubelet's last answer.
#[derive(Debug)]
pub struct K8s {
    config: K8sAttestorConfig,
    kubelet: Kubelet,
    last: Mutex<Last>,
}

/// What the kubelet said last, good or bad.
#[derive(Debug, Default)]
struct Last {
    /// Counts the answers; 0 before the first.
    number: u64,
    /// When it was asked.
    asked: Option<Instant>,
    answer: Option<Answer>,
}

type Answer = Result<Arc<[Pod]>, Arc<KubeletError>>;

impl K8s {
    /// An attestor that knows nothing yet.
    #[must_use]
    pub fn new(config: K8sAttestorConfig) -> Self {
        Self {
            kubelet: Kubelet::new(&config),
            config,
            last: Mutex::default(),
        }
    }

    /// The selectors of the process behind `peer`; none when it is in no pod.
    ///
    /// # Errors
    /// When its cgroups contradict each other, the kubelet cannot be asked, or it does not list the container in time.
    pub async fn attest(&self, peer: &Peer) -> Result<Selectors, AttestError> {
        let process = Process::open(peer)?;
        let pid = peer.pid().unwrap_or_default();
        let located = cgroup::locate(&process.cgroup()?);
        let Some(container) = located.map_err(|reason| AttestError::Cgroups { pid, reason })?
        else {
            return Ok(Selectors::default());
        };
        if container.id.is_none() && !self.config.disable_container_selectors {
            return Err(AttestError::BesideContainers { pid });
        }
        self.selectors(&container, || check_alive(peer)).await
    }

    /// Asks the kubelet until it knows the container. `alive` fails once there is nobody left to ask for.
    async fn selectors(
        &self,
        container: &Container,
        alive: impl Fn() -> Result<(), AttestError> + Send,
    ) -> Result<Selectors, AttestError> {
        let mut seen = 0;
        for _ in 0..self.config.max_poll_attempts {
            let (number, answer) = self.pods(seen).await;
            alive()?;
            seen = number;
            let pods = answer.map_err(AttestError::Kubelet)?;
            match (
                pods::find(&pods, container),
                self.config.disable_container_selectors,
            ) {
                (Found::Container(pod, status), false) => {
                    return Ok(selectors(pod.values().chain(status.values())));
                }
                (Found::Container(pod, _) | Found::Pod(pod), true) => {
                    return Ok(selectors(pod.values()));
                }
                (Found::Pod(_), false) | (Found::Nothing, _) => {}
            }
        }
        Err(AttestError::NotListed {
            pod_uid: container.pod_uid.clone(),
            container_id: container.id.clone().unwrap_or_default(),
            attempts: self.config.max_poll_attempts,
        })
    }

    /// An answer of the kubelet's that the caller has not `seen`, and is fresh. Who comes while it is asked waits for the
    /// same answer.
    async fn pods(&self, seen: u64) -> (u64, Answer) {
        let interval = self.config.poll_retry_interval;
        let mut last = self.last.lock().await;
        if let (Some(asked), Some(answer)) = (last.asked, &last.answer) {
            if last.number > seen && asked.elapsed() < interval {
                return (last.number, answer.clone());
            }
            sleep_until(asked + interval).await;
        }
        last.asked = Some(Instant::now());
        let answer = self.kubelet.pods().await;
        let answer = answer.map(Into::into).map_err(Arc::new);
        last.number += 1;
        last.answer = Some(answer.clone());
        (last.number, answer)
    }
}

/// What cannot be a selector (a label with a control character cannot be, nor an empty value) is left out.
fn selectors(values: impl Iterator<Item = String>) -> Selectors {
    values
        .filter_map(|value| Selector::new(KIND, &value).ok())
        .collect()
}

#[cfg(test)]
mod tests;
