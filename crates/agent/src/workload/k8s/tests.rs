mod fake;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::pods::PodList;
use super::*;
use crate::config::{KubeletAuth, KubeletPort};
use fake::{Answers, Authority, FakeKubelet};

const UID: &str = "0d5e35e2-1e16-4f5b-a7e5-8cc3ca0d5f1a";

fn id(letter: char) -> String {
    letter.to_string().repeat(64)
}

fn container(letter: char) -> Container {
    Container {
        pod_uid: UID.to_owned(),
        id: Some(id(letter)),
    }
}

fn list() -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [
        {"metadata": {"uid": "other", "name": "bare", "namespace": "x", "labels": null},
            "status": {"containerStatuses": null}},
        {
            "metadata": {
                "uid": UID, "name": "web-7d9f-abcde", "namespace": "shop",
                "labels": {"app": "web", "pod-template-hash": "7d9f"},
                "annotations": {"kubernetes.io/config.seen": "x"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9f", "uid": "u-1", "controller": true}],
            },
            "spec": {"serviceAccountName": "web", "nodeName": "node-1", "containers": [{"name": "web"}]},
            "status": {
                "containerStatuses": [
                    {"name": "web", "image": "shop/web:1", "imageID": "shop/web@sha256:aa", "containerID": format!("containerd://{}", id('c'))},
                    {"name": "log", "image": "log:2", "imageID": "", "containerID": ""},
                ],
                "initContainerStatuses": [
                    {"name": "signet-envoy", "image": "envoy:1", "imageID": "envoy@sha256:bb", "containerID": format!("containerd://{}", id('e'))},
                ],
            },
        },
    ]})
}

fn config(port: KubeletPort) -> K8sAttestorConfig {
    K8sAttestorConfig {
        port,
        node_name: None,
        node_name_env: "MY_NODE_NAME".to_owned(),
        max_poll_attempts: 5,
        poll_retry_interval: Duration::from_millis(20),
        disable_container_selectors: false,
    }
}

fn plain(kubelet: &FakeKubelet) -> K8sAttestorConfig {
    config(KubeletPort::ReadOnly(kubelet.address.port()))
}

/// Says what it knows from the answer of this number on, and nothing before.
fn from(number: usize) -> Answers {
    Arc::new(move |asked, _| match asked >= number {
        true => (200, list().to_string()),
        false => (200, json!({"items": null}).to_string()),
    })
}

fn values(selectors: &Selectors) -> Vec<&str> {
    selectors.iter().map(Selector::value).collect()
}

async fn ask(config: K8sAttestorConfig) -> Result<Selectors, AttestError> {
    K8s::new(config).selectors(&container('c'), || Ok(())).await
}

#[test]
fn a_container_has_spires_selectors() {
    let list: PodList = serde_json::from_value(list()).unwrap();
    let Found::Container(pod, status) = pods::find(&list.items, &container('c')) else {
        panic!("it is listed");
    };
    let found = selectors(pod.values().chain(status.values()));
    assert_eq!(
        values(&found),
        [
            "container-image:shop/web:1",
            "container-image:shop/web@sha256:aa",
            "container-name:web",
            "node-name:node-1",
            "ns:shop",
            "pod-image-count:2",
            "pod-image:log:2",
            "pod-image:shop/web:1",
            "pod-image:shop/web@sha256:aa",
            "pod-init-image-count:1",
            "pod-init-image:envoy:1",
            "pod-init-image:envoy@sha256:bb",
            "pod-label:app:web",
            "pod-label:pod-template-hash:7d9f",
            "pod-name:web-7d9f-abcde",
            "pod-owner-uid:ReplicaSet:u-1",
            "pod-owner:ReplicaSet:web-7d9f",
            "pod-uid:0d5e35e2-1e16-4f5b-a7e5-8cc3ca0d5f1a",
            "sa:web",
        ]
    );
}

