//! The Pod Security Standard `restricted`, as the API server's admission checks it: to see that what goes in restricted
//! comes out restricted.

use serde_json::Value;

use super::{containers, list, name_of};

/// Volume sources that are allowed.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Sysctls that are allowed.
const SYSCTLS: [&str; 8] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
];

/// What a pod does that `restricted` forbids; nothing when it may run.
#[must_use]
pub fn violations(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let spec = &pod["spec"];
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[key] == true {
            found.push(key.to_owned());
        }
    }
    for volume in list(pod, "volumes") {
        let keys = volume
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.as_str());
        for kind in keys.filter(|key| *key != "name" && !VOLUMES.contains(key)) {
            found.push(format!("volume {} is of kind {kind}", name_of(volume)));
        }
    }
    let on_pod = &spec["securityContext"];
    check_context("the pod", on_pod, &mut found);
    for sysctl in on_pod["sysctls"].as_array().into_iter().flatten() {
        if !SYSCTLS.contains(&name_of(sysctl)) {
            found.push(format!("sysctl {}", name_of(sysctl)));
        }
    }
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for container in containers(pod, key) {
            check_container(container, on_pod, &mut found);
        }
    }
    found
}

/// What pods and containers both can say.
fn check_context(who: &str, context: &Value, found: &mut Vec<String>) {
    if context["runAsUser"] == 0 {
        found.push(format!("{who} runs as root"));
    }
    if context["windowsOptions"]["hostProcess"] == true {
        found.push(format!("{who} is a host process"));
    }
    let kind = context["seLinuxOptions"]["type"]
        .as_str()
        .unwrap_or_default();
    let allowed = [
        "",
        "container_t",
        "container_init_t",
        "container_kvm_t",
        "container_engine_t",
    ];
    let named = |key: &str| {
        !context["seLinuxOptions"][key]
            .as_str()
            .unwrap_or_default()
            .is_empty()
    };
    if !allowed.contains(&kind) || named("user") || named("role") {
        found.push(format!("{who} sets SELinux options"));
    }
    if context["appArmorProfile"]["type"] == "Unconfined" {
        found.push(format!("{who} is not confined by AppArmor"));
    }
}

fn check_container(container: &Value, on_pod: &Value, found: &mut Vec<String>) {
    let name = format!("container {}", name_of(container));
    let context = &container["securityContext"];
    check_context(&name, context, found);
    let mut forbid = |bad: bool, what: &str| {
        if bad {
            found.push(format!("{name} {what}"));
        }
    };
    let ports = container["ports"].as_array().into_iter().flatten();
    forbid(
        ports
            .clone()
            .any(|port| port["hostPort"].as_u64().unwrap_or(0) != 0),
        "takes a port of the host",
    );
    forbid(context["privileged"] == true, "is privileged");
    forbid(
        context["allowPrivilegeEscalation"] != false,
        "may gain privileges",
    );
    let proc = context["procMount"].as_str().unwrap_or("Default");
    forbid(proc != "Default", "sees all of /proc");
    let capability = |key: &str| {
        context["capabilities"][key]
            .as_array()
            .into_iter()
            .flatten()
    };
    forbid(
        !capability("drop").any(|one| one == "ALL"),
        "does not drop all capabilities",
    );
    forbid(
        capability("add").any(|one| one != "NET_BIND_SERVICE"),
        "adds capabilities",
    );
    let non_root = context
        .get("runAsNonRoot")
        .or_else(|| on_pod.get("runAsNonRoot"));
    forbid(
        non_root.is_none_or(|value| *value != true),
        "does not demand runAsNonRoot",
    );
    let own = context["seccompProfile"]["type"].as_str();
    let profile = own.or_else(|| on_pod["seccompProfile"]["type"].as_str());
    forbid(
        !matches!(profile, Some("RuntimeDefault" | "Localhost")),
        "sets no seccomp profile",
    );
}
