//! CTL-12: custom resources are looked at before they are stored.

use anyhow::{Result, ensure};
use e2e::{Settings, ports, wait};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject};
use kube::client::Body;
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::stage::Stage;

impl Stage {
    /// What the API server answers to a new resource: its status, its warnings, and its message.
    async fn create(&self, plural: &str, kind: &str, name: &str, spec: Value) -> Result<Answer> {
        let object = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1", "kind": kind,
            "metadata": {"name": name}, "spec": spec,
        });
        let path = format!("/apis/spire.spiffe.io/v1alpha1/{plural}");
        let request = http::Request::post(path)
            .header("Content-Type", "application/json")
            .body(Body::from(object.to_string().into_bytes()))?;
        let answer = self.client.send(request).await?;
        let status = answer.status().as_u16();
        let headers = answer.headers().get_all("warning").iter();
        let warnings = headers.filter_map(|value| value.to_str().ok());
        let warnings = warnings.collect::<Vec<_>>().join("\n");
        let body = answer.into_body().collect_bytes().await?;
        let body: Value = serde_json::from_slice(&body)?;
        let message = body["message"].as_str().unwrap_or_default().to_owned();
        Ok(Answer {
            status,
            warnings,
            message,
        })
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    warnings: String,
    message: String,
}

fn configuration(namespace: &str, port: u16) -> Value {
    let webhooks = [
        ("clusterspiffeid", "clusterspiffeids"),
        ("clusterstaticentry", "clusterstaticentries"),
        (
            "clusterfederatedtrustdomain",
            "clusterfederatedtrustdomains",
        ),
    ]
    .map(|(kind, plural)| {
        json!({
            "name": format!("v{kind}.kb.io"),
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "clientConfig": {"service": {
                "namespace": namespace, "name": "controller-webhook", "port": port,
                "path": format!("/validate-spire-spiffe-io-v1alpha1-{kind}"),
            }},
            "rules": [{
                "apiGroups": ["spire.spiffe.io"], "apiVersions": ["v1alpha1"],
                "operations": ["CREATE", "UPDATE"], "resources": [plural], "scope": "Cluster",
            }],
        })
    });
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace}, "webhooks": webhooks,
    })
}

/// A lease that somebody else holds for long: whoever stands for it follows.
fn held_lease(namespace: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"namespace": namespace, "name": "signet-controller"},
        "spec": {
            "holderIdentity": "somebody", "leaseDurationSeconds": 3600,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    })
}

const TEMPLATE: &str = "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}";

#[tokio::test(flavor = "multi_thread")]
async fn ctl_12_wrong_resources_are_refused_and_broad_ones_warned_of() -> Result<()> {
    let stage = Stage::new("admission", Settings::default()).await?;
    let own = stage.namespace.clone();
    let port = ports::free()?;
    let cluster = stage.cluster;
    cluster
        .webhook_service(&own, "controller-webhook", port)
        .await?;
    cluster.apply(&configuration(&own, port)).await?;
    cluster.apply(&held_lease(&own)).await?;
    for number in 0..12 {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": own, "name": format!("pod-{number}"), "labels": {"app": own}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        cluster.apply(&pod).await?;
    }
    let mut controller = stage
        .controller(json!({
            "webhook": {"host": "127.0.0.1", "port": port},
            "leaderElection": {"leaderElect": true, "resourceNamespace": own},
        }))
        .await?;
    broad(&stage).await?;
    for (kind, plural, spec, expected) in wrong() {
        let answer = stage.create(plural, kind, "wrong", spec).await?;
        let denied = format!(
            "admission webhook \"v{}.kb.io\" denied",
            kind.to_lowercase()
        );
        ensure!(
            answer.status >= 400 && answer.message.contains(&denied),
            "{kind} {expected}: {answer:?}"
        );
        ensure!(answer.message.contains(expected), "{expected}: {answer:?}");
    }
    let log = controller.log()?;
    ensure!(!log.contains("leading"), "a replica that follows: {log}");
    controller.check_running()?;
    let delete = DeleteParams::default();
    let api: Api<ValidatingWebhookConfiguration> = Api::all(stage.client.clone());
    api.delete(&own, &delete).await?;
    Ok(())
}

