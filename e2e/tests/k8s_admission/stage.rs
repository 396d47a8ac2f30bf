use anyhow::Result;
use e2e::cluster::Cluster;
use e2e::process::Process;
use e2e::{Domain, Settings, binaries};
use kube::Client;
use serde_json::{Value, json};

/// A cluster with the definitions, a server, and a namespace with the controller's account.
pub(crate) struct Stage {
    pub(crate) cluster: &'static Cluster,
    pub(crate) client: Client,
    pub(crate) domain: Domain,
    pub(crate) namespace: String,
}

impl Stage {
    pub(crate) async fn new(name: &str, settings: Settings) -> Result<Self> {
        let cluster = Cluster::shared().await?;
        let mut domain = Domain::new(settings)?;
        domain.start_server().await?;
        for file in std::fs::read_dir(binaries::repository("manifests/crds"))? {
            let text = std::fs::read_to_string(file?.path())?;
            cluster.apply_yaml(&text).await?;
        }
        let namespace = cluster.namespace(name, &[]).await?;
        cluster.apply(&rights(&namespace)).await?;
        Ok(Self {
            cluster,
            client: cluster.client()?,
            domain,
            namespace,
        })
    }

    pub(crate) async fn controller(&self, more: Value) -> Result<Process> {
        self.controller_named("controller", more).await
    }

    /// One of several; the name is for its files.
    pub(crate) async fn controller_named(&self, name: &str, more: Value) -> Result<Process> {
        let mut config = json!({
            "kind": "ControllerManagerConfig",
            "clusterName": self.namespace,
            "trustDomain": "example.org",
            "clusterDomain": "cluster.local",
            "spireServerSocketPath": self.domain.server_socket(),
            "validatingWebhookConfigurationName": self.namespace,
        });
        let more = more.as_object().cloned();
        config
            .as_object_mut()
            .into_iter()
            .zip(more)
            .for_each(|(config, more)| config.extend(more));
        let config = self
            .domain
            .write(&format!("{name}.json"), &config.to_string())?;
        let kubeconfig = self.cluster.kubeconfig_of(&self.namespace, "controller");
        let (config, kubeconfig) = (config.display(), kubeconfig.await?);
        let args = [
            "k8s".to_owned(),
            "controller".to_owned(),
            format!("--config={config}"),
            format!("--kubeconfig={}", kubeconfig.display()),
        ];
        let log = self.domain.path(&format!("{name}.log"));
        Process::start(name, self.domain.signet(), args, &log)
    }
}

/// What the chart grants when a selector, a ClusterTrustBundle and `caBundle`s are asked for.
fn rights(namespace: &str) -> Value {
    let read = json!(["get", "list", "watch"]);
    let change = json!(["get", "list", "watch", "patch"]);
    let keep = json!(["get", "list", "watch", "create", "patch"]);
    let name = format!("controller-{namespace}");
    let subject = json!([{"kind": "ServiceAccount", "name": "controller", "namespace": namespace}]);
    let role = |kind: &str, name: &str, rules: Value| {
        json!([
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
             "metadata": {"namespace": namespace, "name": name}, "rules": rules},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
             "metadata": {"namespace": namespace, "name": name}, "subjects": subject,
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}},
        ])
    };
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"namespace": namespace, "name": "controller"},
    })];
    let cluster = role(
        "ClusterRole",
        &name,
        json!([
            {"apiGroups": [""], "resources": ["pods", "nodes", "namespaces", "endpoints"], "verbs": read},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
            {"apiGroups": ["spire.spiffe.io"], "resources": ["clusterspiffeids", "clusterstaticentries", "clusterfederatedtrustdomains"], "verbs": read},
            {"apiGroups": ["spire.spiffe.io"], "resources": ["clusterspiffeids/status", "clusterstaticentries/status", "clusterfederatedtrustdomains/status"], "verbs": ["update", "patch"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["validatingwebhookconfigurations"], "resourceNames": [namespace], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["spire-bundle"], "verbs": keep},
            {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"], "verbs": change},
            {"apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"], "verbs": change},
            {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": change},
            {"apiGroups": ["certificates.k8s.io"], "resources": ["clustertrustbundles"], "resourceNames": [namespace], "verbs": keep},
        ]),
    );
    let leases = role(
        "Role",
        "controller",
        json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update", "patch"]}]),
    );
    for list in [cluster, leases] {
        objects.extend(list.as_array().into_iter().flatten().cloned());
    }
    for object in &mut objects {
        if object["kind"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("Cluster"))
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            metadata.remove("namespace");
        }
    }
    Value::Array(objects)
}
