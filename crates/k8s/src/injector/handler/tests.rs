use std::convert::Infallible;

use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::admission::review::Kind;

mod bypass;

/// An API server that knows the namespace `late` and no other.
fn client() -> Client {
    let service = tower::service_fn(|request: http::Request<Body>| async move {
        let is_late = request.uri().path() == "/api/v1/namespaces/late";
        let object = match is_late {
            true => {
                json!({"metadata": {"name": "late", "labels": {"signet.dev/inject": "socket"}}})
            }
            false => {
                json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "gone"})
            }
        };
        let status = if is_late { 200 } else { 404 };
        let response = http::Response::builder().status(status);
        let response = response.body(Body::from(object.to_string().into_bytes()));
        Ok::<_, Infallible>(response.expect("a response"))
    });
    Client::new(service, "default")
}

struct Scene {
    injector: Injector,
    notices: Receiver<Notice>,
    metrics: Metrics,
}

impl Scene {
    fn new(strict: bool) -> Self {
        let rules = Rules {
            strict,
            ..Rules::default()
        };
        Self::of(rules, vec![Namespace::named("shop")])
    }

    fn of(rules: Rules, namespaces: Vec<Namespace>) -> Self {
        let metrics = Metrics::with_labels("signet_injector", &[]);
        let (events, notices) = Events::queue(&metrics);
        let namespaces = Namespaces::of(namespaces, client());
        let (_, rules) = watch::channel(Arc::new(rules));
        Self {
            injector: Injector::new(rules, namespaces, events, metrics.clone()),
            notices,
            metrics,
        }
    }

    async fn ask(&self, change: impl FnOnce(&mut AdmissionRequest)) -> Result<Answer, NoAnswer> {
        let mut request = AdmissionRequest {
            uid: "u".to_owned(),
            kind: Kind {
                group: String::new(),
                version: "v1".to_owned(),
                kind: "Pod".to_owned(),
            },
            namespace: "shop".to_owned(),
            operation: "CREATE".to_owned(),
            object: Some(pod("socket")),
            ..AdmissionRequest::default()
        };
        change(&mut request);
        self.injector.handle(request).await
    }

    fn counted(&self, figure: &str) -> bool {
        let line = format!("signet_injector_{figure} 1\n");
        self.metrics.render().contains(&line)
    }
}

fn pod(mode: &str) -> Value {
    json!({
        "metadata": {
            "generateName": "web-", "labels": {"signet.dev/inject": mode},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "other", "uid": "1"},
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "2", "controller": true},
            ],
        },
        "spec": {"containers": [{"name": "app"}]},
    })
}

fn refused() -> Value {
    let mut pod = pod("socket");
    pod["spec"]["hostPID"] = json!(true);
    pod
}

/// INJ-21: updates, subresources and other kinds are let through as they are.
#[tokio::test]
async fn inj_21_only_new_pods_are_changed() {
    let scene = Scene::new(true);
    for (index, answer) in [
        scene
            .ask(|request| request.operation = "UPDATE".to_owned())
            .await,
        scene
            .ask(|request| request.sub_resource = "ephemeralcontainers".to_owned())
            .await,
        scene
            .ask(|request| request.kind.kind = "Deployment".to_owned())
            .await,
        scene
            .ask(|request| request.kind.group = "example.org".to_owned())
            .await,
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(answer, Ok(Answer::allow()), "{index}");
    }
    let without = scene
        .ask(|request| request.object = None)
        .await
        .expect("an answer");
    assert_eq!(without.denied.expect("a denial").code, 400);
    let made = scene.ask(|_| ()).await.expect("an answer");
    assert!(!made.patch.0.is_empty() && scene.counted("mutated"));
}

/// INJ-03: a warning, an Event on the controller, and a figure.
#[tokio::test]
async fn inj_03_a_refusal_is_told_to_everybody() {
    let mut scene = Scene::new(false);
    let answer = scene
        .ask(|request| request.object = Some(refused()))
        .await
        .expect("an answer");
    assert_eq!((answer.denied, answer.patch.0.len()), (None, 0));
    let [warning] = &answer.warnings[..] else {
        panic!("{:?}", answer.warnings);
    };
    assert!(warning.starts_with("signet: not injected: "), "{warning}");
    let notice = scene.notices.try_recv().expect("a notice");
    assert_eq!(notice.code, "host_pid");
    assert_eq!(notice.owner.uid.as_deref(), Some("2"));
    assert_eq!(notice.owner.namespace.as_deref(), Some("shop"));
    assert!(warning.ends_with(&notice.message), "{}", notice.message);
    assert!(scene.counted("skipped{reason=\"host_pid\"}"));
}

/// INJ-16: a dry run has no effect elsewhere.
#[tokio::test]
async fn a_dry_run_makes_no_event() {
    let mut scene = Scene::new(false);
    let answer = scene.ask(|request| {
        request.object = Some(refused());
        request.dry_run = true;
    });
    assert_eq!(answer.await.expect("an answer").warnings.len(), 1);
    assert!(scene.notices.try_recv().is_err());
}

#[tokio::test]
async fn strictly_a_refusal_is_a_denial_that_is_told_as_well() {
    let mut scene = Scene::new(true);
    let answer = scene
        .ask(|request| request.object = Some(refused()))
        .await
        .expect("an answer");
    let denial = answer.denied.expect("a denial");
    assert_eq!(denial.code, 403);
    assert!(
        denial.message.starts_with("signet: not injected: "),
        "{}",
        denial.message
    );
    assert!(scene.notices.try_recv().is_ok());
    // Who did not ask has nothing to be denied.
    let silent = json!({"metadata": {}, "spec": {"hostPID": true}});
    let answer = scene.ask(|request| request.object = Some(silent)).await;
    assert_eq!(answer, Ok(Answer::allow()));
    assert!(scene.counted("skipped{reason=\"not_asked\"}"));
}

/// A namespace that was made a moment ago counts with its labels; without its namespace no pod is let through unchanged.
#[tokio::test]
async fn a_namespace_the_watch_has_not_told_of_is_asked_for() {
    let scene = Scene::new(false);
    let silent = json!({"metadata": {}, "spec": {"containers": [{"name": "app"}]}});
    let answer = scene.ask(|request| {
        request.object = Some(silent);
        request.namespace = "late".to_owned();
    });
    assert!(!answer.await.expect("an answer").patch.0.is_empty());
    let unknown = scene
        .ask(|request| request.namespace = "nowhere".to_owned())
        .await;
    let NoAnswer(why) = unknown.expect_err("no answer");
    assert!(why.contains("namespace nowhere cannot be read"), "{why}");
}
