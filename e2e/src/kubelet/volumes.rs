//! A pod's volumes as folders of the node.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Gid, chown};
use serde_json::Value;

use super::node::Node;
use super::tokens::Token;
use super::{csi, environment, list, text};

/// Where each volume of a pod is, and the tokens in them.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    pub(super) places: BTreeMap<String, PathBuf>,
    pub(super) tokens: Vec<Token>,
}

/// Where the volumes of this pod are, as the node sees it.
pub(super) fn folder(uid: &str) -> PathBuf {
    PathBuf::from(format!("/var/lib/kubelet/pods/{uid}"))
}

/// Makes every volume.
pub(super) async fn prepare(node: &Node, pod: &Value) -> Result<Volumes> {
    let mut volumes = Volumes::default();
    for volume in list(pod, "/spec/volumes") {
        let name = text(volume, "/name")?;
        let place = one(node, pod, volume, &mut volumes.tokens)
            .await
            .with_context(|| format!("volume {name}"))?;
        volumes.places.insert(name.to_owned(), place);
    }
    Ok(volumes)
}

async fn one(node: &Node, pod: &Value, volume: &Value, tokens: &mut Vec<Token>) -> Result<PathBuf> {
    let name = text(volume, "/name")?;
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
        give_to_group(&place, pod)?;
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
        give_to_group(&place, pod)?;
        return Ok(place);
    }
    let sources = match kind.as_str() {
        "projected" => list(source, "/sources").to_vec(),
        "configMap" | "secret" | "downwardAPI" => vec![serde_json::json!({ kind: source })],
        other => bail!("the test kubelet does not know the kind {other}"),
    };
    for source in &sources {
        if let Some(wanted) = source.get("serviceAccountToken") {
            let file = place.join(text(wanted, "/path")?);
            tokens.push(Token::put(node, pod, wanted, file).await?);
            continue;
        }
        for (path, bytes) in files(node, pod, source).await? {
            let path = place.join(path);
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(&path, bytes)?;
        }
    }
    give_to_group(&place, pod)?;
    Ok(place)
}

/// What is in a volume belongs to the pod's `fsGroup`, and so does what comes into it.
pub(super) fn give_to_group(place: &Path, pod: &Value) -> Result<()> {
    let group = pod.pointer("/spec/securityContext/fsGroup");
    match group.and_then(Value::as_u64).map(u32::try_from) {
        Some(group) => give(place, Gid::from_raw(group?)),
        None => Ok(()),
    }
}

fn give(place: &Path, group: Gid) -> Result<()> {
    let about = fs::symlink_metadata(place)?;
    chown(place, None, Some(group))?;
    let more = if about.is_dir() { 0o2770 } else { 0o660 };
    let mode = about.permissions().mode() | more;
    fs::set_permissions(place, fs::Permissions::from_mode(mode))?;
    if about.is_dir() {
        for entry in fs::read_dir(place)? {
            give(&entry?.path(), group)?;
        }
    }
    Ok(())
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
