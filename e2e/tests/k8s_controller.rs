//! The controller against a real API server and a real server: the guides' resources as they are printed (K2).

use anyhow::{Context, Result, ensure};
use e2e::controller::{OWN_NAMESPACE, Stage, of, path};
use e2e::{Process, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::bundle::v1::{BatchSetFederatedBundleRequest, GetBundleRequest};
use proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use proto::spire::api::server::trustdomain::v1::{
    BatchCreateFederationRelationshipRequest, ListFederationRelationshipsRequest,
};
use proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use proto::spire::api::types::{FederationRelationship, HttpsWebProfile};
use serde_json::json;
use tonic::transport::Channel;

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

const NODE: &str = "node-1";

fn server(stage: &Stage) -> Channel {
    testkit::local_channel(&stage.domain.server_socket())
}

/// The foreign trust domains that the server knows.
async fn relations(stage: &Stage) -> Result<Vec<String>> {
    let answer = TrustDomainClient::new(server(stage))
        .list_federation_relationships(ListFederationRelationshipsRequest::default())
        .await?;
    let all = answer.into_inner().federation_relationships;
    Ok(all.into_iter().map(|one| one.trust_domain).collect())
}

/// Gives the server a bundle of a foreign trust domain: its own under that name.
async fn give_bundle(stage: &Stage, trust_domain: &str) -> Result<()> {
    let mut client = BundleClient::new(server(stage));
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

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_resources_register_their_pods() -> Result<()> {
    let stage = Stage::new().await?;
    stage
        .cluster
        .apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } }))
        .await?;
    let controller = stage.controller("controller", OWN_NAMESPACE)?;
    stage.cluster.apply_yaml(GUIDES).await?;
    let labels = [("spiffe.io/enabled", "true"), ("environment", "production")];
    stage.cluster.namespace_named("production", &labels).await?;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "production", "name": "api-server" } });
    stage.cluster.apply(&account).await?;
    let managed = json!({ "app": "api-server", "spiffe.io/spire-managed-identity": "true" });
    let api = stage
        .pod(NODE, "production", "api-server", "api-server", &managed)
        .await?;
    let plain = stage
        .pod(NODE, "production", "plain", "default", &json!({}))
        .await?;
    let entries = stage
        .entries()
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
    let mut client = TrustDomainClient::new(server(stage));
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
        let left = relations(stage).await?;
        ensure!(left == ["by-hand.example"], "{left:?}");
        Ok(Some(()))
    })
    .await
}

/// The other guide's pod federates with a trust domain whose bundle nobody has: told, and put right by the bundle.
async fn payment(stage: &Stage) -> Result<Pod> {
    let payment = stage
        .pod(
            NODE,
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
    give_bundle(stage, "external-partner.org").await?;
    let entries = stage
        .entries()
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
        let all = relations(stage).await?;
        Ok(all
            .contains(&"cluster-b.example.com".to_owned())
            .then_some(()))
    })
    .await?;
    Ok(payment)
}

/// A broken template keeps its entries and says so; a pod that goes takes its entry with it; what the schema forbids is refused.
async fn broken_and_deleted(stage: &Stage, api: &Pod, payment: &Pod) -> Result<()> {
    let broken =
        json!({ "spec": { "spiffeIDTemplate": "spiffe://example.org/{{ .PodMeta.Nam }}" } });
    stage.change("api-server", &broken).await?;
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
        .entries()
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
