//! What the API server tells of namespaces and of what is published.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, SelectAll, select_all};
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as Object};
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use runtime::Metrics;
use runtime::backoff::Backoff;

use super::object::{Names, trust_bundles};
use super::plan::{Namespace, Told};

/// How many objects a list takes at once.
const PAGE: u32 = 500;
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Something new.
#[derive(Debug)]
pub(super) enum Event {
    Namespace(Told<String, Namespace>),
    ConfigMap(Told<String, DynamicObject>),
    /// The cluster has ClusterTrustBundles; this is how it calls them.
    TrustBundles(ApiResource),
    TrustBundle(Told<(), DynamicObject>),
}

type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// Everything that is watched, as one stream without an end.
pub(super) fn all(
    client: &Client,
    names: &Names,
    own_namespace: &str,
    metrics: &Metrics,
) -> SelectAll<Events> {
    let mut watches = vec![
        namespaces(client, metrics),
        config_maps(client, names, own_namespace, metrics),
    ];
    if let Some(bundle) = &names.config.trust_bundle {
        watches.push(trust_bundle(client, bundle.name.clone(), metrics));
    }
    select_all(watches)
}

fn namespaces(client: &Client, metrics: &Metrics) -> Events {
    let api = Api::<PartialObjectMeta<Object>>::all(client.clone());
    let watch = watcher(api, watcher::Config::default().page_size(PAGE));
    let namespace = |object: PartialObjectMeta<Object>| {
        let namespace = Namespace {
            labels: object.metadata.labels.unwrap_or_default(),
            is_ending: object.metadata.deletion_timestamp.is_some(),
        };
        (object.metadata.name.unwrap_or_default(), namespace)
    };
    let events = whole("namespaces", watch, metrics);
    Box::pin(events.map(move |event| Event::Namespace(told(event, namespace))))
}

/// Those of our name: in all namespaces, or in our own where no other may be selected, since no more need be allowed then.
fn config_maps(client: &Client, names: &Names, own_namespace: &str, metrics: &Metrics) -> Events {
    let resource = ApiResource::erase::<ConfigMap>(&());
    let api = match names.config.selector {
        Some(_) => Api::all_with(client.clone(), &resource),
        None => Api::namespaced_with(client.clone(), own_namespace, &resource),
    };
    let watch = watcher(api, only(&names.config.config_map));
    let by_namespace = |object: DynamicObject| {
        (
            object.metadata.namespace.clone().unwrap_or_default(),
            object,
        )
    };
    let events = whole("ConfigMaps", watch, metrics);
    Box::pin(events.map(move |event| Event::ConfigMap(told(event, by_namespace))))
}

/// Nothing in a cluster that has no ClusterTrustBundles.
fn trust_bundle(client: &Client, name: String, metrics: &Metrics) -> Events {
    let (client, metrics) = (client.clone(), metrics.clone());
    let found = stream::once(find(client.clone())).filter_map(std::future::ready);
    Box::pin(found.flat_map(move |resource| {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let events = whole("ClusterTrustBundles", watcher(api, only(&name)), &metrics);
        let events = events.map(|event| Event::TrustBundle(told(event, |object| ((), object))));
        stream::once(std::future::ready(Event::TrustBundles(resource))).chain(events)
    }))
}

/// Asks until the API server says whether it has them.
async fn find(client: Client) -> Option<ApiResource> {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        match ask(&client).await {
            Ok(found) => {
                if found.is_none() {
                    tracing::debug!("the cluster has no ClusterTrustBundles");
                }
                return found;
            }
            Err(error) => {
                tracing::warn!(%error, "whether the cluster has ClusterTrustBundles is not known");
                tokio::time::sleep(backoff.fail()).await;
            }
        }
    }
}

/// The newest version there is.
async fn ask(client: &Client) -> Result<Option<ApiResource>, kube::Error> {
    for version in ["v1", "v1beta1"] {
        let resource = trust_bundles(version);
        match client.list_api_group_resources(&resource.api_version).await {
            Ok(list) if list.resources.iter().any(|one| one.name == resource.plural) => {
                return Ok(Some(resource));
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn only(name: &str) -> watcher::Config {
    watcher::Config::default()
        .fields(&format!("metadata.name={name}"))
        .page_size(PAGE)
}

/// What comes without an error; a watch that breaks begins anew with a list, after a pause.
pub(super) fn whole<T, W>(
    what: &'static str,
    watch: W,
    metrics: &Metrics,
) -> impl Stream<Item = T> + Send + use<T, W>
where
    T: Send,
    W: Stream<Item = Result<T, watcher::Error>> + Send,
{
    let errors = metrics.counter("kubernetes_errors", &[("watch", what)]);
    watch.default_backoff().filter_map(move |told| {
        let told = told.map_err(|error| {
            errors.increment();
            tracing::warn!(watch = what, %error, "watch broken");
        });
        std::future::ready(told.ok())
    })
}

pub(super) fn told<T, K, V>(event: watcher::Event<T>, read: impl Fn(T) -> (K, V)) -> Told<K, V> {
    match event {
        watcher::Event::Init => Told::Begin,
        watcher::Event::InitDone => Told::End,
        watcher::Event::InitApply(object) => {
            let (key, value) = read(object);
            Told::Listed(key, value)
        }
        watcher::Event::Apply(object) => {
            let (key, value) = read(object);
            Told::Changed(key, value)
        }
        watcher::Event::Delete(object) => Told::Gone(read(object).0),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server with these versions of the group, each with one resource; `broken` answers nothing else than 500.
    fn cluster(versions: &'static [(&str, &str)], broken: bool) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let version = request.uri().path().rsplit('/').next().unwrap_or_default();
            let found = versions.iter().find(|(name, _)| *name == version);
            let (code, body) = match found {
                Some((version, resource)) => {
                    let resource = json!({
                        "name": resource, "singularName": "", "namespaced": false, "kind": "Some", "verbs": [],
                    });
                    let group = format!("certificates.k8s.io/{version}");
                    (200, json!({"groupVersion": group, "resources": [resource]}))
                }
                None => {
                    let code = if broken { 500 } else { 404 };
                    (
                        code,
                        json!({"kind": "Status", "status": "Failure", "code": code}),
                    )
                }
            };
            let response = Response::builder().status(code);
            let response = response.body(Body::from(body.to_string().into_bytes()));
            async move { Ok::<_, Infallible>(response.unwrap()) }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn ctl_20_the_newest_version_of_cluster_trust_bundles_is_taken_if_there_is_one() {
        let (v1, v1beta1) = ("certificates.k8s.io/v1", "certificates.k8s.io/v1beta1");
        for (versions, expected) in [
            (
                &[
                    ("v1", "clustertrustbundles"),
                    ("v1beta1", "clustertrustbundles"),
                ][..],
                Some(v1),
            ),
            (
                &[
                    ("v1", "certificatesigningrequests"),
                    ("v1beta1", "clustertrustbundles"),
                ],
                Some(v1beta1),
            ),
            (&[("v1", "certificatesigningrequests")], None),
            (&[], None),
        ] {
            let found = ask(&cluster(versions, false)).await.unwrap();
            let found = found.map(|resource| resource.api_version);
            assert_eq!(found.as_deref(), expected, "{versions:?}");
        }
        let v1_only = &[("v1", "certificatesigningrequests")];
        assert!(
            ask(&cluster(v1_only, true)).await.is_err(),
            "an outage is no answer"
        );
    }
}