#[test]
fn native_sidecars_are_found_and_strangers_are_not() {
    let list: PodList = serde_json::from_value(list()).unwrap();
    let find = |container| pods::find(&list.items, &container);
    let Found::Container(_, status) = find(container('e')) else {
        panic!("it is among the init containers");
    };
    assert!(
        status
            .values()
            .any(|value| value == "container-name:signet-envoy")
    );
    assert!(matches!(find(container('d')), Found::Pod(_)));
    // A container that has not started has no ID, and is nobody's.
    let nameless = Container {
        pod_uid: UID.to_owned(),
        id: None,
    };
    assert!(matches!(find(nameless), Found::Pod(_)));
    let elsewhere = Container {
        pod_uid: "other".to_owned(),
        id: Some(id('c')),
    };
    assert!(matches!(find(elsewhere), Found::Pod(_)));
    let unknown = Container {
        pod_uid: "unknown".to_owned(),
        id: Some(id('c')),
    };
    assert!(matches!(find(unknown), Found::Nothing));
}

#[test]
fn a_static_pod_is_known_by_its_hash() {
    let mut list = list();
    list["items"][1]["metadata"]["annotations"] = json!({"kubernetes.io/config.hash": "5e0b"});
    let list: PodList = serde_json::from_value(list).unwrap();
    let container = Container {
        pod_uid: "5e0b".to_owned(),
        id: Some(id('c')),
    };
    assert!(matches!(
        pods::find(&list.items, &container),
        Found::Container(..)
    ));
}

