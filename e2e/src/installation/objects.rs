//! The Kubernetes objects that Signet's programs need, and their configurations.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CLUSTER, NAMESPACE};

/// Service accounts and their rights: no more than each program asks for.
pub(super) fn accounts() -> Value {
    let mut objects = Vec::new();
    for (name, rules) in [
        (
            "spire-server",
            json!([
                {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
                {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get"]},
            ]),
        ),
        (
            "spire-agent",
            json!([{"apiGroups": [""], "resources": ["nodes/proxy", "nodes/pods"], "verbs": ["get"]}]),
        ),
        (
            "signet-injector",
            json!([
                {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]},
                {
                    "apiGroups": ["admissionregistration.k8s.io"],
                    "resources": ["mutatingwebhookconfigurations"],
                    "resourceNames": ["signet-injector"],
                    "verbs": ["get", "list", "watch", "patch"],
                },
                {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            ]),
        ),
        (
            "spire-controller",
            json!([
                {"apiGroups": [""], "resources": ["pods", "nodes", "namespaces", "endpoints"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["spire.spiffe.io"], "resources": ["*"], "verbs": ["get", "list", "watch", "update", "patch"]},
                {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update", "patch"]},
            ]),
        ),
    ] {
        objects.push(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": NAMESPACE, "name": name},
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name}, "rules": rules,
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "namespace": NAMESPACE, "name": name}],
        }));
    }
    Value::Array(objects)
}

/// The server's plugin for this cluster, with the kubeconfig of its service account.
pub(super) fn node_attestor(kubeconfig: &Path) -> String {
    format!(
        r#"NodeAttestor "k8s_psat" {{
    plugin_data {{
      clusters = {{
        "{CLUSTER}" = {{
          service_account_allow_list = ["{NAMESPACE}:spire-agent"]
          kube_config_file = "{}"
        }}
      }}
    }}
  }}"#,
        kubeconfig.display()
    )
}

pub(super) fn agent_config(trust_domain: &str, server_port: u16, sync: Duration) -> String {
    let sync = sync.as_millis();
    format!(
        r#"agent {{
  trust_domain = "{trust_domain}"
  server_address = "127.0.0.1"
  server_port = {server_port}
  socket_path = "/run/spire/agent-sockets/spire-agent.sock"
  data_dir = "/run/spire/data"
  log_level = "DEBUG"
  trust_bundle_path = "/run/spire/config/bundle.crt"
  experimental {{
    sync_interval = "{sync}ms"
  }}
}}
plugins {{
  NodeAttestor "k8s_psat" {{
    plugin_data {{
      cluster = "{CLUSTER}"
    }}
  }}
  KeyManager "memory" {{
    plugin_data {{}}
  }}
  WorkloadAttestor "k8s" {{
    plugin_data {{
      kubelet_ca_path = "/run/spire/config/kubelet-ca.crt"
    }}
  }}
}}
"#
    )
}

/// The agent's DaemonSet.
pub(super) fn agent() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"namespace": NAMESPACE, "name": "spire-agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "spire-agent"}},
            "template": {
                "metadata": {"labels": {"app": "spire-agent"}},
                "spec": {
                    "serviceAccountName": "spire-agent",
                    "hostNetwork": true, "hostPID": true,
                    "containers": [{
                        "name": "spire-agent", "image": "signet",
                        "args": ["agent", "run", "-config", "/run/spire/config/agent.conf"],
                        "securityContext": {"runAsUser": 0},
                        "volumeMounts": [
                            {"name": "config", "mountPath": "/run/spire/config", "readOnly": true},
                            {"name": "data", "mountPath": "/run/spire/data"},
                            {"name": "sockets", "mountPath": "/run/spire/agent-sockets"},
                            {"name": "token", "mountPath": "/var/run/secrets/tokens", "readOnly": true},
                        ],
                    }],
                    "volumes": [
                        {"name": "config", "configMap": {"name": "spire-agent"}},
                        {"name": "data", "emptyDir": {}},
                        {"name": "sockets", "hostPath": {
                            "path": "/run/spire/agent-sockets", "type": "DirectoryOrCreate",
                        }},
                        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {
                            "path": "spire-agent", "audience": "spire-server", "expirationSeconds": 7200,
                        }}]}},
                    ],
                },
            },
        },
    })
}
