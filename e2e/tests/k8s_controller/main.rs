//! The controller against a real API server and a real server.

mod guides;
mod services;
mod tenants;

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
use serde_json::{Value, json};
use tonic::transport::Channel;

const NODE: &str = "node-1";

fn server(stage: &Stage) -> Channel {
    testkit::local_channel(&stage.domain.server_socket())
}

/// The server's federation relationships.
async fn relations(stage: &Stage) -> Result<Vec<FederationRelationship>> {
    let answer = TrustDomainClient::new(server(stage))
        .list_federation_relationships(ListFederationRelationshipsRequest::default())
        .await?;
    Ok(answer.into_inner().federation_relationships)
}

fn names(relations: &[FederationRelationship]) -> Vec<&str> {
    let names = relations.iter().map(|one| one.trust_domain.as_str());
    names.collect()
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

/// Two rules and a foreign trust domain.
const RESOURCES: &str = r#"
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata: {name: api-server}
spec:
  spiffeIDTemplate: "spiffe://example.org/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"
  podSelector: {matchLabels: {app: api}}
---
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata: {name: payment-service}
spec:
  spiffeIDTemplate: "spiffe://example.org/workload/payment-service"
  podSelector: {matchLabels: {app: payment-service}}
  federatesWith: [external-partner.org]
---
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterFederatedTrustDomain
metadata: {name: cluster-b}
spec:
  trustDomain: cluster-b.example.com
  bundleEndpointURL: https://spire-server.cluster-b:8443
  bundleEndpointProfile: {type: https_web}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn ctl_09_ctl_10_ctl_11_what_fails_is_told_and_only_the_controllers_own_goes() -> Result<()> {
    let stage = Stage::new().await?;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
    stage.cluster.apply(&node).await?;
    let controller = stage.controller("controller", OWN_NAMESPACE)?;
    stage.cluster.apply_yaml(RESOURCES).await?;
    stage.cluster.namespace_named("production", &[]).await?;
    let labels = json!({ "app": "api" });
    let api = stage
        .pod(NODE, "production", "api", "default", &labels)
        .await?;
    stage
        .entries()
        .until("the pod to be registered", |entries| {
            of(entries, &api).is_some()
        })
        .await?;
    stage.condition("api-server", "Ready", "Registered").await?;

    let payment = payment(&stage).await?;
    columns(&stage).await?;
    broken_and_deleted(&stage, &api, &payment).await?;
    removed_meanwhile(&stage, controller).await
}

/// What `kubectl get` shows of each kind.
async fn columns(stage: &Stage) -> Result<()> {
    let resource = "clusterfederatedtrustdomains";
    wait::until("the relationship in a table", || async {
        let shown = table(stage, resource).await?;
        let right = [
            ("Trust Domain", "cluster-b.example.com"),
            ("Endpoint URL", "https://spire-server.cluster-b:8443"),
            // It has no bundle yet.
            ("Ready", "False"),
        ];
        for (name, value) in right {
            ensure!(shown[0][name] == value, "{name}: {shown}");
        }
        Ok(Some(()))
    })
    .await?;
    wait::until("the rules in a table", || async {
        let shown = table(stage, "clusterspiffeids").await?;
        for row in [&shown[0], &shown[1]] {
            let figures = ["Ready", "Pods", "Entries", "Failures"].map(|name| &row[name]);
            let right = [&json!("True"), &json!(1), &json!(1), &json!(0)];
            ensure!(figures == right, "{shown}");
        }
        Ok(Some(()))
    })
    .await
}

/// The rows that the API server makes of a kind for `kubectl get`, by the columns' names.
async fn table(stage: &Stage, resource: &str) -> Result<Value> {
    let path = format!("/apis/spire.spiffe.io/v1alpha1/{resource}");
    let request = http::Request::get(path)
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    let answer: Value = stage.client.request(request).await?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let names = list(&answer["columnDefinitions"]);
    let row = |row: &Value| {
        let cells = list(&row["cells"]);
        let cells = names.iter().zip(cells);
        let cells =
            cells.map(|(name, cell)| (name["name"].as_str().unwrap_or_default().to_owned(), cell));
        Value::Object(cells.collect())
    };
    Ok(list(&answer["rows"]).iter().map(row).collect())
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
        ensure!(names(&left) == ["by-hand.example"], "{left:?}");
        Ok(Some(()))
    })
    .await
}

/// A pod federates with a trust domain whose bundle nobody has: told, and put right by the bundle.
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
        Ok((names(&all) == ["cluster-b.example.com"]).then_some(()))
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
