//! Additions into a pod, and out of it again.

use serde_json::{Value, json};

use super::additions::{Additions, sidecar_name};
use super::annotations::STATUS;
use super::edit::Edit;
use super::reason::Refusal;
use super::status::{Overlay, Status};
use super::{containers, list, name_of, probes, sidecar};

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// Takes the pod's container that is to be merged over the sidecar out of it.
pub(crate) fn take_overlay(edit: &mut Edit, name: &str) -> Result<Option<Overlay>, Refusal> {
    for list in LISTS {
        let found = containers(&edit.pod, list).position(|container| name_of(container) == name);
        let Some(index) = found else { continue };
        let container = edit.pod["spec"][list][index].clone();
        if container["image"] != "auto" {
            return Err(Refusal::ContainerNameTaken(name.to_owned()));
        }
        edit.remove(&["spec", list, &index.to_string()])?;
        return Ok(Some(Overlay {
            list: list.to_owned(),
            index,
            container,
        }));
    }
    Ok(None)
}

/// Adds everything to a pod that has nothing of ours but perhaps an overlay, already taken out. Gives what was done, and the
/// warnings about it.
pub(crate) fn apply(
    edit: &mut Edit,
    mut additions: Additions,
    overlay: Option<Overlay>,
) -> Result<(Status, Vec<String>), Refusal> {
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: additions.mode,
        hash: additions.hash(),
        init_containers: Vec::new(),
        containers: Vec::new(),
        volumes: Vec::new(),
        mounts: Vec::new(),
        env: Vec::new(),
        image_pull_secrets: Vec::new(),
        probes: Vec::new(),
        overlay,
    };
    add_volumes(edit, &mut additions, &mut status)?;
    add_to_containers(edit, &additions, &mut status)?;
    repoint(edit, &additions, &mut status)?;
    add_sidecar(edit, &mut additions, &mut status)?;
    for secret in &additions.pull_secrets {
        let there = list(&edit.pod, "imagePullSecrets").any(|there| name_of(there) == secret);
        if !there {
            edit.append(&["spec", "imagePullSecrets"], json!({"name": secret}))?;
            status.image_pull_secrets.push(secret.clone());
        }
    }
    edit.set(
        &["metadata", "annotations"],
        STATUS,
        json!(status.to_text()),
    )?;
    Ok((status, additions.warnings))
}

fn add_volumes(
    edit: &mut Edit,
    additions: &mut Additions,
    status: &mut Status,
) -> Result<(), Refusal> {
    for volume in additions.volumes.drain(..) {
        let name = name_of(&volume).to_owned();
        let there = list(&edit.pod, "volumes").find(|there| name_of(there) == name);
        match there {
            Some(there) if contains(there, &volume) => {}
            Some(_) => return Err(Refusal::VolumeNameTaken(name)),
            None => {
                edit.append(&["spec", "volumes"], volume)?;
                status.volumes.push(name);
            }
        }
    }
    Ok(())
}

fn add_to_containers(
    edit: &mut Edit,
    additions: &Additions,
    status: &mut Status,
) -> Result<(), Refusal> {
    for list in LISTS {
        for index in 0..containers(&edit.pod, list).count() {
            let container = &edit.pod["spec"][list][index];
            let name = name_of(container).to_owned();
            if additions.skip.contains(&name) {
                continue;
            }
            let place = index.to_string();
            let mount = additions
                .mount
                .as_ref()
                .filter(|mount| !mounted(container, mount));
            let env = additions
                .env
                .as_ref()
                .filter(|env| !has_variable(container, env));
            if let Some(mount) = mount {
                refuse_taken(container, mount)?;
                edit.append(&["spec", list, &place, "volumeMounts"], mount.clone())?;
                status.mounts.push(name.clone());
            }
            if let Some(env) = env {
                edit.append(&["spec", list, &place, "env"], env.clone())?;
                status.env.push(name);
            }
        }
    }
    Ok(())
}

fn items<'a>(container: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    container
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Whether the container mounts our volume by itself, wherever: its author knows where it wants it.
fn mounted(container: &Value, mount: &Value) -> bool {
    items(container, "volumeMounts").any(|there| there["name"] == mount["name"])
}

/// A variable the container sets itself is left as it is.
fn has_variable(container: &Value, env: &Value) -> bool {
    items(container, "env").any(|there| there["name"] == env["name"])
}

