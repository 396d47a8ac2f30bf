//! Signet on a [`Cluster`] with a test node: the server as a process beside the control plane, the agent and the CSI
//! driver as pods of the node, the injector and the controller as processes that the API server reaches on loopback.

mod objects;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kubelet::{Images, Kubelet, Settings as NodeSettings};
use crate::{Domain, Settings, wait};

/// The name under which the server knows the cluster.
pub const CLUSTER: &str = "demo";

/// The namespace of Signet's own pods and accounts.
pub const NAMESPACE: &str = "spire";

/// Everything of Signet that runs; it ends with this.
#[derive(Debug)]
pub struct Installation {
    /// The server.
    pub domain: Domain,
    /// The node with agent and driver.
    pub node: Kubelet,
}

impl Installation {
    /// Starts the server and a node whose agent the server attests by `k8s_psat`.
    ///
    /// # Errors
    /// When one of them does not become healthy in time.
    pub async fn start(cluster: &Cluster, settings: Settings) -> Result<Self> {
        let privileged = [("pod-security.kubernetes.io/enforce", "privileged")];
        cluster.namespace_named(NAMESPACE, &privileged).await?;
        cluster.apply(&objects::accounts()).await?;
        let server = cluster.kubeconfig_of(NAMESPACE, "spire-server").await?;
        let settings = Settings {
            server_plugins: objects::node_attestor(&server),
            ..settings
        };
        let mut domain = Domain::new(settings)?;
        domain.start_server().await?;
        let node = NodeSettings {
            images: Images::usual()?,
            ..NodeSettings::default()
        };
        let mut node = Kubelet::start(cluster, node).await?;
        node.reach_machine(domain.server_port()).await?;
        let installed = Self { domain, node };
        installed.start_agent(cluster).await?;
        Ok(installed)
    }

    /// The agent's ID: from the cluster's name and the node's UID.
    #[must_use]
    pub fn agent_id(&self) -> String {
        let uid = self.node.uid();
        self.domain
            .id(&format!("/spire/agent/k8s_psat/{CLUSTER}/{uid}"))
    }

    /// The agent's socket as this machine sees it.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        let path = "run/spire/agent-sockets/spire-agent.sock";
        self.node.root().join(path)
    }

    /// Registers a service account's pods by hand, under the agent.
    ///
    /// # Errors
    /// When the server refuses the entry.
    pub async fn register(&self, namespace: &str, account: &str) -> Result<()> {
        let id = self.domain.id(&format!("/ns/{namespace}/sa/{account}"));
        let (parent, namespace) = (self.agent_id(), format!("k8s:ns:{namespace}"));
        let account = format!("k8s:sa:{account}");
        let args = [
            "entry",
            "create",
            "-parentID",
            &parent,
            "-spiffeID",
            &id,
            "-selector",
            &namespace,
            "-selector",
            &account,
        ];
        self.domain.server_cli(&args).await.map(drop)
    }

    async fn start_agent(&self, cluster: &Cluster) -> Result<()> {
        let bundle = self.domain.server_cli(&["bundle", "show"]).await?;
        let config = objects::agent_config(
            &self.domain.id("").replace("spiffe://", ""),
            self.domain.server_port(),
            self.domain.sync_interval(),
        );
        cluster
            .apply(&json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": NAMESPACE, "name": "spire-agent"},
                "data": {"agent.conf": config, "bundle.crt": bundle, "kubelet-ca.crt": cluster.ca_pem()},
            }))
            .await?;
        cluster.apply(&objects::agent()).await?;
        let logs = self.node.logs().display().to_string();
        let what = format!("the agent to be attested (logs {logs})");
        wait::until(&what, || async {
            let list = self
                .domain
                .server_cli(&["agent", "list", "-output", "json"]);
            let list: Value = serde_json::from_str(&list.await?)?;
            let path = format!("/spire/agent/k8s_psat/{CLUSTER}/{}", self.node.uid());
            let agents = list["agents"].as_array().context("agents")?;
            let found = agents.iter().any(|agent| agent["id"]["path"] == path);
            ensure!(found, "attested agents: {list}");
            Ok(self.agent_socket().exists().then_some(()))
        })
        .await
    }
}
