//! The controller's loop against a server in process, with events fed as watches tell them.

mod abuse;
mod figures;
mod lost_answers;
mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s::controller::config;
use k8s::controller::dry_run::{DryRun, Part};
use k8s::controller::lint::Counts;
use k8s::controller::reconcile::{Parts, Reconciler};
use k8s::controller::state::{Event, Kind, StatusUpdate};
use k8s::signet::Signet;
use runtime::{Clock, Metrics, Supervisor, Tasks};
use serde_json::{Value as Json, json};
use testkit::TestServer;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

const ID: &str = "spiffe://example.org/ns/{{ .PodMeta.Namespace }}/pod/{{ .PodMeta.Name }}";

/// A loop under test. Ends with it.
struct Loop {
    events: mpsc::Sender<Event>,
    statuses: mpsc::Receiver<StatusUpdate>,
    leads: watch::Sender<bool>,
    signet: Signet,
    metrics: Metrics,
    dry_run: Option<DryRun>,
    tasks: Tasks,
    _unwritten: mpsc::UnboundedSender<String>,
}

impl Loop {
    fn start(server: &TestServer, more: &str) -> Self {
        Self::at(
            &server.addresses().socket,
            server.id("/x").trust_domain().as_str(),
            more,
        )
    }

    fn at(socket: &std::path::Path, trust_domain: &str, more: &str) -> Self {
        let text = format!("clusterName: c\ntrustDomain: {trust_domain}\ngcInterval: 1h\n{more}");
        let (events, receiver) = mpsc::channel(1024);
        let (sender, statuses) = mpsc::channel(10_000);
        let (unwritten, failed) = mpsc::unbounded_channel();
        let (leads, leading) = watch::channel(true);
        let signet = Signet::new(socket);
        let metrics = Metrics::with_labels("test", &[]);
        let config = config::read(&text, None).expect("a config");
        let dry_run = config
            .dry_run
            .then(|| DryRun::new(&[Part::Entries], metrics.clone()));
        let parts = Parts {
            config: Arc::new(config),
            signet: signet.clone(),
            events: receiver,
            leads: Some(leading),
            statuses: sender,
            unwritten: failed,
            counts: Counts::default(),
            metrics: metrics.clone(),
            clock: Clock::system(),
            dry_run: dry_run.clone(),
        };
        let (_, tasks) = Supervisor::new();
        tasks.spawn("loop", Reconciler::new(parts, None).run(tasks.shutdown()));
        Self {
            events,
            statuses,
            leads,
            signet,
            metrics,
            dry_run,
            tasks,
            _unwritten: unwritten,
        }
    }

    async fn tell(&self, event: Event) {
        self.events.send(event).await.expect("a loop that listens");
    }

    /// Everything listed: a namespace, a node, these rules and pods.
    async fn list(&self, rules: &[Json], pods: &[Json]) {
        let namespaces = [json!({ "metadata": { "name": "shop", "labels": { "env": "prod" } } })];
        let nodes = [json!({ "metadata": { "name": "n1", "uid": "node-uid" }, "spec": {} })];
        let all: [(Kind, &[Json]); 6] = [
            (Kind::Namespace, &namespaces),
            (Kind::Node, &nodes),
            (Kind::SpiffeId, rules),
            (Kind::StaticEntry, &[]),
            (Kind::Endpoints, &[]),
            (Kind::Pod, pods),
        ];
        for (kind, objects) in all {
            self.tell(Event::Begin(kind)).await;
            for object in objects {
                self.tell(Event::Apply(kind, object.clone())).await;
            }
            self.tell(Event::End(kind)).await;
        }
    }

    /// The server's entries: path by entry ID.
    async fn entries(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut token = String::new();
        loop {
            let (page, next) = self.signet.list_entries(token).await.expect("entries");
            all.extend(
                page.into_iter()
                    .map(|entry| (entry.id, entry.spiffe_id.expect("an ID").path)),
            );
            if next.is_empty() {
                return all;
            }
            token = next;
        }
    }

    /// Waits until the server has `expected` entries.
    async fn until(&self, expected: usize) -> BTreeMap<String, String> {
        self.until_all(
            |entries| entries.len() == expected,
            &format!("{expected} entries"),
        )
        .await
    }

