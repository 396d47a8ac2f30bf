//! The controller against a real API server and a real server: the guides' resources as they are printed, a broken
//! template, a killed leader, and how long a pod waits for its entry (K2, K5).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::process::Process;
use e2e::{Domain, Settings, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::bundle::v1::{BatchSetFederatedBundleRequest, GetBundleRequest};
use proto::spire::api::server::entry::v1::ListEntriesRequest;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use proto::spire::api::server::trustdomain::v1::{
    BatchCreateFederationRelationshipRequest, ListFederationRelationshipsRequest,
};
use proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use proto::spire::api::types::{Entry, FederationRelationship, HttpsWebProfile};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::transport::Channel;

/// How many pods the time to an entry is taken of.
const TIMED: usize = 40;

/// Where the controller keeps what is its own.
const OWN_NAMESPACE: &str = "leaderElection: {resourceNamespace: spire}\n";

/// As two guides print them.
const GUIDES: &str = r#"
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata:
  name: api-server
spec:
  # SPIFFE ID template
  spiffeIDTemplate: "spiffe://example.org/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"

  # Pod selector
  podSelector:
    matchLabels:
      spiffe.io/spire-managed-identity: "true"

  # Namespace selector
  namespaceSelector:
    matchLabels:
      spiffe.io/enabled: "true"

  # SVID TTL
  ttl: 1h

  # DNS names to include in SVID
  dnsNameTemplates:
  - "{{ .PodMeta.Name }}"
  - "{{ .PodMeta.Name }}.{{ .PodMeta.Namespace }}"
  - "{{ .PodMeta.Name }}.{{ .PodMeta.Namespace }}.svc.cluster.local"

---
# Specific registration for payment service
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata:
  name: payment-service
spec:
  spiffeIDTemplate: "spiffe://example.org/workload/payment-service"

  podSelector:
    matchLabels:
      app: payment-service

  namespaceSelector:
    matchLabels:
      environment: production

  ttl: 30m

  # Federated trust bundles
  federatesWith:
  - external-partner.org
---
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterFederatedTrustDomain
metadata:
  name: cluster-b
spec:
  trustDomain: cluster-b.example.com
  bundleEndpointURL: https://spire-server.cluster-b:8443
  bundleEndpointProfile:
    type: https_spiffe
    endpointSPIFFEID: spiffe://cluster-b.example.com/spire/server
"#;

struct Stage {
    cluster: Cluster,
    domain: Domain,
    client: Client,
    kubeconfig: std::path::PathBuf,
}

impl Stage {
    async fn new() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let mut domain = Domain::new(Settings::default())?;
        domain.start_server().await?;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
        for file in std::fs::read_dir(&folder)? {
            cluster
                .apply_yaml(&std::fs::read_to_string(file?.path())?)
                .await?;
        }
        cluster.namespace_named("spire", &[]).await?;
        cluster.apply(&rights()).await?;
        cluster
            .apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-1" } }))
            .await?;
        let kubeconfig = cluster.kubeconfig_of("spire", "controller").await?;
        let client = cluster.client()?;
        Ok(Self {
            cluster,
            domain,
            client,
            kubeconfig,
        })
    }

    /// Starts a controller; two of them elect one.
    fn controller(&self, name: &str, more: &str) -> Result<Process> {
        let socket = self.domain.server_socket();
        let text = format!(
            "apiVersion: spire.spiffe.io/v1alpha1\nkind: ControllerManagerConfig\nclusterName: production\ntrustDomain: example.org\nclusterDomain: cluster.local\nspireServerSocketPath: {}\nwebhook: {{port: {}}}\n{more}",
            socket.display(),
            e2e::ports::free()?
        );
        let config = self.domain.write(&format!("{name}.yaml"), &text)?;
        let args = [
            Path::new("k8s"),
            Path::new("controller"),
            Path::new("--config"),
            &config,
            Path::new("--kubeconfig"),
            &self.kubeconfig,
        ];
        Process::start(
            name,
            self.domain.signet(),
            args,
            &self.domain.path(&format!("{name}.log")),
        )
    }

    fn server(&self) -> Channel {
        testkit::local_channel(&self.domain.server_socket())
    }

    /// Gives the server a bundle of a foreign trust domain: its own under that name.
    async fn give_bundle(&self, trust_domain: &str) -> Result<()> {
        let mut client = BundleClient::new(self.server());
        let mut bundle = client
            .get_bundle(GetBundleRequest::default())
            .await?
            .into_inner();
        bundle.trust_domain = trust_domain.to_owned();
        let request = BatchSetFederatedBundleRequest {
            bundle: vec![bundle],
            output_mask: None,
        };
        client.batch_set_federated_bundle(request).await?;
        Ok(())
    }

    async fn entries(&self) -> Result<Vec<Entry>> {
        let mut client = EntryClient::new(self.server());
        Ok(client
            .list_entries(ListEntriesRequest::default())
            .await?
            .into_inner()
            .entries)
    }

    /// The foreign trust domains that the server knows.
    async fn relations(&self) -> Result<Vec<String>> {
        let answer = TrustDomainClient::new(self.server())
            .list_federation_relationships(ListFederationRelationshipsRequest::default())
            .await?;
        let all = answer.into_inner().federation_relationships;
        Ok(all.into_iter().map(|one| one.trust_domain).collect())
    }

    async fn until(&self, what: &str, holds: impl Fn(&[Entry]) -> bool) -> Result<Vec<Entry>> {
        wait::until(what, || async {
            let entries = self.entries().await?;
            let paths: Vec<_> = entries
                .iter()
                .filter_map(|entry| entry.spiffe_id.as_ref().map(|id| &id.path))
                .collect();
            ensure!(holds(&entries), "entries: {paths:?}");
            Ok(Some(entries))
        })
        .await
    }

    /// A pod that the scheduler has given to the node.
    async fn pod(&self, namespace: &str, name: &str, account: &str, labels: &Value) -> Result<Pod> {
        let pod = serde_json::from_value(json!({
            "metadata": { "namespace": namespace, "name": name, "labels": labels },
            "spec": { "serviceAccountName": account, "nodeName": "node-1", "containers": [{ "name": "app", "image": "myapp:1.0" }] },
        }))?;
        Ok(self
            .pods(namespace)
            .create(&Default::default(), &pod)
            .await?)
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn resources(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: "spire.spiffe.io".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: "spire.spiffe.io/v1alpha1".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        Api::all_with(self.client.clone(), &resource)
    }

    /// The condition `kind` of a ClusterSPIFFEID, once its reason is `reason`.
    async fn condition(&self, name: &str, kind: &str, reason: &str) -> Result<Value> {
        let api = self.resources("ClusterSPIFFEID", "clusterspiffeids");
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

fn of<'a>(entries: &'a [Entry], pod: &Pod) -> Option<&'a Entry> {
    let uid = format!(
        "pod-uid:{}",
        pod.metadata.uid.as_deref().unwrap_or_default()
    );
    entries
        .iter()
        .find(|entry| entry.selectors.iter().any(|selector| selector.value == uid))
}

fn path(entry: &Entry) -> &str {
    entry.spiffe_id.as_ref().map_or("", |id| id.path.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_resources_register_their_pods() -> Result<()> {
    let stage = Stage::new().await?;
    let controller = stage.controller("controller", OWN_NAMESPACE)?;
    stage.cluster.apply_yaml(GUIDES).await?;
    let labels = [("spiffe.io/enabled", "true"), ("environment", "production")];
    stage.cluster.namespace_named("production", &labels).await?;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "production", "name": "api-server" } });
    stage.cluster.apply(&account).await?;
    let managed = json!({ "app": "api-server", "spiffe.io/spire-managed-identity": "true" });
    let api = stage
        .pod("production", "api-server", "api-server", &managed)
        .await?;
    let plain = stage
        .pod("production", "plain", "default", &json!({}))
        .await?;
    let entries = stage
        .until("the guide's pod to be registered", |entries| {
            of(entries, &api).is_some()
        })
        .await?;
    let entry = of(&entries, &api).context("an entry")?;
    ensure!(path(entry) == "/ns/production/sa/api-server", "{entry:?}");
    ensure!(
        entry.dns_names
            == [
                "api-server",
                "api-server.production",
                "api-server.production.svc.cluster.local"
            ],
        "{entry:?}"
    );
    ensure!(
        entry.x509_svid_ttl == 3600 && entry.id.starts_with("production."),
        "{entry:?}"
    );
    let node: Api<k8s_openapi::api::core::v1::Node> = Api::all(stage.client.clone());
    let node = node.get("node-1").await?.metadata.uid.context("uid")?;
    let parent = entry.parent_id.as_ref().context("parent")?;
    ensure!(
        parent.path == format!("/spire/agent/k8s_psat/production/{node}"),
        "{parent:?}"
    );
    ensure!(
        of(&entries, &plain).is_none(),
        "an unlabelled pod has no entry"
    );
    stage.condition("api-server", "Ready", "Registered").await?;

    let payment = payment(&stage).await?;
    broken_and_deleted(&stage, &api, &payment).await?;
    removed_meanwhile(&stage, controller).await
}

