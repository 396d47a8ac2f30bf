//! CTL-20: the trust bundle as the `caBundle` of what asks for it by a label, and by the replica that leads alone.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{Process, ports, wait};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::stage::Stage;

/// An object with a `caBundle`: where that is, what else is of it, and a patch that spoils it.
struct Place {
    api: Api<DynamicObject>,
    name: String,
    kind: &'static str,
    at: &'static [&'static str],
    /// The field that the publisher may own, as managed fields name it.
    owned: Value,
    object: Value,
}

const LABEL: &str = "signet.dev/inject-ca";

impl Place {
    /// The text of each `caBundle`; empty where there is none.
    async fn there(&self) -> Result<Vec<String>> {
        let object = serde_json::to_value(self.api.get(&self.name).await?)?;
        let text = |at: &&str| object.pointer(at).and_then(Value::as_str);
        let texts = self.at.iter().map(|at| text(at).unwrap_or_default());
        Ok(texts.map(str::to_owned).collect())
    }

    /// Waits until it holds what the server says.
    async fn right(&self, stage: &Stage) -> Result<()> {
        let what = format!("the caBundle of the {} {}", self.kind, self.name);
        wait::until(&what, || async {
            let right = stage.domain.server_cli(&["bundle", "show"]).await?;
            for there in self.there().await? {
                let pem = String::from_utf8(STANDARD.decode(&there)?)?;
                ensure!(certificates(&pem) == certificates(&right), "{pem}");
            }
            Ok(Some(()))
        })
        .await
    }

    /// The publisher owns nothing of it but the `caBundle`.
    async fn owned(&self) -> Result<()> {
        let object = serde_json::to_value(self.api.get(&self.name).await?)?;
        let all = object["metadata"]["managedFields"].as_array();
        let ours = all.into_iter().flatten();
        let mut ours = ours.filter(|one| one["manager"] == "signet-bundle");
        let ours = &ours.next().context("a field manager of its own")?["fieldsV1"];
        ensure!(*ours == self.owned, "{}: {ours}", self.kind);
        Ok(())
    }

