//! The demo, step by step.

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, KUBERNETES_VERSION};
use e2e::release::{self, Release, shop};
use e2e::screen::Screen;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::time::Instant;

const TRUST_DOMAIN: &str = "example.org";

/// What runs; ended in this order.
#[derive(Default)]
pub(crate) struct Story {
    release: Option<Release>,
    cluster: Option<Cluster>,
}

impl Story {
    pub(crate) async fn tell(&mut self, screen: &mut Screen) -> Result<()> {
        self.control_plane(screen).await?;
        self.node(screen).await?;
        self.chart(screen).await?;
        self.annotate(screen).await?;
        self.injected(screen).await?;
        self.request(screen).await?;
        screen.step(
            "Clean up",
            "every pod, mount, network and process is gone, and the control plane with them",
        );
        self.end().await?;
        screen.line("all ended");
        Ok(())
    }

    async fn control_plane(&mut self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "A Kubernetes control plane, as plain processes on loopback",
            "etcd, kube-apiserver and kube-controller-manager, ready",
        );
        let started = Instant::now();
        let cluster = Cluster::start().await?;
        screen.line(format!(
            "Kubernetes {KUBERNETES_VERSION} ready after {:.1} s at {}: RBAC, NodeRestriction and PodSecurity are on",
            started.elapsed().as_secs_f32(),
            cluster.url()
        ));
        screen.line(format!(
            "kubectl --kubeconfig {} …",
            cluster.kubeconfig().display()
        ));
        self.cluster = Some(cluster);
        Ok(())
    }

    async fn node(&mut self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "A node",
            "a test kubelet that runs containers as processes in cgroups and namespaces of their own",
        );
        let cluster = self.cluster.as_ref().context("a control plane")?;
        let release = Release::prepare(cluster).await?;
        screen.line(format!("node-1 registered, UID {}", release.node.uid()));
        screen.line(format!(
            "logs of its containers: {}",
            release.node.logs().display()
        ));
        self.release = Some(release);
        Ok(())
    }

    async fn chart(&self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "helm template signet helm/signet | kubectl apply",
            "server, controller, agent, CSI driver and injector, all ready",
        );
        let (cluster, release) = self.both()?;
        let started = Instant::now();
        let values = release::values(TRUST_DOMAIN);
        let objects = release.install(cluster, &values).await?;
        screen.line(format!(
            "{objects} objects applied, and 3 custom resource definitions"
        ));
        let pods = release.ready(cluster).await?;
        for pod in &pods {
            screen.line(format!("ready  {}/{pod}", release::NAMESPACE));
        }
        let agents = release.server_cli(&["agent", "list", "-output", "json"]);
        let agents: Value = serde_json::from_str(&agents.await?)?;
        let path = agents.pointer("/agents/0/id/path").and_then(Value::as_str);
        let path = path.context("an attested agent")?;
        screen.line(format!(
            "after {:.1} s the server has attested the agent: spiffe://{TRUST_DOMAIN}{path}",
            started.elapsed().as_secs_f32()
        ));
        Ok(())
    }

    async fn annotate(&self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "Four Deployments, three of them annotated",
            "pods in a namespace that enforces Pod Security's restricted profile",
        );
        let (cluster, _) = self.both()?;
        shop::open(cluster, "restricted").await?;
        for name in ["backend", "frontend", "stranger", "plain"] {
            let annotations = shop::annotations(TRUST_DOMAIN, name);
            cluster.apply(&shop::app(name, &annotations)).await?;
            let lines = annotations.as_object().into_iter().flatten();
            let lines: Vec<String> = lines
                .map(|(key, value)| format!("{key}: {value}"))
                .collect();
            let said = if lines.is_empty() {
                "nothing".to_owned()
            } else {
                lines.join(", ")
            };
            screen.line(format!("{name:<9} {said}"));
        }
        Ok(())
    }

    async fn injected(&self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "What became of their pods",
            "an Envoy beside each annotated app, and the fourth as it was written",
        );
        let (cluster, release) = self.both()?;
        let mut rows = Vec::new();
        for name in ["backend", "frontend", "stranger", "plain"] {
            let pod = shop::ready_pod(cluster, &release.node, name).await?;
            let (containers, volumes) = shape(&pod);
            rows.push([name.to_owned(), containers, volumes]);
        }
        ensure!(rows[3][1] == "app", "the plain pod has {}", rows[3][1]);
        screen.table(["pod of", "containers", "volumes"], &rows);
        let entries = release.server_cli(&["entry", "show", "-output", "json"]);
        let entries: Value = serde_json::from_str(&entries.await?)?;
        for entry in entries["entries"].as_array().into_iter().flatten() {
            let path = entry["spiffe_id"]["path"].as_str().unwrap_or_default();
            if path.starts_with("/ns/shop/") {
                screen.line(format!(
                    "registered by the controller: spiffe://{TRUST_DOMAIN}{path}"
                ));
            }
        }
        Ok(())
    }

    async fn request(&self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "A request: frontend's Envoy → mTLS → backend's Envoy → app",
            "the app answers and names the caller; the stranger gets 403",
        );
        let (cluster, release) = self.both()?;
        let answer = shop::call(cluster, &release.node, "frontend", 200).await?;
        screen.line(format!(
            "frontend: {} {}",
            answer.status,
            answer.body.trim()
        ));
        let id = shop::id(TRUST_DOMAIN, "frontend");
        ensure!(answer.body.contains(&id), "the app did not see {id}");
        let answer = shop::call(cluster, &release.node, "stranger", 403).await?;
        screen.line(format!(
            "stranger: {} {}",
            answer.status,
            answer.body.trim()
        ));
        Ok(())
    }

    fn both(&self) -> Result<(&Cluster, &Release)> {
        let cluster = self.cluster.as_ref().context("a control plane")?;
        Ok((cluster, self.release.as_ref().context("a node")?))
    }

    /// Ends what runs: pods first, then the control plane.
    pub(crate) async fn end(&mut self) -> Result<()> {
        if let Some(release) = self.release.take() {
            release.node.stop().await;
        }
        self.cluster = None;
        Ok(())
    }
}

/// Containers, sidecars first, and volumes.
fn shape(pod: &Pod) -> (String, String) {
    let spec = pod.spec.clone().unwrap_or_default();
    let first = spec.init_containers.unwrap_or_default();
    let names = first.iter().chain(&spec.containers);
    let names: Vec<&str> = names.map(|container| container.name.as_str()).collect();
    let volumes = spec.volumes.unwrap_or_default();
    let volumes: Vec<&str> = volumes
        .iter()
        .map(|volume| volume.name.as_str())
        .filter(|name| !name.starts_with("kube-api-access"))
        .collect();
    (names.join(", "), volumes.join(", "))
}