/// One that takes most pods passes with a warning that says how many; a narrow one without.
async fn broad(stage: &Stage) -> Result<()> {
    let own = &stage.namespace;
    let expected = "the selectors take ";
    let answer = wait::until("a warning of how much is selected", || async {
        // Refused until the webhook serves.
        let (kind, plural) = ("ClusterSPIFFEID", "clusterspiffeids");
        let name = format!("broad-{own}");
        let answer = stage.create(plural, kind, &name, json!({"spiffeIDTemplate": TEMPLATE}));
        let answer = answer.await?;
        ensure!(answer.status == 201, "{answer:?}");
        let kind = GroupVersionKind::gvk("spire.spiffe.io", "v1alpha1", kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        let api: Api<DynamicObject> = Api::all_with(stage.client.clone(), &resource);
        api.delete(&name, &DeleteParams::default()).await?;
        ensure!(answer.warnings.contains(expected), "{answer:?}");
        Ok(Some(answer))
    })
    .await?;
    ensure!(
        answer.warnings.contains("pods, in ") && answer.warnings.contains("namespaces"),
        "{answer:?}"
    );
    let narrow = json!({
        "spiffeIDTemplate": TEMPLATE,
        "podSelector": {"matchLabels": {"app": "narrow"}},
    });
    let name = format!("narrow-{own}");
    let answer = stage.create("clusterspiffeids", "ClusterSPIFFEID", &name, narrow);
    let answer = answer.await?;
    ensure!(
        answer.status == 201 && answer.warnings.is_empty(),
        "{answer:?}"
    );
    Ok(())
}

/// Of each kind, what its schema lets through and what cannot work, with what must be said about it.
fn wrong() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let id = |spec| ("ClusterSPIFFEID", "clusterspiffeids", spec);
    let entry = |spec| ("ClusterStaticEntry", "clusterstaticentries", spec);
    let foreign = |spec| {
        (
            "ClusterFederatedTrustDomain",
            "clusterfederatedtrustdomains",
            spec,
        )
    };
    let domain = |url: &str, profile: Value, bundle: &str| {
        foreign(json!({
            "trustDomain": "partner.example", "bundleEndpointURL": url,
            "bundleEndpointProfile": profile, "trustDomainBundle": bundle,
        }))
    };
    let web = json!({"type": "https_web"});
    let url = "https://spire.partner.example:8443";
    let table = [
        (
            id(json!({"spiffeIDTemplate": "spiffe://{{ .Nope }"})),
            "spec.spiffeIDTemplate",
        ),
        (
            id(json!({"spiffeIDTemplate": "{{ .PodMeta.Nam }}"})),
            "spec.spiffeIDTemplate",
        ),
        (
            id(json!({"spiffeIDTemplate": "spiffe://other.example/ns/{{ .PodMeta.Namespace }}"})),
            "IDs of this server begin with \"spiffe://example.org/\"",
        ),
        (
            id(
                json!({"spiffeIDTemplate": TEMPLATE, "podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
            ),
            "spec.podSelector",
        ),
        (
            entry(
                json!({"spiffeID": "spiffe://other.example/a", "parentID": "spiffe://example.org/n", "selectors": ["unix:uid:1"]}),
            ),
            "spec.spiffeID",
        ),
        (
            entry(
                json!({"spiffeID": "spiffe://example.org/a", "parentID": "no ID", "selectors": ["unix:uid:1"]}),
            ),
            "spec.parentID",
        ),
        (
            entry(
                json!({"spiffeID": "spiffe://example.org/a", "parentID": "spiffe://example.org/n", "selectors": [":empty"]}),
            ),
            "spec.selectors",
        ),
        (
            domain("https://user:pw@spire.partner.example", web.clone(), ""),
            "spec.bundleEndpointURL",
        ),
        (domain(url, web.clone(), "{"), "spec.trustDomainBundle"),
        (
            domain(
                url,
                json!({"type": "https_spiffe", "endpointSPIFFEID": "spiffe:/x"}),
                "",
            ),
            "spec.bundleEndpointProfile.endpointSPIFFEID",
        ),
        (
            foreign(
                json!({"trustDomain": "example.org", "bundleEndpointURL": url, "bundleEndpointProfile": web}),
            ),
            "spec.trustDomain",
        ),
    ];
    table
        .into_iter()
        .map(|((kind, plural, spec), expected)| (kind, plural, spec, expected))
        .collect()
}
