//! K1, the whole: server, controller, agent, CSI driver and injector installed from the chart; one annotation on a
//! Deployment; mTLS between two such pods in a namespace that enforces `restricted`.

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::kubelet;
use e2e::release::{self, Release, shop};
use serde_json::Value;

const TRUST_DOMAIN: &str = "example.org";

#[tokio::test(flavor = "multi_thread")]
async fn k1_one_annotation_gives_an_identity_and_an_envoy() -> Result<()> {
    if let Some(why) = kubelet::unable() {
        testkit::skipped(why);
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let release = Release::prepare(&cluster).await?;
    release
        .install(&cluster, &release::values(TRUST_DOMAIN))
        .await?;
    release.ready(&cluster).await?;

    shop::open(&cluster, "restricted").await?;
    for name in ["backend", "frontend", "stranger", "plain"] {
        let annotations = shop::annotations(TRUST_DOMAIN, name);
        let app = shop::app(name, &annotations);
        cluster.apply(&app).await?;
    }
    let plain = shop::ready_pod(&cluster, &release.node, "plain").await?;
    let plain = serde_json::to_value(plain)?;
    ensure!(
        plain["spec"].get("initContainers").is_none() && !plain.to_string().contains("signet"),
        "the pod that asked for nothing was changed: {plain}"
    );
    shop::ready_pod(&cluster, &release.node, "backend").await?;

    let answer = shop::call(&cluster, &release.node, "frontend", 200).await?;
    let expected = format!("hello {}", shop::id(TRUST_DOMAIN, "frontend"));
    ensure!(answer.body.trim() == expected, "{}", answer.body);
    // It has an identity too, but not one that the backend's annotation names.
    shop::call(&cluster, &release.node, "stranger", 403).await?;

    let entries = release.server_cli(&["entry", "show", "-output", "json"]);
    let entries: Value = serde_json::from_str(&entries.await?)?;
    let ids = entries["entries"].as_array().context("entries")?.iter();
    let path = "/ns/shop/sa/backend";
    let found: Vec<&Value> = ids
        .filter(|entry| entry["spiffe_id"]["path"] == path)
        .collect();
    ensure!(found.len() == 1, "entries of {path}: {found:?}");
    release.node.stop().await;
    Ok(())
}
