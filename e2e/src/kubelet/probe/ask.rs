//! One question of a kubelet's, as a kubelet asks it: from the node, without a certificate, and taking any.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::sleep;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use super::Target;
use crate::cluster::Tethered;
use crate::kubelet::list;
use crate::{load, tls};

/// Does what a probe or hook says, without its bound.
pub(in crate::kubelet) async fn act(probe: &Value, target: &Target) -> Result<()> {
    if let Some(get) = probe.get("httpGet") {
        return http(get, target).await;
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        target.node.connect(address(tcp, target)?).await?;
        return Ok(());
    }
    if let Some(health) = probe.get("grpc") {
        return grpc(health, target).await;
    }
    if let Some(pause) = probe.pointer("/sleep/seconds").and_then(Value::as_u64) {
        sleep(Duration::from_secs(pause)).await;
        return Ok(());
    }
    match probe.get("exec") {
        Some(exec) => run(exec, target).await,
        None => bail!("the test kubelet does not know the probe {probe}"),
    }
}

/// With `scheme: HTTPS` whoever answers will do, as for a kubelet.
async fn http(get: &Value, target: &Target) -> Result<()> {
    let stream = target.node.connect(address(get, target)?).await?;
    let path = get["path"].as_str().unwrap_or("/");
    let headers = list(get, "/httpHeaders").iter();
    let headers = headers.filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str()?)));
    let headers: Vec<(&str, &str)> = headers.collect();
    let answer = match get["scheme"].as_str().unwrap_or("HTTP") {
        "HTTPS" => load::get_with(tls::handshake(stream, None).await?, path, &headers).await?,
        _ => load::get_with(stream, path, &headers).await?,
    };
    ensure!((200..400).contains(&answer.status), "{}", answer.status);
    Ok(())
}

async fn grpc(health: &Value, target: &Target) -> Result<()> {
    let (node, address) = (target.node.clone(), address(health, target)?);
    let endpoint = Endpoint::from_static("http://probe.invalid");
    let connect = service_fn(move |_: http::Uri| {
        let node = node.clone();
        async move {
            let stream = node.connect(address).await.map_err(std::io::Error::other);
            stream.map(TokioIo::new)
        }
    });
    let mut client = HealthClient::new(endpoint.connect_with_connector(connect).await?);
    let service = health["service"].as_str().unwrap_or_default().to_owned();
    let answer = client.check(HealthCheckRequest { service }).await?;
    let status = answer.into_inner().status();
    ensure!(status == ServingStatus::Serving, "{}", status.as_str_name());
    Ok(())
}

/// A command in the container itself.
async fn run(exec: &Value, target: &Target) -> Result<()> {
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
