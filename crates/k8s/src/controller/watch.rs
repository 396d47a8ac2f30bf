//! Watches at the API server, one task each, all telling one loop.

use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject};
use kube::core::{Expression, Selector};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use runtime::{BoxError, Metrics, Tasks};
use serde_json::Value as Json;
use tokio::sync::mpsc;

use super::config::Config;
use super::crd::{
    ClusterFederatedTrustDomain, ClusterSPIFFEID, ClusterStaticEntry, WorkloadSPIFFEID,
};
use super::state::{Event, Kind};

/// How many objects a list takes at once.
const PAGE: u32 = 500;

/// What every kind is called at the API server.
pub(super) fn resource(kind: Kind, slices: bool) -> ApiResource {
    match kind {
        Kind::Pod => ApiResource::erase::<core::Pod>(&()),
        Kind::Node => ApiResource::erase::<core::Node>(&()),
        Kind::Namespace => ApiResource::erase::<core::Namespace>(&()),
        Kind::Endpoints if slices => ApiResource::erase::<EndpointSlice>(&()),
        Kind::Endpoints => ApiResource::erase::<core::Endpoints>(&()),
        Kind::SpiffeId => ApiResource::erase::<ClusterSPIFFEID>(&()),
        Kind::StaticEntry => ApiResource::erase::<ClusterStaticEntry>(&()),
        Kind::WorkloadSpiffeId => ApiResource::erase::<WorkloadSPIFFEID>(&()),
        Kind::FederatedTrustDomain => ApiResource::erase::<ClusterFederatedTrustDomain>(&()),
    }
}

/// The resources of a kind that has statuses.
pub(super) fn api(client: &Client, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = resource(kind, true);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Starts the watches of `kinds`; all tell `events`.
pub(super) async fn start(
    client: &Client,
    config: &Arc<Config>,
    kinds: &[Kind],
    events: &mpsc::Sender<Event>,
    metrics: &Metrics,
    tasks: &Tasks,
) {
    let slices = has_endpoint_slices(client).await;
    for &kind in kinds {
        let api = Api::all_with(client.clone(), &resource(kind, slices));
        let watch = Watch {
            kind,
            api,
            config: config.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
        };
        let shutdown = tasks.shutdown();
        tasks.spawn(format!("watch {kind:?}"), async move {
            tokio::select! {
                () = watch.run() => {}
                () = shutdown.cancelled() => {}
            }
            Ok::<(), BoxError>(())
        });
    }
}

/// Whether there are EndpointSlices; every cluster since 1.21 has them. In doubt, yes.
async fn has_endpoint_slices(client: &Client) -> bool {
    let found = client.list_api_group_resources("discovery.k8s.io/v1").await;
    !matches!(found, Err(kube::Error::Api(status)) if status.code == 404)
}

struct Watch {
    kind: Kind,
    api: Api<DynamicObject>,
    config: Arc<Config>,
    events: mpsc::Sender<Event>,
    metrics: Metrics,
}

impl Watch {
    /// Ends when nobody listens any more. A watch that breaks begins anew with a list, after a pause.
    async fn run(self) {
        let mut wanted = watcher::Config::default().page_size(PAGE);
        if self.kind == Kind::SpiffeId && !self.config.spiffe_id_labels.is_empty() {
            wanted = wanted.labels_from(&self.labels());
        }
        let stream = watcher(self.api.clone(), wanted).default_backoff();
        let mut stream = std::pin::pin!(stream);
        while let Some(told) = stream.next().await {
            let event = match told {
                Ok(told) => self.event(told),
                Err(error) => {
                    let kind = format!("{:?}", self.kind);
                    self.metrics
                        .counter("kubernetes_errors", &[("watch", &kind)])
                        .increment();
                    tracing::warn!(watch = ?self.kind, %error, "watch broken");
                    continue;
                }
            };
            let Some(event) = event else { continue };
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }

    fn labels(&self) -> Selector {
        let labels = self.config.spiffe_id_labels.iter();
        labels
            .map(|(key, value)| Expression::Equal(key.clone(), value.clone()))
            .collect()
    }

    fn event(&self, told: watcher::Event<DynamicObject>) -> Option<Event> {
        let kind = self.kind;
        Some(match told {
            watcher::Event::Init => Event::Begin(kind),
            watcher::Event::InitDone => Event::End(kind),
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                Event::Apply(kind, self.json(object)?)
            }
            watcher::Event::Delete(object) => Event::Delete(kind, self.json(object)?),
        })
    }

    /// None when the config leaves its namespace out.
    fn json(&self, mut object: DynamicObject) -> Option<Json> {
        let only = &self.config.cache_namespaces;
        let namespace = object.metadata.namespace.as_ref();
        if namespace.is_some_and(|namespace| !only.is_empty() && !only.contains(namespace)) {
            return None;
        }
        object.metadata.managed_fields = None;
        serde_json::to_value(object).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server that answers everything so.
    fn cluster(code: u16) -> Client {
        let service = tower::service_fn(move |_: Request<Body>| async move {
            let list = json!({ "groupVersion": "discovery.k8s.io/v1", "resources": [] });
            let status = json!({ "kind": "Status", "status": "Failure", "code": code });
            let body = if code == 200 { list } else { status };
            let body = Body::from(body.to_string().into_bytes());
            let response = Response::builder().status(code).body(body);
            Ok::<_, Infallible>(response.unwrap())
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn ctl_13_endpoints_stand_in_where_there_are_no_slices_and_not_in_an_outage() {
        for (code, expected) in [
            (200, "endpointslices"),
            (404, "endpoints"),
            (500, "endpointslices"),
            (403, "endpointslices"),
        ] {
            let slices = has_endpoint_slices(&cluster(code)).await;
            assert_eq!(resource(Kind::Endpoints, slices).plural, expected, "{code}");
        }
    }
}