/// CTL-10: a relationship whose resource was removed while no controller ran goes when one does; one of somebody else's stays.
async fn removed_meanwhile(stage: &Stage, mut controller: Process) -> Result<()> {
    controller.kill().await?;
    let by_hand = FederationRelationship {
        trust_domain: "by-hand.example".to_owned(),
        bundle_endpoint_url: "https://by-hand.example/".to_owned(),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsWeb(HttpsWebProfile {})),
        trust_domain_bundle: None,
    };
    let request = BatchCreateFederationRelationshipRequest {
        federation_relationships: vec![by_hand],
        output_mask: None,
    };
    let mut client = TrustDomainClient::new(stage.server());
    client.batch_create_federation_relationship(request).await?;
    let api = stage.resources(
        "ClusterFederatedTrustDomain",
        "clusterfederatedtrustdomains",
    );
    for resource in api.list(&ListParams::default()).await? {
        let name = resource.metadata.name.unwrap_or_default();
        api.delete(&name, &DeleteParams::default()).await?;
    }
    let _again = stage.controller("controller-again", OWN_NAMESPACE)?;
    wait::until("the relationship to go", || async {
        let left = stage.relations().await?;
        ensure!(left == ["by-hand.example"], "{left:?}");
        Ok(Some(()))
    })
    .await
}