/// Tokio's clock moves by hand alone: a thread that waits keeps it still while all wait for the kubelet's sockets.
#[tokio::test(start_paused = true)]
async fn a_container_is_waited_for_and_all_share_the_answers() {
    let (over, waits) = std::sync::mpsc::channel::<()>();
    let still = tokio::task::spawn_blocking(move || waits.recv());
    let mut kubelet = FakeKubelet::start(None, from(3)).await;
    let config = plain(&kubelet);
    let interval = config.poll_retry_interval;
    let (attestor, container) = (K8s::new(config), container('c'));
    let callers = (0..50).map(|_| attestor.selectors(&container, || Ok(())));
    let time = async {
        for asked in 1..3 {
            kubelet.asked.wait_for(|now| *now == asked).await.unwrap();
            tokio::time::advance(interval).await;
        }
    };
    let (found, ()) = tokio::join!(join_all(callers), time);
    for selectors in found {
        assert!(values(&selectors.unwrap()).contains(&"container-name:web"));
    }
    // Each on its own would have asked three times.
    assert_eq!(*kubelet.asked.borrow(), 3);
    drop(over);
    still.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_container_that_does_not_come_is_given_up() {
    let kubelet = FakeKubelet::start(None, from(usize::MAX)).await;
    let error = ask(plain(&kubelet)).await.unwrap_err();
    assert!(
        matches!(error, AttestError::NotListed { attempts: 5, .. }),
        "{error}"
    );
    assert_eq!(*kubelet.asked.borrow(), 5);
}

#[tokio::test]
async fn nobody_is_asked_about_the_dead() {
    let kubelet = FakeKubelet::start(None, from(1)).await;
    let attestor = K8s::new(plain(&kubelet));
    let dead = || Err(AttestError::Gone { pid: 7 });
    let error = attestor.selectors(&container('c'), dead).await.unwrap_err();
    assert!(matches!(error, AttestError::Gone { pid: 7 }), "{error}");
    assert_eq!(*kubelet.asked.borrow(), 1);
}

#[tokio::test]
async fn the_pod_alone_suffices_where_asked() {
    let kubelet = FakeKubelet::start(None, from(1)).await;
    let mut config = plain(&kubelet);
    config.disable_container_selectors = true;
    let attestor = K8s::new(config);
    for letter in ['c', 'd'] {
        let found = attestor
            .selectors(&container(letter), || Ok(()))
            .await
            .unwrap();
        let values = values(&found);
        assert!(values.contains(&"ns:shop"));
        assert!(!values.iter().any(|value| value.starts_with("container-")));
    }
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

#[tokio::test]
async fn the_kubelet_is_proven_and_the_token_shown() {
    let authority = Authority::new();
    let answers: Answers = Arc::new(|_, token| match token {
        Some("Bearer sa-token") => (200, list().to_string()),
        _ => (401, "Unauthorized".to_owned()),
    });
    let kubelet = FakeKubelet::start(Some(authority.server("localhost", false)), answers).await;
    let files = Files::new();
    let ca = files.write("ca.crt", &authority.pem());
    let other_ca = files.write("other.crt", &Authority::new().pem());
    let token = KubeletAuth::Token(files.write("token", "sa-token\n"));
    let secure = |ca_path: Option<&PathBuf>, auth: &KubeletAuth, name: Option<&str>| {
        let mut config = config(KubeletPort::Secure {
            port: kubelet.address.port(),
            ca_path: ca_path.cloned(),
            auth: auth.clone(),
        });
        config.node_name = name.map(str::to_owned);
        ask(config)
    };
    // By its authority; by its name, too; not at all.
    secure(Some(&ca), &token, None).await.unwrap();
    secure(Some(&ca), &token, Some("localhost")).await.unwrap();
    secure(None, &token, None).await.unwrap();
    for (ca, name) in [
        (&other_ca, None),
        (&other_ca, Some("localhost")),
        (&ca, Some("127.0.0.1")),
    ] {
        let error = secure(Some(ca), &token, name).await.unwrap_err();
        let AttestError::Kubelet(error) = error else {
            panic!("{error}");
        };
        assert!(matches!(*error, KubeletError::Tls(..)), "{error}");
    }
    let wrong = KubeletAuth::Token(files.write("wrong", "secret"));
    for auth in [&wrong, &KubeletAuth::Anonymous] {
        let error = secure(Some(&ca), auth, None).await.unwrap_err().to_string();
        assert!(
            error.contains("401") && !error.contains("secret"),
            "{error}"
        );
    }
    let missing = KubeletAuth::Token(files.0.path().join("nothing"));
    let error = secure(Some(&ca), &missing, None).await.unwrap_err();
    assert!(error.to_string().contains("/nothing: "), "{error}");
}

#[tokio::test]
async fn a_certificate_will_do_instead() {
    let authority = Authority::new();
    let tls = authority.server("localhost", true);
    let kubelet = FakeKubelet::start(Some(tls), from(1)).await;
    let files = Files::new();
    let ca_path = Some(files.write("ca.crt", &authority.pem()));
    let (certificate, key) = authority.issue("agent");
    let port = kubelet.address.port();
    let with = |auth| {
        let ca_path = ca_path.clone();
        ask(config(KubeletPort::Secure {
            port,
            ca_path,
            auth,
        }))
    };
    let own = KubeletAuth::Certificate {
        certificate_path: files.write("agent.crt", &certificate),
        private_key_path: files.write("agent.key", &key),
    };
    with(own).await.unwrap();
    with(KubeletAuth::Anonymous).await.unwrap_err();
}

#[tokio::test]
async fn odd_answers_are_told() {
    for (answer, said) in [
        ((500, String::new()), "it answers 500"),
        ((403, String::new()), "nodes/proxy"),
        ((200, "[3]".to_owned()), "no list of pods"),
        ((200, "{\"items\": 3}".to_owned()), "no list of pods"),
        ((200, "secret".to_owned()), "no list of pods"),
    ] {
        let answers: Answers = Arc::new(move |_, _| answer.clone());
        let kubelet = FakeKubelet::start(None, answers).await;
        let error = ask(plain(&kubelet)).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let kubelet = FakeKubelet::start(None, from(1)).await;
    let config = plain(&kubelet);
    drop(kubelet);
    let error = ask(config).await.unwrap_err();
    assert!(matches!(error, AttestError::Kubelet(_)), "{error}");
}
