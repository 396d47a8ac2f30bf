//! CTL-20: the trust bundle in ConfigMaps and a ClusterTrustBundle.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Settings, ports, wait};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::json;

use crate::stage::Stage;

/// The shortest life of an authority; at half of it the next one is prepared.
const AUTHORITY: Duration = Duration::from_secs(60);

impl Stage {
    fn config_maps(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn trust_bundles(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("certificates.k8s.io", "v1", "ClusterTrustBundle");
        Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind))
    }

    /// Waits until the ConfigMap of `namespace` holds what the server says.
    async fn published(&self, namespace: &str) -> Result<ConfigMap> {
        let api = self.config_maps(namespace);
        wait::until(&format!("the bundle in {namespace}"), || async {
            let right = self.domain.server_cli(&["bundle", "show"]).await?;
            let found = api.get_opt("spire-bundle").await?.context("no ConfigMap")?;
            let there = bundle_of(&found);
            ensure!(there.trim() == right.trim(), "{there}");
            Ok(Some(found))
        })
        .await
    }

    async fn published_to_cluster(&self) -> Result<()> {
        wait::until("the ClusterTrustBundle", || async {
            let right = self.domain.server_cli(&["bundle", "show"]).await?;
            let found = self.trust_bundles().get_opt(&self.namespace).await?;
            let found = found.context("no ClusterTrustBundle")?;
            let there = found.data["spec"]["trustBundle"].as_str();
            let there = there.unwrap_or_default();
            ensure!(there.trim() == right.trim(), "{there}");
            Ok(Some(()))
        })
        .await
    }

    /// Waits until the server has prepared its next authority.
    pub(crate) async fn second_authority(&self) -> Result<()> {
        wait::within(AUTHORITY * 2, "the next authority", || async {
            let bundle = self.domain.server_cli(&["bundle", "show"]).await?;
            Ok((bundle.matches("BEGIN CERTIFICATE").count() > 1).then_some(()))
        })
        .await
    }
}

/// A server whose authority is soon followed by another.
pub(crate) fn short_lived() -> Settings {
    Settings {
        x509_svid_ttl: AUTHORITY / 6,
        ca_ttl: AUTHORITY,
        ..Settings::default()
    }
}

/// A CA certificate of nobody here.
pub(crate) fn stranger() -> Result<rcgen::Certificate> {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .subject_alt_names
        .push(rcgen::SanType::URI("spiffe://example.org".try_into()?));
    Ok(params.self_signed(&rcgen::KeyPair::generate()?)?)
}

fn bundle_of(map: &ConfigMap) -> &str {
    let data = map.data.as_ref();
    data.and_then(|data| data.get("bundle.crt"))
        .map_or("", String::as_str)
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_20_the_trust_bundle_is_published_and_healed() -> Result<()> {
    let stage = Stage::new("bundle", short_lived()).await?;
    let own = stage.namespace.clone();
    let labels = [("bundle-of", own.as_str())];
    let shop = stage.cluster.namespace("shop", &labels).await?;
    let plain = stage.cluster.namespace("plain", &[]).await?;
    let foreign = stage.cluster.namespace("foreign", &labels).await?;
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": foreign, "name": "spire-bundle"},
        "data": {"bundle.crt": "theirs"},
    });
    stage.cluster.apply(&theirs).await?;
    let _controller = stage
        .controller(json!({
            "webhook": {"port": ports::free()?},
            "signet": {"bundle": {
                "namespace": own,
                "namespaceSelector": {"matchLabels": {"bundle-of": own}},
                "clusterTrustBundle": {"name": own},
            }},
        }))
        .await?;
    stage.published(&own).await?;
    owned(&stage.published(&shop).await?)?;
    stage.published_to_cluster().await?;
    heals(&stage, &shop).await?;

    // A namespace that comes, and one that is labelled later.
    let late = stage.cluster.namespace("late", &labels).await?;
    stage.published(&late).await?;
    let label = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": plain, "labels": {"bundle-of": own}},
    });
    let before = stage.config_maps(&plain).get_opt("spire-bundle").await?;
    ensure!(before.is_none(), "{before:?}");
    stage.cluster.apply(&label).await?;
    stage.published(&plain).await?;

    stage.second_authority().await?;
    for namespace in [&own, &shop, &late, &plain] {
        stage.published(namespace).await?;
    }
    stage.published_to_cluster().await?;
    left_alone(&stage, &foreign).await
}

/// The publisher owns the bundle and its mark, and nothing else.
fn owned(map: &ConfigMap) -> Result<()> {
    let managed = serde_json::to_value(&map.metadata.managed_fields)?;
    let entries = managed.as_array().context("managed fields")?;
    let ours = entries.iter().find(|one| one["manager"] == "signet-bundle");
    let ours = &ours.context("a field manager of its own")?["fieldsV1"];
    let expected = json!({
        "f:data": {"f:bundle.crt": {}},
        "f:metadata": {"f:annotations": {"f:signet.dev/bundle-of": {}}},
    });
    ensure!(*ours == expected, "{ours}");
    Ok(())
}

/// After an edit by somebody else, a deletion, and an edit of the ClusterTrustBundle.
async fn heals(stage: &Stage, namespace: &str) -> Result<()> {
    let api = stage.config_maps(namespace);
    let params = PatchParams {
        field_manager: Some("kubectl-edit".to_owned()),
        ..PatchParams::default()
    };
    let edit = json!({"data": {"bundle.crt": "edited", "mine": "kept"}});
    api.patch("spire-bundle", &params, &Patch::Merge(&edit))
        .await?;
    let healed = stage.published(namespace).await?;
    let mine = healed.data.as_ref().and_then(|data| data.get("mine"));
    ensure!(mine.is_some_and(|mine| mine == "kept"), "{healed:?}");
    api.delete("spire-bundle", &DeleteParams::default()).await?;
    stage.published(namespace).await?;
    let edit = json!({"spec": {"trustBundle": stranger()?.pem()}});
    let bundles = stage.trust_bundles();
    bundles
        .patch(&stage.namespace, &params, &Patch::Merge(&edit))
        .await?;
    stage.published_to_cluster().await
}

async fn left_alone(stage: &Stage, namespace: &str) -> Result<()> {
    let events: Api<Event> = Api::namespaced(stage.client.clone(), namespace);
    let note = wait::until("an Event on the foreign ConfigMap", || async {
        let list = events.list(&ListParams::default()).await?.items;
        let mut found = list.into_iter().filter(|event| {
            let about = event.regarding.as_ref().and_then(|one| one.name.as_deref());
            event.reason.as_deref() == Some("ForeignBundle") && about == Some("spire-bundle")
        });
        Ok(found.next().and_then(|event| event.note))
    })
    .await?;
    ensure!(note.contains("kept by e2e"), "{note}");
    let map = stage.config_maps(namespace).get("spire-bundle").await?;
    ensure!(bundle_of(&map) == "theirs", "{map:?}");
    let managed = map.metadata.managed_fields.unwrap_or_default();
    ensure!(managed.len() == 1, "{managed:?}");
    Ok(())
}