fn refuse_taken(container: &Value, mount: &Value) -> Result<(), Refusal> {
    let path = mount["mountPath"].as_str().unwrap_or_default();
    let taken = items(container, "volumeMounts").any(|there| {
        let there = there["mountPath"].as_str().unwrap_or_default();
        steps(there) == steps(path)
    });
    if taken {
        return Err(Refusal::MountPathTaken {
            container: name_of(container).to_owned(),
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// A path as the kubelet goes it: `//a/./b/../c` leads where `/a/c` does.
fn steps(path: &str) -> Vec<&str> {
    let mut steps = Vec::new();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    steps
}

/// A native sidecar goes before the pod's own init containers, an ordinary one before its containers.
fn add_sidecar(
    edit: &mut Edit,
    additions: &mut Additions,
    status: &mut Status,
) -> Result<(), Refusal> {
    let Some(mut container) = additions.sidecar.take() else {
        return Ok(());
    };
    if let Some(overlay) = &status.overlay {
        let mut theirs = overlay.container.clone();
        if let Some(theirs) = theirs.as_object_mut() {
            theirs.remove("image");
        }
        sidecar::overlay(&mut container, &theirs);
    }
    if let Some((_, user)) = &additions.capture
        && container["securityContext"]["runAsUser"] != *user
    {
        return Err(Refusal::CaptureUser(format!(
            "the container merged over Envoy's has another than {user}"
        )));
    }
    let name = name_of(&container).to_owned();
    if additions.native {
        edit.prepend(&["spec", "initContainers"], container)?;
        status.init_containers.push(name);
    } else {
        edit.prepend(&["spec", "containers"], container)?;
        status.containers.push(name);
    }
    // Before everything: no connection comes or goes unseen.
    if let Some((capture, _)) = additions.capture.take() {
        status.init_containers.push(name_of(&capture).to_owned());
        edit.prepend(&["spec", "initContainers"], capture)?;
    }
    Ok(())
}

/// Probes and hooks of captured ports, asked of Envoy instead.
fn repoint(edit: &mut Edit, additions: &Additions, status: &mut Status) -> Result<(), Refusal> {
    let (probes, port) = &additions.probes;
    for probe in probes {
        let Some(place) = probe.place(&edit.pod) else {
            continue;
        };
        let mut place: Vec<&str> = place.iter().map(String::as_str).collect();
        edit.set(&place, "httpGet", probe.http_get(*port))?;
        if let Some(key) = probe.replaced() {
            place.push(key);
            edit.remove(&place)?;
        }
        status.probes.push(probe.repointed());
    }
    Ok(())
}

/// Takes everything out that the status names. Lists and maps left empty go too.
pub(crate) fn take_out(pod: &Value, status: &Status) -> Value {
    let mut pod = pod.clone();
    let named = |names: &[String], item: &Value| names.iter().any(|name| name == name_of(item));
    let Some(spec) = pod.get_mut("spec") else {
        return pod;
    };
    drop_from(spec, "initContainers", |item| {
        named(&status.init_containers, item)
    });
    drop_from(spec, "containers", |item| named(&status.containers, item));
    drop_from(spec, "volumes", |item| named(&status.volumes, item));
    drop_from(spec, "imagePullSecrets", |item| {
        named(&status.image_pull_secrets, item)
    });
    probes::put_back(spec, &status.probes);
    let mount = super::mount_path(status.mode);
    for list in LISTS {
        let all = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in all.into_iter().flatten() {
            if named(&status.mounts, container) {
                drop_from(container, "volumeMounts", |item| {
                    Some(item["mountPath"].as_str().unwrap_or_default()) == mount
                });
            }
            if named(&status.env, container) {
                drop_from(container, "env", |item| {
                    name_of(item) == super::SOCKET_VARIABLE
                });
            }
        }
    }
    if let Some(overlay) = &status.overlay {
        put_back(spec, overlay);
    }
    let metadata = pod.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata
        && let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
    {
        annotations.remove(STATUS);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    pod
}

fn drop_from(holder: &mut Value, key: &str, ours: impl Fn(&Value) -> bool) {
    let Some(holder) = holder.as_object_mut() else {
        return;
    };
    let Some(list) = holder.get_mut(key).and_then(Value::as_array_mut) else {
        return;
    };
    let before = list.len();
    list.retain(|item| !ours(item));
    if list.is_empty() && before > 0 {
        holder.remove(key);
    }
}

fn put_back(spec: &mut Value, overlay: &Overlay) {
    let Some(spec) = spec.as_object_mut() else {
        return;
    };
    let list = spec.entry(&overlay.list).or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        let index = overlay.index.min(list.len());
        list.insert(index, overlay.container.clone());
    }
}

/// Whether `there` has everything that `wanted` has; the API server adds defaults, other webhooks more.
pub(crate) fn contains(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            let there = there.get(key);
            // The API leaves out what is false or empty.
            let nothing = *wanted == json!(false) || wanted.is_null();
            there.map_or(nothing, |there| contains(there, wanted))
        }),
        (Value::Array(there), Value::Array(wanted)) if wanted.iter().all(Value::is_object) => {
            wanted
                .iter()
                .all(|wanted| there.iter().any(|there| contains(there, wanted)))
        }
        _ => there == wanted,
    }
}

/// Our sidecar in a pod, by the mode's name.
pub(crate) fn sidecar_of<'a>(pod: &'a Value, status: &Status) -> Option<&'a Value> {
    let name = sidecar_name(status.mode)?;
    LISTS
        .into_iter()
        .find_map(|list| containers(pod, list).find(|container| name_of(container) == name))
}
