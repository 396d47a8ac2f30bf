//! A pod's volumes as folders of the node.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::Value;

use super::node::Node;
use super::{csi, environment, list, text};

/// Where the volumes of this pod are, as the node sees it.
pub(super) fn folder(uid: &str) -> PathBuf {
    PathBuf::from(format!("/var/lib/kubelet/pods/{uid}"))
}

/// Makes every volume; tells where each is.
pub(super) async fn prepare(node: &Node, pod: &Value) -> Result<BTreeMap<String, PathBuf>> {
    let mut places = BTreeMap::new();
    for volume in list(pod, "/spec/volumes") {
        let name = text(volume, "/name")?;
        let place = one(node, pod, volume, name)
            .await
            .with_context(|| format!("volume {name}"))?;
        places.insert(name.to_owned(), place);
    }
    Ok(places)
}

async fn one(node: &Node, pod: &Value, volume: &Value, name: &str) -> Result<PathBuf> {
    let inside = |path: &Path| node.root().join(path.strip_prefix("/").unwrap_or(path));
    let volumes = folder(text(pod, "/metadata/uid")?).join("volumes");
    let kind = volume
        .as_object()
        .and_then(|fields| fields.keys().find(|key| *key != "name"))
        .context("no source")?;
    let source = &volume[kind];
    if kind == "hostPath" {
        return host_path(&inside(Path::new(text(source, "/path")?)), source);
    }
    if kind == "persistentVolumeClaim" {
        // Nothing binds claims here: a folder of that name outlives the pod, and that is what is asked of it.
        let namespace = text(pod, "/metadata/namespace")?;
        let place = format!("var/lib/claims/{namespace}/{}", text(source, "/claimName")?);
        let place = node.root().join(place);
        fs::create_dir_all(&place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777))?;
        return Ok(place);
    }
    let kind_folder = match kind.as_str() {
        "emptyDir" => "empty-dir",
        "configMap" => "configmap",
        "downwardAPI" => "downward-api",
        other => other,
    };
    let place = volumes
        .join(format!("kubernetes.io~{kind_folder}"))
        .join(name);
    if kind == "csi" {
        return csi::publish(node, pod, source, &place).await;
    }
    let place = inside(&place);
    fs::create_dir_all(&place)?;
    if kind == "emptyDir" {
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777))?;
        return Ok(place);
    }
    let sources = match kind.as_str() {
        "projected" => list(source, "/sources").to_vec(),
        "configMap" | "secret" | "downwardAPI" => vec![serde_json::json!({ kind: source })],
        other => bail!("the test kubelet does not know the kind {other}"),
    };
    for source in &sources {
        for (path, bytes) in files(node, pod, source).await? {
            let path = place.join(path);
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(&path, bytes)?;
        }
    }
    Ok(place)
}

fn host_path(path: &Path, source: &Value) -> Result<PathBuf> {
    match source["type"].as_str().unwrap_or_default() {
        "" | "DirectoryOrCreate" => fs::create_dir_all(path)?,
        "FileOrCreate" if !path.exists() => fs::write(path, "")?,
        kind => ensure!(path.exists(), "no {kind} at {}", path.display()),
    }
    Ok(path.to_owned())
}

/// Relative paths and contents of one source of a projected volume.
async fn files(node: &Node, pod: &Value, source: &Value) -> Result<Vec<(String, Vec<u8>)>> {
    if let Some(token) = source.get("serviceAccountToken") {
        let bytes = self::token(node, pod, token).await?.into_bytes();
        return Ok(vec![(text(token, "/path")?.to_owned(), bytes)]);
    }
    if let Some(fields) = source.get("downwardAPI") {
        let mut files = Vec::new();
        for item in list(fields, "/items") {
            let value = environment::field(pod, text(item, "/fieldRef/fieldPath")?)?;
            files.push((text(item, "/path")?.to_owned(), value.into_bytes()));
        }
        return Ok(files);
    }
    for (kind, map) in [("configMap", true), ("secret", false)] {
        let Some(reference) = source.get(kind) else {
            continue;
        };
        let name = text(reference, "/name").or_else(|_| text(reference, "/secretName"))?;
        let data = match environment::data_of(node, pod, name, map).await {
            Err(_) if reference["optional"] == true => Vec::new(),
            data => data?,
        };
        let items = list(reference, "/items");
        let path_of = |key: String| match items {
            [] => Some(key),
            items => {
                let item = items.iter().find(|item| item["key"] == key)?;
                Some(item["path"].as_str()?.to_owned())
            }
        };
        let files = data.into_iter();
        return Ok(files
            .filter_map(|(key, bytes)| Some((path_of(key)?, bytes)))
            .collect());
    }
    bail!("the test kubelet does not know the source {source}")
}

/// A token of the pod's service account, bound to the pod, asked for with the node's rights.
async fn token(node: &Node, pod: &Value, wanted: &Value) -> Result<String> {
    let account = pod["spec"]["serviceAccountName"]
        .as_str()
        .unwrap_or("default");
    let accounts: Api<ServiceAccount> =
        Api::namespaced(node.client(), text(pod, "/metadata/namespace")?);
    let audience = wanted["audience"].as_str().map(str::to_owned);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audience.into_iter().collect()),
            expiration_seconds: wanted["expirationSeconds"].as_i64(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(text(pod, "/metadata/name")?.to_owned()),
                uid: Some(text(pod, "/metadata/uid")?.to_owned()),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("a token of service account {account}"))?;
    let token = answer.status.and_then(|status| status.token);
    token.context("an issued token")
}
