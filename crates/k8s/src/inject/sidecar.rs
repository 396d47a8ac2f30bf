//! The containers added: their images, rights, probes and resources.

use serde_json::{Map, Value, json};

use super::annotations::Wanted;
use super::captured::Captured;
use super::rules::{Resources, Rules};
use super::{
    ADMIN_DIR, CAPTURE, ENVOY, FILES, FILES_DIR, Namespace, SOCKET_DIR, SOCKET_URI,
    SOCKET_VARIABLE, SOCKET_VOLUME, bootstrap, containers,
};

/// OpenShift gives every namespace user IDs of its own and refuses others.
pub(crate) const UID_RANGE: &str = "openshift.io/sa.scc.uid-range";

/// The Envoy of mode `envoy`.
pub(crate) fn envoy(
    pod: &Value,
    wanted: &Wanted,
    app_port: Option<u16>,
    captured: &Captured,
    namespace: &Namespace,
    rules: &Rules,
) -> Value {
    let account = service_account(pod);
    let bootstrap = bootstrap::bootstrap(wanted, app_port, captured, rules);
    let ready = json!({"path": "/ready", "port": wanted.metrics_port});
    let mut ports = vec![
        json!({"name": "signet-metrics", "containerPort": wanted.metrics_port, "protocol": "TCP"}),
    ];
    if app_port.is_some() {
        ports.insert(
            0,
            json!({"name": "signet-mtls", "containerPort": wanted.port, "protocol": "TCP"}),
        );
    }
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut variables = vec![field("POD_NAME", "metadata.name")];
    if !captured.probes.is_empty() {
        variables.push(field("SIGNET_POD_IP", "status.podIP"));
    }
    let mut container = base(
        ENVOY,
        wanted,
        Some(wanted.user.unwrap_or(rules.envoy.user)),
        namespace,
    );
    let args = [
        "--config-yaml".to_owned(),
        bootstrap,
        "--service-cluster".to_owned(),
        format!("{}/{account}", namespace.name),
        "--service-node".to_owned(),
        "$(POD_NAME)".to_owned(),
        "--log-level".to_owned(),
        wanted.log_level.clone(),
        "--concurrency".to_owned(),
        rules.envoy.concurrency.to_string(),
        "--disable-hot-restart".to_owned(),
    ];
    container["args"] = json!(args);
    container["env"] = environment(variables, wanted);
    container["ports"] = json!(ports);
    // Ten minutes for an identity to be registered and issued; then the kubelet starts over.
    container["startupProbe"] =
        json!({"httpGet": ready, "periodSeconds": 1, "failureThreshold": 600, "timeoutSeconds": 2});
    container["readinessProbe"] =
        json!({"httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 2});
    if let Some(seconds) = wanted.grace {
        // The image has no shell to wait with.
        container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": seconds}}});
    }
    container["volumeMounts"] = json!([socket_mount(), {"name": ENVOY, "mountPath": ADMIN_DIR}]);
    container
}

/// The helper of mode `files`.
pub(crate) fn files(pod: &Value, wanted: &Wanted, namespace: &Namespace, rules: &Rules) -> Value {
    let user = wanted
        .user
        .or_else(|| app_user(pod))
        .unwrap_or(rules.files.user);
    let mut container = base(FILES, wanted, Some(user), namespace);
    let mode = key_mode(pod, user, namespace);
    container["args"] = json!(["k8s", "files", "--dir", FILES_DIR, "--key-mode", mode]);
    container["env"] = environment(
        vec![json!({"name": SOCKET_VARIABLE, "value": SOCKET_URI})],
        wanted,
    );
    let check = json!([
        "/usr/bin/signet",
        "k8s",
        "files",
        "--dir",
        FILES_DIR,
        "--check"
    ]);
    container["startupProbe"] = json!({"exec": {"command": check}, "periodSeconds": 1, "failureThreshold": 600, "timeoutSeconds": 2});
    container["volumeMounts"] = json!([socket_mount(), {"name": FILES, "mountPath": FILES_DIR}]);
    container
}

/// The init container of a captured pod: root with `NET_ADMIN`, and nothing else that it could do without.
pub(crate) fn capture(args: Vec<String>, wanted: &Wanted, rules: &Rules) -> Value {
    let mut container = json!({
        "name": CAPTURE,
        "image": rules.images.signet,
        "imagePullPolicy": wanted.pull_policy.as_str(),
        "args": args,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    // As small as the helper of mode `files`, and gone in an instant.
    if let Some(resources) = resources(&rules.files.resources) {
        container["resources"] = resources;
    }
    container
}

/// What every sidecar has; runs under the Pod Security Standard `restricted`.
fn base(name: &str, wanted: &Wanted, user: Option<u32>, namespace: &Namespace) -> Value {
    let mut security = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if let Some(user) = user
        && !namespace.annotations.contains_key(UID_RANGE)
    {
        security["runAsUser"] = json!(user);
    }
    let mut container = json!({
        "name": name,
        "image": wanted.image,
        "imagePullPolicy": wanted.pull_policy.as_str(),
        "securityContext": security,
    });
    if let Some(resources) = resources(&wanted.resources) {
        container["resources"] = resources;
    }
    container
}

fn resources(resources: &Resources) -> Option<Value> {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for (resource, request, limit) in resources.pairs() {
        if let Some(request) = request {
            requests.insert(resource.to_owned(), json!(request));
        }
        if let Some(limit) = limit {
            limits.insert(resource.to_owned(), json!(limit));
        }
    }
    let mut all = Map::new();
    for (key, part) in [("requests", requests), ("limits", limits)] {
        if !part.is_empty() {
            all.insert(key.to_owned(), Value::Object(part));
        }
    }
    (!all.is_empty()).then_some(Value::Object(all))
}

/// Our variables and the annotation's, which has none of ours ([`super::annotations`] refuses them).
fn environment(mut ours: Vec<Value>, wanted: &Wanted) -> Value {
    let theirs = wanted.env.iter();
    ours.extend(theirs.map(|(name, value)| json!({"name": name, "value": value})));
    Value::Array(ours)
}

/// The agent's socket, as every container that uses it mounts it.
pub(crate) fn socket_mount() -> Value {
    json!({"name": SOCKET_VOLUME, "mountPath": SOCKET_DIR, "readOnly": true})
}

fn service_account(pod: &Value) -> &str {
    let name = pod
        .pointer("/spec/serviceAccountName")
        .and_then(Value::as_str);
    name.filter(|name| !name.is_empty()).unwrap_or("default")
}

/// The user the app runs as, when its manifest says so: it must be able to read its key.
fn app_user(pod: &Value) -> Option<u32> {
    user_of(pod, containers(pod, "containers").next()?)
}

/// A container's user, by itself or by its pod.
pub(crate) fn user_of(pod: &Value, container: &Value) -> Option<u32> {
    let own = container.pointer("/securityContext/runAsUser");
    let user = own.or_else(|| pod.pointer("/spec/securityContext/runAsUser"))?;
    u32::try_from(user.as_u64()?).ok().filter(|user| *user > 0)
}

/// As narrow as the app can still read: its own user, the pod's group, or everybody in the pod. Nobody outside sees the volume.
fn key_mode(pod: &Value, helper: u32, namespace: &Namespace) -> &'static str {
    let mut all = containers(pod, "containers").chain(containers(pod, "initContainers"));
    if namespace.annotations.contains_key(UID_RANGE)
        || all.all(|one| user_of(pod, one) == Some(helper))
    {
        "0600"
    } else if pod
        .pointer("/spec/securityContext/fsGroup")
        .is_some_and(Value::is_u64)
    {
        "0640"
    } else {
        "0644"
    }
}

/// Merges a container of the pod over ours: objects by key, lists of named things by name, everything else replaced.
pub(crate) fn overlay(ours: &mut Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in theirs {
                match ours.get_mut(key) {
                    Some(slot) if !value.is_null() => overlay(slot, value),
                    _ => drop(ours.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if merge_key(ours).is_some() => {
            let key = merge_key(ours).unwrap_or_default();
            for item in theirs {
                let id = item.get(key);
                let slot = ours
                    .iter_mut()
                    .find(|ours| id.is_some() && ours.get(key) == id);
                match slot {
                    Some(slot) => overlay(slot, item),
                    None => ours.push(item.clone()),
                }
            }
        }
        (ours, theirs) => *ours = theirs.clone(),
    }
}

/// By what Kubernetes tells the items of such a list apart.
fn merge_key(list: &[Value]) -> Option<&'static str> {
    ["mountPath", "containerPort", "name"]
        .into_iter()
        .find(|key| !list.is_empty() && list.iter().all(|item| item.get(key).is_some()))
}
