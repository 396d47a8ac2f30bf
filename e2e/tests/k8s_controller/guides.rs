//! K2: what five guides print, applied as it is, becomes the entries that they speak of. The files in `fixtures/guides` say
//! what is not printed, and what of a guide's own had to be put right.

use anyhow::{Context, Result, ensure};
use e2e::controller::{CLUSTER, OWN_NAMESPACE, Stage, of};
use e2e::{Domain, Process, Settings, binaries, cluster, wait};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use proto::spire::api::types::Entry;
use serde_json::{Value, json};

use crate::{NODE, give_bundle, relations};

/// A guide, and what its manifests are to become.
struct Guide {
    trust_domain: &'static str,
    manifests: &'static str,
    /// More lines for the controller's config.
    config: &'static str,
    /// Trust domains that a rule federates with: the server has to know their bundles.
    bundles: &'static [&'static str],
    entries: &'static [Identity],
    /// A pod that the guide labels afterwards, with what it is to become.
    labelled: Option<(&'static str, Identity)>,
    relations: &'static [(&'static str, &'static str)],
}

/// An entry, besides the pod's UID, its node and the names that every entry has.
struct Identity {
    namespace: &'static str,
    /// Which pods: by name, or by what the name begins with.
    pod: &'static str,
    path: &'static str,
    dns: &'static [&'static str],
    ttl: i32,
    selectors: &'static [&'static str],
    federates_with: &'static [&'static str],
}

impl Identity {
    const fn new(namespace: &'static str, pod: &'static str, path: &'static str) -> Self {
        Self {
            namespace,
            pod,
            path,
            dns: &[],
            ttl: 0,
            selectors: &[],
            federates_with: &[],
        }
    }

    fn check(&self, trust_domain: &str, node: &str, pod: &Pod, entries: &[Entry]) -> Result<()> {
        let name = format!("{}/{}", self.namespace, self.pod);
        let entry = of(entries, pod).with_context(|| format!("{name} has no entry"))?;
        let id = |id: Option<&proto::spire::api::types::Spiffeid>| {
            id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path))
        };
        let there = json!({
            "id": id(entry.spiffe_id.as_ref()),
            "parent": id(entry.parent_id.as_ref()),
            "dns": entry.dns_names,
            "ttl": [entry.x509_svid_ttl, entry.jwt_svid_ttl],
            "selectors": entry.selectors.iter().map(|one| format!("{}:{}", one.r#type, one.value)).collect::<Vec<_>>(),
            "federates": entry.federates_with,
            "rights": [entry.admin, entry.downstream],
            "prefix": entry.id.starts_with(CLUSTER),
        });
        let uid = pod.metadata.uid.as_deref().context("a pod's UID")?;
        let own = format!("k8s:pod-uid:{uid}");
        let mut selectors: Vec<&str> = self.selectors.to_vec();
        selectors.push(&own);
        selectors.sort_unstable();
        let right = json!({
            "id": format!("spiffe://{trust_domain}{}", self.path),
            "parent": format!("spiffe://{trust_domain}/spire/agent/k8s_psat/{CLUSTER}/{node}"),
            "dns": self.dns, "ttl": [self.ttl, 0], "selectors": selectors,
            "federates": self.federates_with, "rights": [false, false], "prefix": true,
        });
        ensure!(there == right, "{name}: {there} instead of {right}");
        Ok(())
    }
}

