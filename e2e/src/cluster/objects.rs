//! Making objects of any kind, namespaces, and the Service that leads webhooks to a process on loopback.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::Cluster;
use crate::wait;

/// The name under which the tests own what they apply.
const MANAGER: &str = "e2e";

impl Cluster {
    /// A namespace called `{prefix}-{number}` with these labels, ready for pods.
    ///
    /// # Errors
    /// When it cannot be made, or its service account does not appear in time.
    pub async fn namespace(&self, prefix: &str, labels: &[(&str, &str)]) -> Result<String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.namespace_named(&name, labels).await?;
        Ok(name)
    }

    /// A namespace of exactly this name.
    ///
    /// # Errors
    /// When it cannot be made, or its service account does not appear in time.
    pub async fn namespace_named(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: serde_json::Map<String, Value> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        }))
        .await?;
        if !self.has_controllers() {
            return self.apply(&self.what_a_manager_makes(name)).await;
        }
        let client = self.client()?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        let maps: Api<ConfigMap> = Api::namespaced(client, name);
        let what = format!("the default service account and the CA bundle of namespace {name}");
        wait::until(&what, || async {
            let account = accounts.get_opt("default").await?;
            let bundle = maps.get_opt("kube-root-ca.crt").await?;
            Ok(account.and(bundle).map(|_| ()))
        })
        .await
    }

    /// What pods of a namespace cannot do without.
    fn what_a_manager_makes(&self, namespace: &str) -> Value {
        json!([
            {
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"namespace": namespace, "name": "default"},
            },
            {
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": namespace, "name": "kube-root-ca.crt"},
                "data": {"ca.crt": self.ca_pem()},
            },
        ])
    }

    /// Server-side apply of one object, a `List`, or an array of objects, in their order.
    ///
    /// # Errors
    /// When the API server refuses one; with its kind and name.
    pub async fn apply(&self, objects: &Value) -> Result<()> {
        self.apply_with(objects, &PatchParams::apply(MANAGER).force())
            .await
    }

    /// As [`Cluster::apply`], but nothing is kept, and a field that the API server does not know is an error.
    ///
    /// # Errors
    /// When the API server would refuse one; with its kind and name.
    pub async fn apply_dry_run(&self, objects: &Value) -> Result<()> {
        let params = PatchParams::apply(MANAGER).force().dry_run();
        self.apply_with(objects, &params.validation_strict()).await
    }

    /// Applies every document of a YAML text.
    ///
    /// # Errors
    /// When it is not YAML, or the API server refuses an object.
    pub async fn apply_yaml(&self, text: &str) -> Result<()> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).context("parse YAML documents")?;
        for document in &documents {
            self.apply(document).await?;
        }
        Ok(())
    }

    async fn apply_with(&self, objects: &Value, params: &PatchParams) -> Result<()> {
        let client = self.client()?;
        let one = std::slice::from_ref(objects);
        let list = match objects {
            Value::Array(list) => list.as_slice(),
            Value::Object(list) if list.contains_key("items") => {
                objects["items"].as_array().map_or(one, Vec::as_slice)
            }
            _ => one,
        };
        for object in list.iter().filter(|object| !object.is_null()) {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            apply_one(&client, object, params)
                .await
                .with_context(|| format!("apply {kind} {name}"))?;
        }
        Ok(())
    }

    /// A Service that leads the API server's webhook calls to `port` on this machine's loopback. It has no addresses of its
    /// own: an external name is the one kind that the API server resolves without a kube-proxy. The webhook configuration
    /// names it with `port` as its port; the name to certify stays `{name}.{namespace}.svc`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn webhook_service(&self, namespace: &str, name: &str, port: u16) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "type": "ExternalName",
                "externalName": "localhost",
                "ports": [{"name": "https", "port": port}],
            },
        }))
        .await
    }
}

async fn apply_one(client: &Client, object: &Value, params: &PatchParams) -> Result<()> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let version = text("/apiVersion").context("apiVersion is missing")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = text("/kind").context("kind is missing")?;
    let name = text("/metadata/name").context("metadata.name is missing")?;
    let kind = GroupVersionKind::gvk(group, version, kind);
    let (resource, scope) = resource(client, &kind).await?;
    let namespace = text("/metadata/namespace");
    let api: Api<DynamicObject> = match scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            Api::namespaced_with(client.clone(), namespace.unwrap_or("default"), &resource)
        }
    };
    ensure!(
        scope == Scope::Namespaced || namespace.is_none(),
        "it is not namespaced"
    );
    api.patch(name, params, &Patch::Apply(object)).await?;
    Ok(())
}

/// Asks the API server how this kind is served; a kind whose definition was applied just now may need a moment.
async fn resource(client: &Client, kind: &GroupVersionKind) -> Result<(ApiResource, Scope)> {
    let what = format!(
        "the API server to serve {}/{}",
        kind.api_version(),
        kind.kind
    );
    wait::within(std::time::Duration::from_secs(10), &what, || async {
        let (resource, capabilities) = pinned_kind(client, kind).await?;
        Ok(Some((resource, capabilities.scope)))
    })
    .await
}
