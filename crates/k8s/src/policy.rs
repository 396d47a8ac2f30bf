//! Mode `socket` without a webhook: a MutatingAdmissionPolicy, which the API server runs by itself (Kubernetes 1.36 or newer).
//!
//! The pods come out exactly as from the webhook, status annotation included. What the webhook refuses the policy leaves alone,
//! without a word: it has no way to warn. Modes `files` and `envoy` need the webhook.

use serde_json::{Value, json};

use crate::inject::annotations::{INJECT, MODE, STATUS};
use crate::inject::{
    EXCLUDED, Rules, SOCKET_DIR, SOCKET_URI, SOCKET_VARIABLE, SOCKET_VOLUME, SocketKind,
    socket_hash,
};

const NAMESPACE_ANNOTATIONS: &str = "namespaceObject.metadata.annotations";

/// The policy and its binding.
#[must_use]
pub fn policy(name: &str, rules: &Rules) -> [Value; 2] {
    let mut excluded: Vec<&str> = EXCLUDED.to_vec();
    excluded.extend(Some(rules.own_namespace.as_str()).filter(|own| !own.is_empty()));
    excluded.extend(rules.excluded_namespaces.iter().map(String::as_str));
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            // A pod that asked and could not be changed must not start without its socket.
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {
                "namespaceSelector": {"matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded},
                ]},
                "resourceRules": [{
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                }],
            },
            "matchConditions": conditions(),
            "variables": variables(rules),
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": mutation(rules)}}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name},
    });
    [policy, binding]
}

/// CEL for a member of a map that may be absent: the value, or `other`.
fn member(map: &str, key: &str, other: &str) -> String {
    format!("(has({map}) && '{key}' in {map} ? {map}['{key}'] : {other})")
}

/// The value of the switch: the pod's label, its annotation, the namespace's label.
fn switch() -> String {
    let namespace = member("namespaceObject.metadata.labels", INJECT, "''");
    let annotation = member("object.metadata.annotations", INJECT, &namespace);
    member("object.metadata.labels", INJECT, &annotation)
}

/// The mode that `enabled` stands for.
fn mode(rules: &Rules) -> String {
    let default = format!("'{}'", rules.default_mode.as_str());
    let namespace = member(NAMESPACE_ANNOTATIONS, MODE, &default);
    member("object.metadata.annotations", MODE, &namespace)
}

/// Whether this pod is to be changed.
fn asked(rules: &Rules) -> String {
    let asked = "variables.switch == 'socket' || (variables.switch in ['enabled', 'true'] && variables.mode == 'socket')";
    if rules.socket.kind == SocketKind::Csi {
        return asked.to_owned();
    }
    let key = "pod-security.kubernetes.io/enforce";
    let level = member("namespaceObject.metadata.labels", key, "'privileged'");
    format!("({asked}) && {level} == 'privileged'")
}

/// What the pod alone decides: match conditions do not see its namespace.
fn conditions() -> Value {
    let absent = |map: &str, key: &str| format!("!(has({map}) && '{key}' in {map})");
    let spec = "object.spec";
    let mount_elsewhere = |list: &str| {
        format!(
            "!has({spec}.{list}) || !{spec}.{list}.exists(c, has(c.volumeMounts) && c.volumeMounts.exists(m, m.mountPath in ['{SOCKET_DIR}', '{SOCKET_DIR}/'] && m.name != '{SOCKET_VOLUME}'))"
        )
    };
    let all = [
        (
            "not-yet-injected",
            absent("object.metadata.annotations", STATUS),
        ),
        (
            "no-static-pod",
            absent("object.metadata.annotations", "kubernetes.io/config.mirror"),
        ),
        (
            "skips-no-container",
            absent("object.metadata.annotations", "signet.dev/skip-containers"),
        ),
        (
            "no-host-pid",
            format!("!has({spec}.hostPID) || !{spec}.hostPID"),
        ),
        (
            "no-windows",
            format!(
                "!(has({spec}.os) && {spec}.os.name == 'windows') && !(has({spec}.nodeSelector) && 'kubernetes.io/os' in {spec}.nodeSelector && {spec}.nodeSelector['kubernetes.io/os'] == 'windows')"
            ),
        ),
        (
            "volume-name-free",
            format!(
                "!has({spec}.volumes) || !{spec}.volumes.exists(v, v.name == '{SOCKET_VOLUME}')"
            ),
        ),
        ("mount-path-free", mount_elsewhere("containers")),
        (
            "mount-path-free-in-init-containers",
            mount_elsewhere("initContainers"),
        ),
    ];
    let all = all
        .into_iter()
        .map(|(name, expression)| json!({"name": name, "expression": expression}));
    Value::Array(all.collect())
}

/// The names of the containers that get the mount and the variable, quoted as in JSON.
fn variables(rules: &Rules) -> Value {
    let names = |condition: &str| {
        let of = |list: &str| {
            format!(
                "(has(object.spec.{list}) ? object.spec.{list}.filter(c, {condition}).map(c, '\"' + c.name + '\"') : [])"
            )
        };
        format!("{} + {}", of("containers"), of("initContainers"))
    };
    let all = [
        ("switch", switch()),
        ("mode", mode(rules)),
        ("asked", asked(rules)),
        ("mounts", names(&without_mount("c"))),
        ("env", names(&without_variable("c"))),
    ];
    let all = all
        .into_iter()
        .map(|(name, expression)| json!({"name": name, "expression": expression}));
    Value::Array(all.collect())
}

