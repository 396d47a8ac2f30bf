//! Startup, readiness and liveness probes: the network's from the node, as a kubelet's; commands inside the container.

mod ask;

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::container::{Health, Surroundings};
use super::node::Node;
use super::{list, text};
use crate::netns::NetNs;

pub(super) use ask::act;

/// Where a container's probes go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// From where.
    node: NetNs,
    /// The pod's.
    address: String,
    pid: u32,
    /// The file with its description.
    spec: PathBuf,
    log: PathBuf,
    ports: Vec<Value>,
}

impl Target {
    /// The container that has this ID and runs as this process.
    pub(super) fn new(
        node: &Node,
        around: &Surroundings,
        container: &Value,
        (id, pid): (&str, u32),
    ) -> Self {
        Self {
            node: node.network(),
            address: around.address.clone(),
            pid,
            spec: node.path(&format!("{id}.json")),
            log: node.logs().join("probes.log"),
            ports: list(container, "/ports").to_vec(),
        }
    }
}

/// Keeps `health` until aborted.
pub(super) fn watch(container: &Value, target: Target, health: Arc<Health>) -> AbortHandle {
    let probe = |name: &str| container.get(name).cloned();
    let (startup, readiness, liveness) = (
        probe("startupProbe"),
        probe("readinessProbe"),
        probe("livenessProbe"),
    );
    let task = async move {
        if let Some(startup) = startup
            && !reaches(&startup, &target, true).await
        {
            health.unhealthy.store(true, Ordering::Relaxed);
            return pending().await;
        }
        health.started.store(true, Ordering::Relaxed);
        let ready = async {
            let Some(readiness) = readiness else {
                health.ready.store(true, Ordering::Relaxed);
                return;
            };
            loop {
                // A probe that fails for long is asked on: the container may become ready late.
                while !reaches(&readiness, &target, true).await {}
                health.ready.store(true, Ordering::Relaxed);
                reaches(&readiness, &target, false).await;
                health.ready.store(false, Ordering::Relaxed);
            }
        };
        let alive = async {
            if let Some(liveness) = liveness {
                reaches(&liveness, &target, false).await;
                health.unhealthy.store(true, Ordering::Relaxed);
            }
        };
        tokio::join!(ready, alive);
    };
    tokio::spawn(task).abort_handle()
}

/// Probes until the answer is `wanted` often enough (true); for a startup probe that fails too often, false.
async fn reaches(probe: &Value, target: &Target, wanted: bool) -> bool {
    let number = |name: &str, default| probe[name].as_u64().unwrap_or(default);
    let period = Duration::from_secs(number("periodSeconds", 10).max(1));
    let failures = number("failureThreshold", 3);
    let (mut right, mut wrong) = (0, 0);
    let enough = if wanted {
        number("successThreshold", 1)
    } else {
        failures
    };
    sleep(Duration::from_secs(number("initialDelaySeconds", 0))).await;
    loop {
        if once(probe, target).await.is_ok() == wanted {
            (right, wrong) = (right + 1, 0);
        } else {
            (right, wrong) = (0, wrong + 1);
        }
        if right >= enough {
            return true;
        }
        if wanted && wrong >= failures {
            return false;
        }
        sleep(period).await;
    }
}

/// One probe, within its bound.
async fn once(probe: &Value, target: &Target) -> Result<()> {
    let seconds = probe["timeoutSeconds"].as_u64().unwrap_or(1).max(1);
    timeout(Duration::from_secs(seconds), ask::act(probe, target)).await?
}

/// The `preStop` hook of a container, if it has one.
pub(super) fn pre_stop(container: &Value) -> Option<&Value> {
    text(container, "/name").ok()?;
    container.pointer("/lifecycle/preStop")
}