const GUIDES: [Guide; 5] = [
    Guide {
        trust_domain: "example.com",
        manifests: "workload-identity.yaml",
        config: "",
        bundles: &[],
        entries: &[
            Identity::new("production", "api-server-", "/ns/production/sa/api-server"),
            Identity::new("production", "frontend", "/ns/production/sa/frontend"),
            Identity::new("production", "database", "/ns/production/sa/database"),
        ],
        labelled: None,
        relations: &[(
            "cluster-b.example.com",
            "https://spire-server.cluster-b:8443",
        )],
    },
    Guide {
        trust_domain: "example.org",
        manifests: "service-identity.yaml",
        config: "",
        bundles: &["external-partner.org"],
        entries: &[
            Identity {
                dns: &[
                    "api-server",
                    "api-server.production",
                    "api-server.production.svc.cluster.local",
                ],
                ttl: 3600,
                ..Identity::new("production", "api-server", "/ns/production/sa/api-server")
            },
            Identity {
                ttl: 1800,
                federates_with: &["external-partner.org"],
                ..Identity::new("production", "payment", "/workload/payment-service")
            },
        ],
        labelled: Some((
            "spiffe.io/spire-managed-identity",
            Identity {
                dns: &[
                    "my-pod",
                    "my-pod.production",
                    "my-pod.production.svc.cluster.local",
                ],
                ttl: 3600,
                ..Identity::new("production", "my-pod", "/ns/production/sa/default")
            },
        )),
        relations: &[],
    },
    Guide {
        trust_domain: "ai.internal",
        manifests: "hands-on.yaml",
        // One of its resources has this class and the other none.
        config: "className: spire-mgmt\nwatchClassless: true\n",
        bundles: &[],
        entries: &[Identity {
            dns: &["payments-api.payments.svc"],
            selectors: &[
                "k8s:ns:payments",
                "k8s:pod-label:app:payments-api",
                "k8s:sa:api",
            ],
            ..Identity::new("payments", "payments-api-0", "/ns/payments/sa/api")
        }],
        labelled: None,
        relations: &[(
            "staging.ai.internal",
            "https://spire-server.staging.ai.internal/bundle",
        )],
    },
    of_ids("company.org"),
    of_ids("corp.example"),
];

const OF_IDS: &[Identity] = &[
    Identity::new("prod", "api", "/ns/prod/sa/api"),
    Identity::new("payments", "api", "/ns/payments/sa/api"),
];

/// A guide that prints IDs only.
const fn of_ids(trust_domain: &'static str) -> Guide {
    Guide {
        trust_domain,
        manifests: "ids.yaml",
        config: "",
        bundles: &[],
        entries: OF_IDS,
        labelled: None,
        relations: &[],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_ctl_01_the_guides_manifests_as_printed_become_the_entries_they_speak_of() -> Result<()>
{
    if let Some(why) = cluster::unable() {
        testkit::skipped(why);
        return Ok(());
    }
    let mut stage = Stage::new().await?;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
    stage.cluster.apply(&node).await?;
    let nodes: Api<Node> = Api::all(stage.client.clone());
    let node = nodes
        .get(NODE)
        .await?
        .metadata
        .uid
        .context("a node's UID")?;
    for guide in &GUIDES {
        let told = || format!("{} of {}", guide.manifests, guide.trust_domain);
        let controller = serve(&mut stage, guide).await.with_context(told)?;
        followed(&stage, guide, &node).await.with_context(told)?;
        drop(controller);
        cleared(&stage).await.with_context(told)?;
    }
    Ok(())
}

/// A server and a controller of the guide's trust domain.
async fn serve(stage: &mut Stage, guide: &Guide) -> Result<Process> {
    stage.domain = Domain::new(Settings {
        trust_domain: guide.trust_domain.to_owned(),
        ..Settings::default()
    })?;
    stage.domain.start_server().await?;
    for name in guide.bundles {
        give_bundle(stage, name).await?;
    }
    stage.controller("controller", &format!("{OWN_NAMESPACE}{}", guide.config))
}

async fn followed(stage: &Stage, guide: &Guide, node: &str) -> Result<()> {
    let file = binaries::repository("e2e/fixtures/guides").join(guide.manifests);
    apply(stage, &std::fs::read_to_string(file)?).await?;
    bind_all(stage, guide).await?;
    exactly(stage, guide, node, &[]).await?;
    if let Some((label, identity)) = &guide.labelled {
        let label = json!({ "metadata": { "labels": { *label: "true" } } });
        let (params, patch) = (PatchParams::default(), Patch::Merge(label));
        let pods = stage.pods(identity.namespace);
        pods.patch(identity.pod, &params, &patch).await?;
        exactly(stage, guide, node, std::slice::from_ref(identity)).await?;
    }
    wait::until("the federation relationships", || async {
        let there = relations(stage).await?;
        let there: Vec<_> = there
            .iter()
            .map(|one| (one.trust_domain.as_str(), one.bundle_endpoint_url.as_str()))
            .collect();
        ensure!(there == guide.relations, "{there:?}");
        Ok(Some(()))
    })
    .await
}

/// A namespace's accounts come after it, by Kubernetes itself.
async fn apply(stage: &Stage, manifests: &str) -> Result<()> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifests)?;
    for document in &documents {
        stage.cluster.apply(document).await?;
        if document["kind"] == "Namespace" {
            let name = document["metadata"]["name"].as_str().context("a name")?;
            let labels = document["metadata"]["labels"].as_object();
            let labels = labels.into_iter().flatten();
            let labels: Vec<_> = labels
                .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
                .collect();
            stage.cluster.namespace_named(name, &labels).await?;
        }
    }
    Ok(())
}

