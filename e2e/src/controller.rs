//! Controllers on a cluster of their own with a server, without nodes: what tests and figures of the controller stand on.

mod crowd;
mod entries;
mod witness;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::{Domain, Process, Settings, binaries, ports, wait};

pub use crowd::Crowd;
pub use entries::{Entries, Line, of, path};
pub use witness::Witness;

/// The cluster's name for the controllers of a [`Stage`].
pub const CLUSTER: &str = "production";

/// Where the controllers' service account and lease are.
const NAMESPACE: &str = "spire";

/// For a controller without an election: where it keeps what is its own.
pub const OWN_NAMESPACE: &str = "leaderElection: {resourceNamespace: spire}\n";

/// The election of a [`Stage`]'s controllers: quicker than by default, and still patient with a busy machine.
pub const ELECTION: &str = "leaderElection:\n  leaderElect: true\n  resourceName: controller\n  resourceNamespace: spire\n  leaseDuration: 6s\n  renewDeadline: 4s\n  retryPeriod: 1s\n";

/// A cluster and a server; ends with this.
pub struct Stage {
    /// The control plane.
    pub cluster: Cluster,
    /// The server.
    pub domain: Domain,
    /// Of `system:masters`.
    pub client: Client,
    kubeconfig: PathBuf,
}

impl Stage {
    /// Starts a control plane and a server; no controller yet.
    ///
    /// # Errors
    /// When one of them does not become ready.
    pub async fn new() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let mut domain = Domain::new(Settings::default())?;
        domain.start_server().await?;
        cluster.namespace_named(NAMESPACE, &[]).await?;
        let kubeconfig = admit(&cluster).await?;
        let client = cluster.client()?;
        Ok(Self {
            cluster,
            domain,
            client,
            kubeconfig,
        })
    }

    /// Starts a controller with more lines for its config; two of them elect one when it is [`ELECTION`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn controller(&self, name: &str, more: &str) -> Result<Process> {
        let more = format!("clusterName: {CLUSTER}\nclusterDomain: cluster.local\n{more}");
        start(&self.domain, &self.kubeconfig, name, &more)
    }

    /// What the server has.
    #[must_use]
    pub fn entries(&self) -> Entries {
        Entries::new(&self.domain.server_socket())
    }

    /// A pod that the scheduler has given to `node`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn pod(
        &self,
        node: &str,
        namespace: &str,
        name: &str,
        account: &str,
        labels: &Value,
    ) -> Result<Pod> {
        let pod = crowd::pod(namespace, name, account, labels, Some(node));
        let pods = self.pods(namespace);
        Ok(pods
            .create(&Default::default(), &serde_json::from_value(pod)?)
            .await?)
    }

    /// The pods of a namespace.
    #[must_use]
    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Merges `change` into a ClusterSPIFFEID.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn change(&self, name: &str, change: &Value) -> Result<()> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(change));
        self.spiffe_ids().patch(name, &params, &patch).await?;
        Ok(())
    }

    /// The condition `kind` of a ClusterSPIFFEID, once its reason is `reason`.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn condition(&self, name: &str, kind: &str, reason: &str) -> Result<Value> {
        let api = self.spiffe_ids();
        wait::until(&format!("{name} to be {reason}"), || async {
            let status = api.get(name).await?.data["status"].clone();
            let conditions = status["conditions"]
                .as_array()
                .with_context(|| status.to_string())?;
            let found = conditions
                .iter()
                .find(|condition| condition["type"] == kind && condition["reason"] == reason);
            Ok(Some(found.with_context(|| status.to_string())?.clone()))
        })
        .await
    }

    fn spiffe_ids(&self) -> Api<DynamicObject> {
        self.resources("ClusterSPIFFEID", "clusterspiffeids")
    }

    /// Custom resources of the group `spire.spiffe.io`.
    #[must_use]
    pub fn resources(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: "spire.spiffe.io".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: "spire.spiffe.io/v1alpha1".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        Api::all_with(self.client.clone(), &resource)
    }
}

/// Applies the custom resources and a service account with what the chart grants; gives the account's kubeconfig. The
/// namespace `spire` has to be there.
///
/// # Errors
/// When the API server refuses something.
pub async fn admit(cluster: &Cluster) -> Result<PathBuf> {
    for file in std::fs::read_dir(binaries::repository("manifests/crds"))? {
        cluster
            .apply_yaml(&std::fs::read_to_string(file?.path())?)
            .await?;
    }
    cluster.apply(&rights()).await?;
    cluster.kubeconfig_of(NAMESPACE, "controller").await
}

/// Starts a controller for this server with more lines for its config.
///
/// # Errors
/// When it cannot be started.
pub fn start(domain: &Domain, kubeconfig: &Path, name: &str, more: &str) -> Result<Process> {
    let socket = domain.server_socket();
    let text = format!(
        "apiVersion: spire.spiffe.io/v1alpha1\nkind: ControllerManagerConfig\ntrustDomain: {}\nspireServerSocketPath: {}\nwebhook: {{port: {}}}\n{more}",
        domain.trust_domain(),
        socket.display(),
        ports::free()?
    );
    let config = domain.write(&format!("{name}.yaml"), &text)?;
    let args = [
        Path::new("k8s"),
        Path::new("controller"),
        Path::new("--config"),
        &config,
        Path::new("--kubeconfig"),
        kubeconfig,
    ];
    let log = domain.path(&format!("{name}.log"));
    Process::start(name, domain.signet(), args, &log)
}

/// What the chart grants.
fn rights() -> Value {
    let subject = json!([{ "kind": "ServiceAccount", "name": "controller", "namespace": "spire" }]);
    json!([
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "spire", "name": "controller" } },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "controller" }, "rules": [
            { "apiGroups": [""], "resources": ["pods", "nodes", "namespaces", "endpoints"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": ["spire.spiffe.io"], "resources": ["clusterspiffeids", "clusterstaticentries", "clusterfederatedtrustdomains"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": ["spire.spiffe.io"], "resources": ["clusterspiffeids/status", "clusterstaticentries/status", "clusterfederatedtrustdomains/status"], "verbs": ["update", "patch"] },
            { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
        ] },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "controller" },
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "controller" }, "subjects": subject },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "namespace": "spire", "name": "controller" }, "rules": [
            { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update", "patch"] },
            { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"] },
            { "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["signet-federation"], "verbs": ["get", "patch"] },
        ] },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "namespace": "spire", "name": "controller" },
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "controller" }, "subjects": subject },
    ])
}