    async fn until_all(
        &self,
        holds: impl Fn(&BTreeMap<String, String>) -> bool,
        what: &str,
    ) -> BTreeMap<String, String> {
        let deadline = Instant::now() + Duration::from_secs(240);
        loop {
            let entries = self.entries().await;
            if holds(&entries) {
                return entries;
            }
            assert!(Instant::now() < deadline, "no {what} but {}", entries.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The next status for which `holds`.
    async fn status(&mut self, holds: impl Fn(&Json) -> bool) -> Json {
        let next = async {
            loop {
                let update = self.statuses.recv().await.expect("a loop that tells");
                if holds(&update.status) {
                    return update.status;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next)
            .await
            .expect("a status")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

fn pod(name: &str) -> Json {
    json!({
        "metadata": { "name": name, "uid": name, "namespace": "shop", "labels": { "app": "web" } },
        "spec": { "nodeName": "n1", "serviceAccountName": "sa" }, "status": { "phase": "Running" },
    })
}

fn rule(generation: i64, template: &str) -> Json {
    json!({ "metadata": { "name": "r", "uid": "r", "generation": generation, "creationTimestamp": "2026-01-01T00:00:00Z" }, "spec": { "spiffeIDTemplate": template } })
}

fn pods(count: usize) -> Vec<Json> {
    (0..count).map(|n| pod(&format!("p{n}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_become_entries_and_go_with_them() {
    let server = TestServer::start().await;
    let mut controller = Loop::start(&server, "");
    controller.list(&[rule(1, ID)], &pods(3)).await;
    let entries = controller.until(3).await;
    assert!(entries.keys().all(|id| id.starts_with("c.")));
    assert_eq!(entries.values().collect::<Vec<_>>().len(), 3);
    let status = controller
        .status(|status| status["conditions"][0]["status"] == "True")
        .await;
    assert_eq!(status["stats"]["entriesToSet"], 3);
    controller.tell(Event::Delete(Kind::Pod, pod("p1"))).await;
    let left = controller.until(2).await;
    assert!(!left.values().any(|path| path.ends_with("p1")));
    // A broken template changes nothing, and says so.
    controller
        .tell(Event::Apply(Kind::SpiffeId, rule(2, "{{ .Nope }}")))
        .await;
    let status = controller
        .status(|status| status["conditions"][1]["status"] == "True")
        .await;
    assert_eq!(status["conditions"][1]["reason"], "Invalid");
    assert_eq!(controller.entries().await, left);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_told_and_tried_again() {
    let server = TestServer::start().await;
    let mut controller = Loop::start(&server, "");
    let mut federating = rule(1, ID);
    federating["spec"]["federatesWith"] = json!(["other.example"]);
    controller.list(&[federating], &pods(1)).await;
    let status = controller
        .status(|status| status["conditions"][1]["status"] == "True")
        .await;
    assert_eq!(
        (
            &status["conditions"][1]["reason"],
            &status["stats"]["entryFailures"]
        ),
        (&json!("Refused"), &json!(1))
    );
    assert!(controller.entries().await.is_empty());
    controller
        .tell(Event::Apply(Kind::SpiffeId, rule(2, ID)))
        .await;
    controller.until(1).await;
}

/// CTL-15: a dry run says what would be written, and writes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn ctl_15_a_dry_run_writes_nothing() {
    let server = TestServer::start().await;
    let controller = Loop::start(&server, "");
    controller.list(&[rule(1, ID)], &pods(2)).await;
    let before = controller.until(2).await;
    drop(controller);
    let mut dry = Loop::start(&server, "signet: {dryRun: true}\n");
    // One pod has gone, one has come, and the other's entry is to say something else.
    let mut changed = rule(2, ID);
    changed["spec"]["ttl"] = json!("5m");
    dry.list(&[changed], &[pod("p1"), pod("p2")]).await;
    let dry_run = dry.dry_run.clone().expect("a dry run");
    let report = dry_run.report(Duration::from_secs(30)).await;
    let report = report.expect("a report");
    println!("{report}");
    for expected in [
        "entries: 1 to create, 1 to update, 1 to delete, 0 to leave alone; 2 declared",
        "differs in X.509-SVID TTL; declared by ClusterSPIFFEID r",
        "its pod is gone",
    ] {
        assert!(
            report.contains(expected),
            "{expected:?} is not in\n{report}"
        );
    }
    let figures = dry.metrics.render();
    let planned = "test_planned_changes{of=\"entries\",action=\"create\"} 1";
    assert!(figures.contains(planned), "{figures}");
    assert_eq!(dry.entries().await, before);
    assert!(dry.statuses.try_recv().is_err(), "no status either");
}

/// Without the lease nothing is written; with it, the server is looked at before anything is.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_writes() {
    let server = TestServer::start().await;
    let first = Loop::start(&server, "");
    let second = Loop::start(&server, "");
    second.leads.send_replace(false);
    second.list(&[rule(1, ID)], &pods(2)).await;
    first.list(&[rule(1, ID)], &pods(2)).await;
    let entries = first.until(2).await;
    first.leads.send_replace(false);
    // The first one is dead; what it would have deleted, the second one does.
    second.tell(Event::Delete(Kind::Pod, pod("p0"))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(second.entries().await, entries, "nobody leads");
    second.leads.send_replace(true);
    let left = second.until(1).await;
    assert!(
        entries.contains_key(left.keys().next().unwrap()),
        "the entry itself stays"
    );
}