fn without_mount(container: &str) -> String {
    format!(
        "!has({container}.volumeMounts) || !{container}.volumeMounts.exists(m, m.name == '{SOCKET_VOLUME}')"
    )
}

fn without_variable(container: &str) -> String {
    format!("!has({container}.env) || !{container}.env.exists(e, e.name == '{SOCKET_VARIABLE}')")
}

/// One expression that makes the whole list of operations.
fn mutation(rules: &Rules) -> String {
    let parts = [
        volume(rules),
        in_each("containers"),
        in_each("initContainers"),
        status(rules),
    ];
    format!("!variables.asked ? [] :\n{}", parts.join(" +\n"))
}

/// Operations that add `value` to the end of a list, which is made when there is none.
fn append(has: &str, path: &str, value: &str) -> String {
    format!(
        "({has} ? [JSONPatch{{op: \"add\", path: {path} + \"/-\", value: {value}}}] : [JSONPatch{{op: \"add\", path: {path}, value: [{value}]}}])"
    )
}

fn volume(rules: &Rules) -> String {
    let source = match rules.socket.kind {
        SocketKind::Csi => format!(
            "csi: Object.spec.volumes.csi{{driver: {}, readOnly: true}}",
            quoted(&rules.socket.driver)
        ),
        SocketKind::HostPath => format!(
            "hostPath: Object.spec.volumes.hostPath{{path: {}, type: \"Directory\"}}",
            quoted(&rules.socket.host_path)
        ),
    };
    let value = format!("Object.spec.volumes{{name: \"{SOCKET_VOLUME}\", {source}}}");
    append("has(object.spec.volumes)", "\"/spec/volumes\"", &value)
}

fn in_each(list: &str) -> String {
    let item = format!("object.spec.{list}[i]");
    let mount = format!(
        "Object.spec.{list}.volumeMounts{{name: \"{SOCKET_VOLUME}\", mountPath: \"{SOCKET_DIR}\", readOnly: true}}"
    );
    let env =
        format!("Object.spec.{list}.env{{name: \"{SOCKET_VARIABLE}\", value: \"{SOCKET_URI}\"}}");
    let each = |condition: &str, has: &str, key: &str, value: &str| {
        let path = format!("\"/spec/{list}/\" + string(i) + \"/{key}\"");
        let operations = append(has, &path, value);
        format!(
            "(has(object.spec.{list}) ? lists.range(size(object.spec.{list})).map(i, ({condition}) ? {operations} : []).flatten() : [])"
        )
    };
    let mounts = each(
        &without_mount(&item),
        &format!("has({item}.volumeMounts)"),
        "volumeMounts",
        &mount,
    );
    let envs = each(
        &without_variable(&item),
        &format!("has({item}.env)"),
        "env",
        &env,
    );
    format!("{mounts} +\n{envs}")
}

/// The status annotation, as [`crate::inject::Status`] writes it.
fn status(rules: &Rules) -> String {
    let head = format!(
        "{{\"version\":\"{}\",\"mode\":\"socket\",\"hash\":\"{}\",\"volumes\":[\"{SOCKET_VOLUME}\"]",
        env!("CARGO_PKG_VERSION"),
        socket_hash(rules)
    );
    let list = |name: &str| {
        format!(
            "(size(variables.{name}) == 0 ? '' : ',\"{name}\":[' + variables.{name}.join(',') + ']')"
        )
    };
    let text = format!("'{head}' + {} + {} + '}}'", list("mounts"), list("env"));
    let make = "(has(object.metadata.annotations) ? [] : [JSONPatch{op: \"add\", path: \"/metadata/annotations\", value: {}}])";
    format!(
        "{make} +\n[JSONPatch{{op: \"add\", path: \"/metadata/annotations/\" + jsonpatch.escapeKey(\"{STATUS}\"), value: {text}}}]"
    )
}

/// A CEL string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_shape_the_policy() {
        let mut rules = Rules {
            own_namespace: "spire-system".to_owned(),
            ..Rules::default()
        };
        let [csi, binding] = policy("p", &rules);
        assert_eq!(binding["spec"]["policyName"], "p");
        let excluded = &csi["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"][0];
        assert_eq!(excluded["values"][3], "spire-system");
        rules.socket.kind = SocketKind::HostPath;
        rules.socket.host_path = "/run/\"x".to_owned();
        let [host, _] = policy("p", &rules);
        let mutation = &host["spec"]["mutations"][0]["jsonPatch"]["expression"];
        let mutation = mutation.as_str().expect("an expression");
        assert!(mutation.contains(r#"path: "/run/\"x""#), "{mutation}");
        let asked = &host["spec"]["variables"][2]["expression"];
        assert!(
            asked
                .as_str()
                .expect("an expression")
                .contains("pod-security")
        );
        assert_ne!(csi["spec"]["mutations"], host["spec"]["mutations"]);
    }

    /// Variables see the namespace, match conditions do not: one that names it would deny every pod.
    #[test]
    fn conditions_do_not_name_the_namespace() {
        let [policy, _] = policy("p", &Rules::default());
        let conditions = policy["spec"]["matchConditions"].to_string();
        assert!(!conditions.contains("namespaceObject"), "{conditions}");
    }
}
