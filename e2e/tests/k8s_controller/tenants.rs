//! CTL-15: a tenant that may write WorkloadSPIFFEIDs of its own namespace, and nothing else, names its own pods.

use anyhow::{Context, Result, ensure};
use e2e::controller::{OWN_NAMESPACE, Stage, of, path};
use e2e::wait;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::NODE;

const NAMESPACE: &str = "shop";

/// What the operator allows namespaces of tenants.
const BOUNDS: &str = "signet:
  tenants:
  - namespaceSelector: {matchLabels: {tenant: \"true\"}}
    pathPrefix: /ns/{namespace}/
    maxTtl: 1h
    dnsNameSuffixes: [\"{namespace}.svc.cluster.local\"]
";

fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("signet.dev", "v1alpha1", "WorkloadSPIFFEID");
    ApiResource::from_gvk_with_plural(&kind, "workloadspiffeids")
}

fn own(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource())
}

/// The tenant: a service account with a Role for this one kind.
async fn tenant(stage: &Stage) -> Result<Client> {
    let metadata = json!({ "namespace": NAMESPACE, "name": "tenant" });
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    let objects = json!([
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata },
        { "apiVersion": version, "kind": "Role", "metadata": metadata, "rules": [
            { "apiGroups": ["signet.dev"], "resources": ["workloadspiffeids"], "verbs": ["get", "create", "patch", "delete"] },
        ] },
        { "apiVersion": version, "kind": "RoleBinding", "metadata": metadata,
          "roleRef": { "apiGroup": group, "kind": "Role", "name": "tenant" },
          "subjects": [{ "kind": "ServiceAccount", "namespace": NAMESPACE, "name": "tenant" }] },
        // What the chart grants the controller once there are bounds.
        { "apiVersion": version, "kind": "ClusterRole", "metadata": { "name": "controller-tenants" }, "rules": [
            { "apiGroups": ["signet.dev"], "resources": ["workloadspiffeids"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": ["signet.dev"], "resources": ["workloadspiffeids/status"], "verbs": ["update", "patch"] },
        ] },
        { "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": { "name": "controller-tenants" },
          "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "controller-tenants" },
          "subjects": [{ "kind": "ServiceAccount", "namespace": "spire", "name": "controller" }] },
    ]);
    stage.cluster.apply(&objects).await?;
    stage.cluster.client_of(NAMESPACE, "tenant").await
}

async fn create(client: &Client, namespace: &str, name: &str, spec: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "signet.dev/v1alpha1", "kind": "WorkloadSPIFFEID",
        "metadata": { "namespace": namespace, "name": name }, "spec": spec,
    });
    let params = PostParams::default();
    let object = serde_json::from_value(object)?;
    own(client, namespace).create(&params, &object).await?;
    Ok(())
}

/// The condition `kind` of a resource, once it has this reason.
async fn condition(stage: &Stage, name: &str, kind: &str, reason: &str) -> Result<Value> {
    let api = own(&stage.client, NAMESPACE);
    wait::until(&format!("{name} to be {reason}"), || async {
        let status = api.get(name).await?.data["status"].clone();
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let found =
            |one: &Value| one["type"] == kind && one["reason"] == reason && one["status"] == "True";
        let found = all.into_iter().find(found);
        Ok(Some(found.with_context(|| status.to_string())?))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_15_a_tenant_names_its_own_pods_within_the_operators_bounds() -> Result<()> {
    let stage = Stage::new().await?;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
    stage.cluster.apply(&node).await?;
    let labels = [("tenant", "true")];
    stage.cluster.namespace_named(NAMESPACE, &labels).await?;
    stage.cluster.namespace_named("other", &labels).await?;
    let client = tenant(&stage).await?;
    let config = format!("{OWN_NAMESPACE}{BOUNDS}");
    let controller = stage.controller("controller", &config)?;
    let pod = |namespace, name| {
        let labels = json!({ "app": name });
        let stage = &stage;
        async move { stage.pod(NODE, namespace, name, "default", &labels).await }
    };
    let (web, db) = (pod(NAMESPACE, "web").await?, pod(NAMESPACE, "db").await?);
    let other = pod("other", "web").await?;

    // Within the bounds; the rights, and the rule of the schema, are the API server's.
    let id = "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/app/web";
    let web_only = json!({ "matchLabels": { "app": "web" } });
    let spec = json!({
        "spiffeIDTemplate": id, "podSelector": web_only,
        "dnsNameTemplates": ["web.{{ .PodMeta.Namespace }}.svc.cluster.local"],
    });
    create(&client, NAMESPACE, "web", spec.clone()).await?;
    let refused = create(&client, "other", "web", spec).await;
    let refused = format!("{:#}", refused.err().context("another's namespace")?);
    ensure!(refused.contains("forbidden"), "{refused}");
    condition(&stage, "web", "Ready", "Registered").await?;
    let entries = stage.entries().all().await?;
    let entry = of(&entries, &web).context("an entry")?;
    ensure!(
        path(entry) == "/ns/shop/app/web"
            && entry.dns_names == ["web.shop.svc.cluster.local"]
            && entry.x509_svid_ttl == 3600
            && !entry.admin
            && !entry.downstream,
        "{entry:?}"
    );

    // Beyond them: another's path, a longer life, a foreign name.
    let db_only = json!({ "matchLabels": { "app": "db" } });
    let beyond = [
        (
            "path",
            json!({ "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/other/app/web" }),
            "below /ns/shop only",
        ),
        (
            "life",
            json!({ "spiffeIDTemplate": id, "ttl": "2h" }),
            "longer than the 3600s",
        ),
        (
            "name",
            json!({ "spiffeIDTemplate": id, "dnsNameTemplates": ["bank.example"] }),
            "bank.example",
        ),
    ];
    for (name, mut spec, told) in beyond {
        spec["podSelector"] = db_only.clone();
        create(&client, NAMESPACE, name, spec).await?;
        let condition = condition(&stage, name, "Degraded", "NotAllowed").await?;
        let message = condition["message"].as_str().unwrap_or_default();
        ensure!(message.contains(told), "{condition}");
    }
    let entries = stage.entries().all().await?;
    ensure!(
        entries.len() == 1 && of(&entries, &db).is_none() && of(&entries, &other).is_none(),
        "{entries:?}"
    );

    // Narrower bounds take back what they no longer allow.
    drop(controller);
    let narrower = config.replace("/ns/{namespace}/", "/tenants/{namespace}/");
    let _controller = stage.controller("controller-again", &narrower)?;
    condition(&stage, "web", "Degraded", "NotAllowed").await?;
    let gone = |entries: &[_]| entries.is_empty();
    stage.entries().until("the entry to go", gone).await?;
    Ok(())
}