/// The other guide's pod federates with a trust domain whose bundle nobody has: told, and put right by the bundle.
async fn payment(stage: &Stage) -> Result<Pod> {
    let payment = stage
        .pod(
            "production",
            "payment",
            "default",
            &json!({ "app": "payment-service" }),
        )
        .await?;
    let refused = stage
        .condition("payment-service", "Degraded", "Refused")
        .await?;
    ensure!(
        refused["message"]
            .to_string()
            .contains("external-partner.org"),
        "{refused}"
    );
    stage.give_bundle("external-partner.org").await?;
    let entries = stage
        .until("the payment service to be registered", |entries| {
            of(entries, &payment).is_some()
        })
        .await?;
    let entry = of(&entries, &payment).context("an entry")?;
    ensure!(
        path(entry) == "/workload/payment-service"
            && entry.federates_with == ["external-partner.org"],
        "{entry:?}"
    );
    wait::until("the federation relationship", || async {
        let all = stage.relations().await?;
        Ok(all
            .contains(&"cluster-b.example.com".to_owned())
            .then_some(()))
    })
    .await?;
    Ok(payment)
}

/// A broken template keeps its entries and says so; a pod that goes takes its entry with it; what the schema forbids is refused.
async fn broken_and_deleted(stage: &Stage, api: &Pod, payment: &Pod) -> Result<()> {
    let resources = stage.resources("ClusterSPIFFEID", "clusterspiffeids");
    let broken =
        json!({ "spec": { "spiffeIDTemplate": "spiffe://example.org/{{ .PodMeta.Nam }}" } });
    resources
        .patch(
            "api-server",
            &PatchParams::default(),
            &Patch::Merge(&broken),
        )
        .await?;
    let condition = stage.condition("api-server", "Degraded", "Invalid").await?;
    ensure!(
        condition["message"].to_string().contains("Nam"),
        "{condition}"
    );
    stage
        .pods("production")
        .delete("payment", &DeleteParams::default().grace_period(0))
        .await?;
    let entries = stage
        .until("the payment service's entry to go", |entries| {
            of(entries, payment).is_none()
        })
        .await?;
    ensure!(
        of(&entries, api).is_some(),
        "a broken template keeps what there is"
    );
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::all(stage.client.clone());
    wait::until("an Event about the broken template", || async {
        let all = events.list(&Default::default()).await?;
        Ok(all
            .items
            .iter()
            .any(|event| event.reason.as_deref() == Some("Invalid"))
            .then_some(()))
    })
    .await?;
    let wrong = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterFederatedTrustDomain", "metadata": { "name": "wrong" },
        "spec": { "trustDomain": "b", "bundleEndpointURL": "https://b/", "bundleEndpointProfile": { "type": "https_web", "endpointSPIFFEID": "spiffe://b/x" } },
    });
    let refused = stage
        .cluster
        .apply(&wrong)
        .await
        .err()
        .context("the schema's rule refuses it")?;
    ensure!(
        format!("{refused:#}").contains("https_spiffe needs endpointSPIFFEID"),
        "{refused:#}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_its_entry_within_a_second_and_a_killed_leader_is_followed() -> Result<()> {
    const ELECTION: &str = "leaderElection:\n  leaderElect: true\n  resourceName: controller\n  resourceNamespace: spire\n  leaseDuration: 3s\n  renewDeadline: 2s\n  retryPeriod: 500ms\n";
    let stage = Stage::new().await?;
    let mut first = stage.controller("first", ELECTION)?;
    stage.cluster.apply(&json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID", "metadata": { "name": "all" },
        "spec": { "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/pod/{{ .PodMeta.Name }}" },
    })).await?;
    let namespace = stage.cluster.namespace("timed", &[]).await?;
    let warm = stage.pod(&namespace, "warm", "default", &json!({})).await?;
    stage
        .until("the first entry", |entries| of(entries, &warm).is_some())
        .await?;
    let second = stage.controller("second", ELECTION)?;

    let mut took = Vec::new();
    for n in 0..TIMED {
        let pod = stage
            .pod(&namespace, &format!("p{n}"), "default", &json!({}))
            .await?;
        let started = Instant::now();
        stage
            .until("an entry", |entries| of(entries, &pod).is_some())
            .await?;
        took.push(started.elapsed());
    }
    took.sort();
    testkit::aloud(format_args!(
        "pod scheduled → entry: p50 {:?}, p99 {:?} of {TIMED}",
        took[TIMED / 2],
        took[TIMED - 1]
    ));
    ensure!(took[TIMED - 1] < Duration::from_secs(1), "{took:?}");

    let before = stage.entries().await?;
    first.kill().await?;
    let killed = Instant::now();
    let late = stage.pod(&namespace, "late", "default", &json!({})).await?;
    stage
        .pods(&namespace)
        .delete("p0", &DeleteParams::default().grace_period(0))
        .await?;
    let gone = |entries: &[Entry]| !entries.iter().any(|entry| path(entry).ends_with("/p0"));
    let after = stage
        .until("the second controller to take over", |entries| {
            of(entries, &late).is_some() && gone(entries)
        })
        .await?;
    testkit::aloud(format_args!(
        "leader killed → its successor writes: {:?}",
        killed.elapsed()
    ));
    ensure!(
        killed.elapsed() < Duration::from_secs(15),
        "{:?}",
        killed.elapsed()
    );
    ensure!(
        after.len() == before.len(),
        "one came, one went, the others stay"
    );
    let kept = before
        .iter()
        .filter(|entry| after.iter().any(|there| there.id == entry.id));
    ensure!(
        kept.count() == before.len() - 1,
        "the others stay as they are"
    );
    ensure!(
        second.log()?.contains("controller starts"),
        "{}",
        second.log()?
    );
    let restarted = api_server_restarts(&stage, &namespace, after.len()).await;
    restarted.with_context(|| second.log().unwrap_or_default())
}

/// Without an API server nobody leads, and nothing is deleted; with it again, work goes on.
async fn api_server_restarts(stage: &Stage, namespace: &str, entries: usize) -> Result<()> {
    stage.cluster.stop_api_server()?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    ensure!(
        stage.entries().await?.len() == entries,
        "nothing changes meanwhile"
    );
    stage.cluster.start_api_server().await?;
    let pod = stage.pod(namespace, "after", "default", &json!({})).await?;
    let now = stage
        .until("an entry after the restart", |entries| {
            of(entries, &pod).is_some()
        })
        .await?;
    ensure!(
        now.len() == entries + 1,
        "{} instead of {}",
        now.len(),
        entries + 1
    );
    Ok(())
}
