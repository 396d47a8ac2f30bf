//! HLM-16: helm itself installs both charts on the API server, and `helm test` finds bundle and SVID.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::release::{self, NAME, NAMESPACE, Release};
use e2e::{binaries, kubelet};
use tokio::process::Command;
use tokio::time::timeout;

const TRUST_DOMAIN: &str = "example.org";
const PATIENCE: Duration = Duration::from_secs(180);

async fn helm(cluster: &Cluster, args: &[&str]) -> Result<String> {
    let mut command = Command::new(binaries::helm()?);
    command
        .args(args)
        .arg("--namespace")
        .arg(NAMESPACE)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.with_context(|| format!("helm {args:?} hangs"))??;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm {args:?}: {told}{error}");
    Ok(told)
}

#[tokio::test(flavor = "multi_thread")]
async fn hlm_16_helm_test_checks_the_bundle_and_fetches_an_svid() -> Result<()> {
    if let Some(why) = kubelet::unable() {
        testkit::skipped(why);
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let release = Release::prepare(&cluster).await?;
    let privileged = [("pod-security.kubernetes.io/enforce", "privileged")];
    cluster.namespace_named(NAMESPACE, &privileged).await?;
    let values = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(values.path(), release::values(TRUST_DOMAIN).to_string())?;
    let values = values.path().display().to_string();
    for (name, chart, more) in [
        ("signet-crds", "helm/signet-crds", &[] as &[&str]),
        (NAME, "helm/signet", &["--values", &values]),
    ] {
        let chart = binaries::repository(chart).display().to_string();
        let install = [&["install", name, &chart], more].concat();
        helm(&cluster, &install).await?;
    }
    release.ready(&cluster).await?;
    let told = helm(&cluster, &["test", NAME, "--timeout", "2m"]).await?;
    ensure!(told.contains("Phase:          Succeeded"), "{told}");
    let log = format!("{NAMESPACE}_{NAME}-test_svid.log");
    let log = std::fs::read_to_string(release.node.logs().join(log))?;
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/default");
    ensure!(log.contains(&id), "{log}");
    release.node.stop().await;
    Ok(())
}
