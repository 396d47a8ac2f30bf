//! The real Envoy takes every bootstrap that the real `signet k8s inject` writes.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::binaries;
use e2e::pods::injected;
use serde_json::{Value, json};

/// Whether Envoy takes the sidecar's own arguments.
fn validate(sidecar: &Value) -> Result<()> {
    let args = sidecar["args"].as_array().context("arguments")?;
    // The kubelet writes it in.
    let args = args.iter().filter_map(Value::as_str);
    let args = args.map(|text| text.replace("$(SIGNET_POD_IP)", "10.0.0.2"));
    let output = Command::new(binaries::envoy()?)
        .args(args)
        .args(["--mode", "validate"])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "Envoy: {told}");
    // Deprecated fields work today and are refused by a later Envoy.
    ensure!(!told.contains("eprecated"), "Envoy: {told}");
    Ok(())
}

fn sidecar(annotations: &Value, args: &[&str]) -> Result<Value> {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "labels": {"signet.dev/inject": "envoy"}, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "web"}]},
    });
    if annotations.get("signet.dev/upstreams").is_none() {
        let app = &mut pod["spec"]["containers"][0];
        app["ports"] = json!([{"containerPort": 8080}, {"containerPort": 9000}]);
        app["startupProbe"] = json!({"tcpSocket": {"port": 9000}});
        app["readinessProbe"] =
            json!({"httpGet": {"path": "/$x?y=$(Z)", "port": 8080, "scheme": "HTTPS"}});
        app["livenessProbe"] = json!({"grpc": {"port": 9000, "service": "shop"}});
        app["lifecycle"] = json!({"preStop": {"httpGet": {"port": 8080}}});
    }
    let pod = injected(&binaries::signet()?, &pod, args)?;
    let all = pod["spec"]["initContainers"].as_array();
    let mut all = all.into_iter().flatten();
    let envoy = all.find(|one| one["name"] == "signet-envoy");
    Ok(envoy.context("no Envoy")?.clone())
}

#[test]
fn inj_09_envoy_takes_every_bootstrap() -> Result<()> {
    let upstreams = "backend.shop:8080=shop/backend|shop/backend-2, \
        tcp://db.shop:5432=spiffe://other.org/db 7000=10.0.0.1:7000=shop/x, 7001=[fd00::1]:7001=shop/x";
    let many: Vec<String> = (0..40)
        .map(|i| format!("{}=b{i}.shop:8443=shop/b{i}", 20000 + i))
        .collect();
    let cases = [
        json!({}),
        json!({"signet.dev/allow": "shop/frontend, ops/*, spiffe://other.org/a/*"}),
        json!({"signet.dev/protocol": "tcp"}),
        json!({"signet.dev/protocol": "tcp", "signet.dev/allow": "shop/frontend"}),
        json!({"signet.dev/upstreams": upstreams}),
        json!({"signet.dev/upstreams": upstreams, "signet.dev/app-port": "3000", "signet.dev/allow": "ops/*"}),
        json!({"signet.dev/upstreams": many.join(",")}),
        json!({"signet.dev/log-level": "debug", "signet.dev/metrics-port": "1234"}),
        json!({"signet.dev/capture": "inbound", "signet.dev/allow": "shop/frontend"}),
        json!({"signet.dev/capture": "all", "signet.dev/protocol": "tcp", "signet.dev/allow": "shop/frontend"}),
        json!({"signet.dev/capture": "outbound", "signet.dev/upstreams": format!("{upstreams}, 7002=10.0.0.0/8:7002=shop/x tcp://7003=[fd00::/8]:7003=shop/x")}),
    ];
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("rules.yaml");
    std::fs::write(&config, "envoy: {listenAddress: '::', concurrency: 1}\n")?;
    let config = config.to_string_lossy();
    for annotations in &cases {
        for args in [&[][..], &["--config", &config]] {
            let sidecar = sidecar(annotations, args)?;
            validate(&sidecar).with_context(|| format!("{annotations} {args:?}"))?;
        }
    }
    Ok(())
}

/// The check above can fail: Envoy refuses an unknown field and an unknown secret source.
#[test]
fn inj_09_envoy_refuses_a_wrong_bootstrap() -> Result<()> {
    let mut sidecar = sidecar(&json!({}), &[])?;
    let text = sidecar["args"][1].as_str().context("a bootstrap")?;
    let wrong = text.replace("initial_fetch_timeout", "initial_fetch_timeouts");
    ensure!(
        wrong != text,
        "the bootstrap has changed, and this test with it must"
    );
    sidecar["args"][1] = json!(wrong);
    ensure!(validate(&sidecar).is_err(), "Envoy takes an unknown field");
    Ok(())
}