/// The part of the scheduler: every pod there is goes to the one node, those of a Deployment once it has made them.
async fn bind_all(stage: &Stage, guide: &Guide) -> Result<()> {
    for identity in guide.entries {
        pod_of(stage, identity).await?;
    }
    let all: Api<Pod> = Api::all(stage.client.clone());
    for pod in all.list(&ListParams::default()).await? {
        let unbound = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.is_none());
        let (name, namespace) = (pod.metadata.name, pod.metadata.namespace);
        let name = name.filter(|_| unbound && pod.metadata.deletion_timestamp.is_none());
        if let (Some(name), Some(namespace)) = (name, namespace) {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding",
                "metadata": { "name": name, "namespace": namespace },
                "target": { "apiVersion": "v1", "kind": "Node", "name": NODE },
            });
            let pods = stage.pods(&namespace);
            let params = PostParams::default();
            let _: Value = pods
                .create_subresource("binding", &name, &params, &binding)
                .await?;
        }
    }
    Ok(())
}

async fn pod_of(stage: &Stage, identity: &Identity) -> Result<Pod> {
    let pods = stage.pods(identity.namespace);
    let what = format!("the pod {}/{}", identity.namespace, identity.pod);
    wait::until(&what, || async {
        let all = pods.list(&ListParams::default()).await?;
        let named = |pod: &Pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let rest = name.strip_prefix(identity.pod);
            rest.is_some_and(|rest| rest.is_empty() || identity.pod.ends_with('-'))
        };
        Ok(all.items.into_iter().find(named))
    })
    .await
}

/// Waits until the entries are those of the guide and `more`, and no other.
async fn exactly(stage: &Stage, guide: &Guide, node: &str, more: &[Identity]) -> Result<()> {
    let mut right = Vec::new();
    for identity in guide.entries.iter().chain(more) {
        right.push((identity, pod_of(stage, identity).await?));
    }
    wait::until("the guide's entries", || async {
        let entries = stage.entries().all().await?;
        for (identity, pod) in &right {
            identity.check(guide.trust_domain, node, pod, &entries)?;
        }
        ensure!(entries.len() == right.len(), "too many: {entries:?}");
        Ok(Some(()))
    })
    .await
}

/// Another guide follows.
async fn cleared(stage: &Stage) -> Result<()> {
    let (at_once, all) = (
        DeleteParams::default().grace_period(0),
        ListParams::default(),
    );
    for (kind, plural) in [
        ("ClusterSPIFFEID", "clusterspiffeids"),
        (
            "ClusterFederatedTrustDomain",
            "clusterfederatedtrustdomains",
        ),
    ] {
        let api = stage.resources(kind, plural);
        api.delete_collection(&at_once, &all).await?;
    }
    for namespace in ["production", "staging", "payments", "prod"] {
        let deployments: Api<Deployment> = Api::namespaced(stage.client.clone(), namespace);
        deployments.delete_collection(&at_once, &all).await?;
        stage
            .pods(namespace)
            .delete_collection(&at_once, &all)
            .await?;
    }
    Ok(())
}
