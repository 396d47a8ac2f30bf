//! Startup, readiness and liveness probes: HTTP and TCP from inside the pod's network, commands inside the container.

use std::ffi::OsString;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::container::Health;
use super::{list, text};
use crate::cluster::Tethered;
use crate::load;
use crate::netns::NetNs;

/// Where a container's probes go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) network: NetNs,
    pub(super) address: String,
    pub(super) pid: u32,
    /// The file with its description.
    pub(super) spec: PathBuf,
    pub(super) log: PathBuf,
    pub(super) ports: Vec<Value>,
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
    timeout(Duration::from_secs(seconds), act(probe, target)).await?
}

/// Does what a probe or hook says, without its bound.
pub(super) async fn act(probe: &Value, target: &Target) -> Result<()> {
    if let Some(http) = probe.get("httpGet") {
        ensure!(
            http["scheme"].as_str().unwrap_or("HTTP") == "HTTP",
            "the test kubelet probes by plain HTTP only"
        );
        let stream = target.network.connect(address(http, target)?).await?;
        let path = http["path"].as_str().unwrap_or("/");
        let answer = load::get_on(stream, path).await?;
        ensure!((200..400).contains(&answer.status), "{}", answer.status);
        return Ok(());
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        target.network.connect(address(tcp, target)?).await?;
        return Ok(());
    }
    if let Some(pause) = probe.pointer("/sleep/seconds").and_then(Value::as_u64) {
        sleep(Duration::from_secs(pause)).await;
        return Ok(());
    }
    let Some(exec) = probe.get("exec") else {
        bail!("the test kubelet does not know the probe {probe}");
    };
    let command = list(exec, "/command").iter().filter_map(Value::as_str);
    let mut args: Vec<OsString> = vec![
        "enter".into(),
        target.pid.to_string().into(),
        target.spec.clone().into(),
    ];
    args.extend(command.map(OsString::from));
    let mut process = Tethered::shim("exec", args, &target.log)?;
    loop {
        if let Some(status) = process.ended()? {
            ensure!(status.success(), "{status}");
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn address(to: &Value, target: &Target) -> Result<SocketAddr> {
    let host = to["host"].as_str().unwrap_or(&target.address);
    let host: IpAddr = host.parse().with_context(|| format!("host {host}"))?;
    let port = match &to["port"] {
        Value::String(name) => {
            let named = target.ports.iter().find(|port| port["name"] == **name);
            let port = named.with_context(|| format!("no port is called {name}"))?;
            port["containerPort"].as_u64()
        }
        number => number.as_u64(),
    };
    let port = port.with_context(|| format!("no port in {to}"))?;
    Ok(SocketAddr::from((host, u16::try_from(port)?)))
}

/// The `preStop` hook of a container, if it has one.
pub(super) fn pre_stop(container: &Value) -> Option<&Value> {
    text(container, "/name").ok()?;
    container.pointer("/lifecycle/preStop")
}