    async fn patch(&self, patch: &Value) -> Result<()> {
        let params = PatchParams {
            field_manager: Some("kubectl-edit".to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        self.api.patch(&self.name, &params, &patch).await?;
        Ok(())
    }
}

/// The order in which they stand is of no importance.
fn certificates(pem: &str) -> BTreeSet<&str> {
    let all = pem.split_inclusive("-----END CERTIFICATE-----");
    all.map(str::trim).filter(|one| !one.is_empty()).collect()
}

/// One of each kind, called after `name`.
fn places(stage: &Stage, name: &str) -> Vec<Place> {
    let api = |group: &str, kind: &str, plural: &str| {
        let kind = GroupVersionKind::gvk(group, "v1", kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        Api::all_with(stage.client.clone(), &resource)
    };
    let ca = json!({ "f:caBundle": {} });
    let service = json!({ "namespace": "default", "name": name });
    let mut places = Vec::new();
    for (kind, plural) in [
        (
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
        ),
        (
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
        ),
    ] {
        let group = "admissionregistration.k8s.io";
        let config = json!({ "f:clientConfig": ca, ".": {}, "f:name": {} });
        let (first, second) = (format!("a.{name}.example"), format!("b.{name}.example"));
        let keys = [&first, &second].map(|name| format!("k:{{\"name\":\"{name}\"}}"));
        let [a, b] = &keys;
        places.push(Place {
            api: api(group, kind, plural),
            name: name.to_owned(),
            kind,
            at: &[
                "/webhooks/0/clientConfig/caBundle",
                "/webhooks/1/clientConfig/caBundle",
            ],
            owned: json!({ "f:webhooks": { a: config, b: config } }),
            object: json!({ "apiVersion": format!("{group}/v1"), "webhooks": [
                webhook(&first, &json!({ "service": service })),
                webhook(&second, &json!({ "url": "https://policy.example/check" })),
            ] }),
        });
    }
    places.push(Place {
        api: api("apiregistration.k8s.io", "APIService", "apiservices"),
        name: format!("v1.{name}.example"),
        kind: "APIService",
        at: &["/spec/caBundle"],
        owned: json!({ "f:spec": ca }),
        object: json!({ "apiVersion": "apiregistration.k8s.io/v1", "spec": {
            "group": format!("{name}.example"), "version": "v1", "service": service,
            "groupPriorityMinimum": 10, "versionPriority": 10,
        } }),
    });
    places.push(Place {
        api: api(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        ),
        name: format!("things.{name}.example"),
        kind: "CustomResourceDefinition",
        at: &["/spec/conversion/webhook/clientConfig/caBundle"],
        owned: json!({ "f:spec": { "f:conversion": { "f:webhook": { "f:clientConfig": ca } } } }),
        object: definition(name, &service),
    });
    places
}

/// It is asked about nothing that there is.
fn webhook(name: &str, client_config: &Value) -> Value {
    json!({
        "name": name, "clientConfig": client_config, "admissionReviewVersions": ["v1"],
        "sideEffects": "None", "failurePolicy": "Ignore",
        "rules": [{ "apiGroups": ["nothing.example"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["things"] }],
    })
}

fn definition(name: &str, service: &Value) -> Value {
    let webhook =
        json!({ "clientConfig": { "service": service }, "conversionReviewVersions": ["v1"] });
    json!({ "apiVersion": "apiextensions.k8s.io/v1", "spec": {
        "group": format!("{name}.example"), "scope": "Namespaced",
        "names": { "plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList" },
        "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } } }],
        "conversion": { "strategy": "Webhook", "webhook": webhook },
    } })
}

async fn make(stage: &Stage, place: &Place, labelled: bool) -> Result<()> {
    let mut object = place.object.clone();
    object["kind"] = json!(place.kind);
    object["metadata"] = json!({ "name": place.name });
    if labelled {
        object["metadata"]["labels"] = json!({ LABEL: "true" });
    }
    stage.cluster.apply(&object).await
}

/// A replica that keeps the bundle under `key` of the ConfigMap, and the `caBundle`s where it is told so.
async fn replica(stage: &Stage, key: &str, ca_bundles: bool) -> Result<Process> {
    let own = &stage.namespace;
    let election = json!({
        "leaderElect": true, "resourceNamespace": own, "resourceName": "replicas",
        "leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "1s",
    });
    stage
        .controller_named(
            key,
            json!({
                "webhook": { "port": ports::free()? }, "leaderElection": election,
                "signet": { "bundle": { "namespace": own, "configMapKey": key, "caBundles": ca_bundles } },
            }),
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_20_ca_bundles_of_what_asks_for_it_are_kept_by_the_leader_alone() -> Result<()> {
    let stage = Stage::new("ca-bundles", crate::bundle::short_lived()).await?;
    let own = stage.namespace.clone();
    // Not the controller's own name: it keeps the caBundle of its own webhook in any case.
    let named = |suffix: &str| places(&stage, &format!("{own}-{suffix}"));
    let (asking, silent) = (named("asking"), named("silent"));
    for (place, silent) in asking.iter().zip(&silent) {
        make(&stage, place, true).await?;
        make(&stage, silent, false).await?;
    }
    // The one that leads does not keep them: whoever does, writes without leading.
    let leader = replica(&stage, "first.crt", false).await?;
    let maps: Api<ConfigMap> = Api::namespaced(stage.client.clone(), &own);
    published(&maps, "first.crt").await?;
    let follower = replica(&stage, "second.crt", true).await?;
    follows(&stage, &maps, &follower).await?;
    for place in &asking {
        let there = place.there().await?;
        ensure!(
            there.iter().all(String::is_empty),
            "{}: {there:?}",
            place.kind
        );
    }

    drop(leader);
    published(&maps, "second.crt").await?;
    for place in &asking {
        place.right(&stage).await?;
        place.owned().await?;
    }
    healed(&stage, &asking).await?;
    stage.second_authority().await?;
    for place in &asking {
        place.right(&stage).await?;
    }
    for place in &silent {
        let there = place.there().await?;
        ensure!(
            there.iter().all(String::is_empty),
            "{}: {there:?}",
            place.kind
        );
        place
            .patch(&json!({ "metadata": { "labels": { LABEL: "true" } } }))
            .await?;
        place.right(&stage).await?;
    }
    for place in asking.iter().chain(&silent) {
        place
            .api
            .delete(&place.name, &DeleteParams::default())
            .await?;
    }
    Ok(())
}

async fn published(maps: &Api<ConfigMap>, key: &str) -> Result<()> {
    wait::until(&format!("the bundle under {key}"), || async {
        let map = maps
            .get_opt("spire-bundle")
            .await?
            .context("no ConfigMap")?;
        Ok(map
            .data
            .is_some_and(|data| data.contains_key(key))
            .then_some(()))
    })
    .await
}

/// A follower writes nothing while the leader heals the ConfigMap, which both watch, again and again.
async fn follows(stage: &Stage, maps: &Api<ConfigMap>, follower: &Process) -> Result<()> {
    wait::until("the follower to start", || async {
        Ok(follower.log()?.contains("controller starts").then_some(()))
    })
    .await?;
    for round in 0..20 {
        let edit = Patch::Merge(json!({ "data": { "first.crt": format!("edit {round}") } }));
        let params = PatchParams::default();
        maps.patch("spire-bundle", &params, &edit).await?;
        wait::until("the leader to heal it", || async {
            let right = stage.domain.server_cli(&["bundle", "show"]).await?;
            let data = maps.get("spire-bundle").await?.data.unwrap_or_default();
            ensure!(!data.contains_key("second.crt"), "the follower wrote");
            let there = data.get("first.crt").context("no bundle")?;
            Ok((there.trim() == right.trim()).then_some(()))
        })
        .await?;
    }
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let lease = leases.get("replicas").await?;
    ensure!(
        lease
            .spec
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or_default()
            == 0,
        "nobody took the lease over"
    );
    Ok(())
}

/// After an edit by somebody else.
async fn healed(stage: &Stage, places: &[Place]) -> Result<()> {
    let wrong = STANDARD.encode(crate::bundle::stranger()?.pem());
    let config = json!({ "caBundle": wrong });
    for place in places {
        let edit = match place.kind {
            "APIService" => json!({ "spec": config }),
            "CustomResourceDefinition" => {
                json!({ "spec": { "conversion": { "webhook": { "clientConfig": config } } } })
            }
            _ => {
                let object = serde_json::to_value(place.api.get(&place.name).await?)?;
                let mut webhooks = object["webhooks"].clone();
                webhooks[1]["clientConfig"]["caBundle"] = json!(wrong);
                json!({ "webhooks": webhooks })
            }
        };
        place.patch(&edit).await?;
        place.right(stage).await?;
    }
    Ok(())
}
