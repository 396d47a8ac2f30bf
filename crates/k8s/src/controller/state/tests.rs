use std::time::Duration;

use serde_json::json;

use super::*;
use crate::controller::config;
use crate::controller::plan::Writes;

fn state(more: &str) -> State {
    let text = format!("clusterName: c\ntrustDomain: example.org\n{more}");
    State::new(Arc::new(config::read(&text, None).unwrap()))
}

fn now() -> Instant {
    Instant::now()
}

fn pod(uid: &str, namespace: &str, node: Option<&str>, labels: &Json) -> Json {
    json!({ "metadata": { "name": uid, "uid": uid, "namespace": namespace, "labels": labels }, "spec": { "nodeName": node, "serviceAccountName": "sa" }, "status": { "phase": "Running" } })
}

fn rule(uid: &str, generation: i64, spec: Json) -> Json {
    json!({ "metadata": { "name": uid, "uid": uid, "generation": generation, "creationTimestamp": "2026-01-01T00:00:00Z" }, "spec": spec })
}

const ID: &str = "spiffe://example.org/ns/{{ .PodMeta.Namespace }}/{{ .PodMeta.Name }}";

mod tenants;

/// A cluster with one namespace, one node, everything listed.
fn ready(more: &str) -> State {
    let mut state = state(more);
    for kind in [
        Kind::Pod,
        Kind::Node,
        Kind::Namespace,
        Kind::Endpoints,
        Kind::SpiffeId,
        Kind::StaticEntry,
    ] {
        state.take(Event::Begin(kind), now());
        if kind == Kind::Namespace {
            state.take(
                Event::Apply(
                    kind,
                    json!({ "metadata": { "name": "shop", "labels": { "env": "prod" } } }),
                ),
                now(),
            );
            state.take(
                Event::Apply(kind, json!({ "metadata": { "name": "kube-system" } })),
                now(),
            );
        }
        if kind == Kind::Node {
            state.take(
                Event::Apply(
                    kind,
                    json!({ "metadata": { "name": "n1", "uid": "node-uid" }, "spec": {} }),
                ),
                now(),
            );
        }
        state.take(Event::End(kind), now());
    }
    state
}

/// Works until nothing is left, with a server that takes everything.
fn settle(state: &mut State) -> (usize, Vec<String>) {
    let (mut writes, mut deleted) = (0, Vec::new());
    for _ in 0..20 {
        while state.work(now()) {}
        let Writes { create, update } = state.ledger.writes(1000);
        for entry in create.iter().chain(&update) {
            writes += 1;
            state.written(entry, Written::Done, now());
        }
        for (id, key) in state.deletes(1000) {
            deleted.push(key.spiffe_id.path().to_owned());
            state.ledger.deleted(&id, true);
        }
    }
    (writes, deleted)
}

fn status(state: &mut State, name: &str) -> Json {
    state.touched.insert(name.to_owned());
    if let Some(record) = state.rules.get_mut(name) {
        record.head.status = Json::Null;
    }
    state
        .statuses("2026-01-01T00:00:00Z")
        .into_iter()
        .find(|update| update.name == name)
        .unwrap()
        .status
}

#[test]
fn ctl_14_a_pod_is_registered_from_its_node_until_it_ends_or_is_gone() {
    let mut state = ready("");
    state.take(
        Event::Apply(
            Kind::SpiffeId,
            rule("r", 1, json!({ "spiffeIDTemplate": ID })),
        ),
        now(),
    );
    state.take(
        Event::Apply(Kind::Pod, pod("p1", "shop", None, &json!({}))),
        now(),
    );
    assert_eq!(settle(&mut state), (0, vec![]));
    assert_eq!(
        status(&mut state, "r")["stats"]["podEntryRenderFailures"],
        0,
        "no node is no failure"
    );
    state.take(
        Event::Apply(Kind::Pod, pod("p1", "shop", Some("n1"), &json!({}))),
        now(),
    );
    assert_eq!(settle(&mut state).0, 1);
    let status = status(&mut state, "r");
    assert_eq!(status["stats"]["entriesToSet"], 1);
    assert_eq!(
        (
            &status["conditions"][0]["status"],
            &status["conditions"][0]["reason"]
        ),
        (&json!("True"), &json!("Registered"))
    );
    // It is being deleted, and still runs.
    let mut ending = pod("p1", "shop", Some("n1"), &json!({}));
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
    state.take(Event::Apply(Kind::Pod, ending.clone()), now());
    assert_eq!(settle(&mut state), (0, vec![]));
    state.take(Event::Delete(Kind::Pod, ending), now());
    assert_eq!(settle(&mut state), (0, vec!["/ns/shop/p1".to_owned()]));
    // It ended: the entry goes, whether or not the pod is still shown. A kubelet evicts by the phase Failed.
    for phase in ["Succeeded", "Failed"] {
        let mut pod = pod(phase, "shop", Some("n1"), &json!({}));
        state.take(Event::Apply(Kind::Pod, pod.clone()), now());
        assert_eq!(settle(&mut state).0, 1);
        pod["status"] = json!({ "phase": phase, "reason": "Evicted" });
        state.take(Event::Apply(Kind::Pod, pod), now());
        assert_eq!(settle(&mut state), (0, vec![format!("/ns/shop/{phase}")]));
    }
}

#[test]
fn ctl_06_one_pods_event_is_work_for_that_pod() {
    let mut state = ready("");
    state.take(
        Event::Apply(
            Kind::SpiffeId,
            rule("r", 1, json!({ "spiffeIDTemplate": ID })),
        ),
        now(),
    );
    for n in 0..100 {
        state.take(
            Event::Apply(
                Kind::Pod,
                pod(&format!("p{n}"), "shop", Some("n1"), &json!({})),
            ),
            now(),
        );
    }
    assert_eq!(settle(&mut state).0, 100);
    state.take(
        Event::Apply(
            Kind::Pod,
            pod("p5", "shop", Some("n1"), &json!({ "a": "b" })),
        ),
        now(),
    );
    assert_eq!(state.backlog(), 1);
    assert_eq!(settle(&mut state).0, 0, "the entry is the same");
    // A status of the resource is no work at all, nor is an event that says nothing new.
    let mut same = rule("r", 1, json!({ "spiffeIDTemplate": ID }));
    same["status"] = json!({ "stats": {} });
    state.take(Event::Apply(Kind::SpiffeId, same), now());
    state.take(
        Event::Apply(
            Kind::Pod,
            pod("p5", "shop", Some("n1"), &json!({ "a": "b" })),
        ),
        now(),
    );
    assert_eq!(state.backlog(), 0);
    state.take(
        Event::Apply(
            Kind::SpiffeId,
            rule("r", 2, json!({ "spiffeIDTemplate": ID, "hint": "h" })),
        ),
        now(),
    );
    assert_eq!((state.backlog(), settle(&mut state).0), (100, 100));
}

#[test]
fn ctl_09_a_broken_template_keeps_what_there_is() {
    let mut state = ready("");
    let spec = |template: &str| json!({ "spiffeIDTemplate": template, "podSelector": { "matchLabels": { "app": "web" } } });
    state.take(Event::Apply(Kind::SpiffeId, rule("r", 1, spec(ID))), now());
    state.take(
        Event::Apply(
            Kind::Pod,
            pod("p1", "shop", Some("n1"), &json!({ "app": "web" })),
        ),
        now(),
    );
    state.take(
        Event::Apply(
            Kind::Pod,
            pod("p2", "shop", Some("n1"), &json!({ "app": "web" })),
        ),
        now(),
    );
    assert_eq!(settle(&mut state).0, 2);
    state.take(
        Event::Apply(Kind::SpiffeId, rule("r", 2, spec("{{ .Nope }}"))),
        now(),
    );
    assert_eq!(settle(&mut state), (0, vec![]));
    let broken = status(&mut state, "r");
    assert_eq!(
        (
            &broken["conditions"][1]["type"],
            &broken["conditions"][1]["status"]
        ),
        (&json!("Degraded"), &json!("True"))
    );
    assert!(
        broken["conditions"][1]["message"]
            .as_str()
            .unwrap()
            .contains("spec.spiffeIDTemplate")
    );
    // A pod that goes takes its entry with it nevertheless.
    state.take(
        Event::Delete(Kind::Pod, pod("p2", "shop", Some("n1"), &json!({}))),
        now(),
    );
    assert_eq!(settle(&mut state), (0, vec!["/ns/shop/p2".to_owned()]));
    // Repaired with another ID: the new one, then the old one goes.
    state.take(
        Event::Apply(
            Kind::SpiffeId,
            rule("r", 3, spec("spiffe://example.org/new")),
        ),
        now(),
    );
    assert_eq!(settle(&mut state), (1, vec!["/ns/shop/p1".to_owned()]));
}

#[test]
fn a_template_that_fails_for_one_pod_keeps_that_pods_entry() {
    let mut state = ready("");
    let by_label =
        json!({ "spiffeIDTemplate": "spiffe://example.org/{{ index .PodMeta.Labels \"app\" }}" });
    state.take(Event::Apply(Kind::SpiffeId, rule("r", 1, by_label)), now());
    state.take(
        Event::Apply(
            Kind::Pod,
            pod("p1", "shop", Some("n1"), &json!({ "app": "web" })),
        ),
        now(),
    );
    settle(&mut state);
    state.take(
        Event::Apply(Kind::Pod, pod("p1", "shop", Some("n1"), &json!({}))),
        now(),
    );
    assert_eq!(settle(&mut state), (0, vec![]));
    let failed = status(&mut state, "r");
    assert_eq!(failed["stats"]["podEntryRenderFailures"], 1);
    assert_eq!(failed["conditions"][0]["reason"], "RenderFailed");
}

#[test]
fn nothing_is_deleted_before_everything_is_listed() {
    let mut state = state("");
    let left_over = {
        let mut other = ready("");
        other.take(
            Event::Apply(
                Kind::SpiffeId,
                rule("r", 1, json!({ "spiffeIDTemplate": ID })),
            ),
            now(),
        );
        other.take(
            Event::Apply(Kind::Pod, pod("p1", "shop", Some("n1"), &json!({}))),
            now(),
        );
        while other.work(now()) {}
        other.ledger.writes(10).create
    };
    state.ledger.begin_listing();
    state.ledger.list_page(&left_over);
    state.ledger.end_listing();
    assert_eq!(settle(&mut state), (0, vec![]));
    for kind in state.missing().clone() {
        assert_eq!(settle(&mut state), (0, vec![]), "{kind:?} is missing");
        state.take(Event::Begin(kind), now());
        state.take(Event::End(kind), now());
    }
    assert_eq!(settle(&mut state).1, ["/ns/shop/p1"]);
}

#[test]
fn ctl_03_namespaces_select_and_are_ignored() {
    let mut state = ready("ignoreNamespaces: [system]\n");
    let prod = json!({ "spiffeIDTemplate": ID, "namespaceSelector": { "matchLabels": { "env": "prod" } } });
    state.take(Event::Apply(Kind::SpiffeId, rule("r", 1, prod)), now());
    state.take(
        Event::Apply(Kind::Pod, pod("p1", "shop", Some("n1"), &json!({}))),
        now(),
    );
    state.take(
        Event::Apply(Kind::Pod, pod("p2", "kube-system", Some("n1"), &json!({}))),
        now(),
    );
    assert_eq!(settle(&mut state).0, 1);
    let system = json!({ "metadata": { "name": "kube-system", "labels": { "env": "prod" } } });
    state.take(Event::Apply(Kind::Namespace, system), now());
    assert_eq!(settle(&mut state).0, 0, "ignored, whatever its labels");
    let stats = &status(&mut state, "r")["stats"];
    assert_eq!(
        (
            &stats["namespacesSelected"],
            &stats["namespacesIgnored"],
            &stats["podsSelected"]
        ),
        (&json!(2), &json!(1), &json!(1))
    );
    state.take(
        Event::Apply(
            Kind::Namespace,
            json!({ "metadata": { "name": "shop", "labels": {} } }),
        ),
        now(),
    );
    assert_eq!(settle(&mut state).1, ["/ns/shop/p1"]);
}

#[test]
fn a_node_that_is_not_known_is_waited_for() {
    let mut state = ready("");
    state.take(
        Event::Apply(
            Kind::SpiffeId,
            rule("r", 1, json!({ "spiffeIDTemplate": ID })),
        ),
        now(),
    );
    state.take(
        Event::Apply(Kind::Pod, pod("p1", "shop", Some("n2"), &json!({}))),
        now(),
    );
    assert_eq!(settle(&mut state).0, 0);
    assert_eq!(
        status(&mut state, "r")["stats"]["podEntryRenderFailures"],
        1
    );
    state.take(
        Event::Apply(
            Kind::Node,
            json!({ "metadata": { "name": "n2", "uid": "u2" } }),
        ),
        now(),
    );
    assert_eq!(settle(&mut state).0, 1);
    // The node object goes first when a node dies: the pods' entries stay until the pods go.
    state.take(
        Event::Delete(Kind::Node, json!({ "metadata": { "name": "n2" } })),
        now(),
    );
    assert_eq!(settle(&mut state), (0, vec![]));
}

#[test]
fn ctl_03_fallbacks_are_for_pods_without_another_entry() {
    let mut state = ready("");
    let web = json!({ "spiffeIDTemplate": ID, "podSelector": { "matchLabels": { "app": "web" } } });
    let fallback = json!({ "spiffeIDTemplate": "spiffe://example.org/fallback/{{ .PodMeta.Name }}", "fallback": true });
    state.take(
        Event::Apply(Kind::SpiffeId, rule("a-fallback", 1, fallback)),
        now(),
    );
    state.take(Event::Apply(Kind::SpiffeId, rule("web", 1, web)), now());
    state.take(
        Event::Apply(
            Kind::Pod,
            pod("p1", "shop", Some("n1"), &json!({ "app": "web" })),
        ),
        now(),
    );
    state.take(
        Event::Apply(Kind::Pod, pod("p2", "shop", Some("n1"), &json!({}))),
        now(),
    );
    assert_eq!(settle(&mut state).0, 2);
    assert_eq!(status(&mut state, "a-fallback")["stats"]["entriesToSet"], 1);
    state.take(
        Event::Delete(Kind::SpiffeId, rule("web", 1, json!({}))),
        now(),
    );
    let (writes, deleted) = settle(&mut state);
    assert_eq!(
        (writes, deleted),
        (1, vec!["/ns/shop/p1".to_owned()]),
        "the fallback steps in"
    );
}

#[test]
fn ctl_03_the_older_of_two_declarations_masks_the_other() {
    let mut state = ready("");
    let spec = json!({ "spiffeIDTemplate": ID });
    let mut younger = rule("younger", 1, spec.clone());
    younger["metadata"]["creationTimestamp"] = json!("2026-02-01T00:00:00Z");
    younger["spec"]["hint"] = json!("younger");
    state.take(Event::Apply(Kind::SpiffeId, younger), now());
    state.take(Event::Apply(Kind::SpiffeId, rule("older", 1, spec)), now());
    state.take(
        Event::Apply(Kind::Pod, pod("p1", "shop", Some("n1"), &json!({}))),
        now(),
    );
    assert_eq!(settle(&mut state).0, 1);
    assert_eq!(status(&mut state, "younger")["stats"]["entriesMasked"], 1);
    assert_eq!(status(&mut state, "older")["stats"]["entriesToSet"], 1);
    state.take(
        Event::Delete(Kind::SpiffeId, rule("older", 1, json!({}))),
        now(),
    );
    assert_eq!(settle(&mut state), (1, vec![]), "taken over in place");
}

#[test]
fn services_give_names_and_static_entries_come_and_go() {
    let mut state = ready("");
    state.take(
        Event::Apply(
            Kind::SpiffeId,
            rule(
                "r",
                1,
                json!({ "spiffeIDTemplate": ID, "autoPopulateDNSNames": true }),
            ),
        ),
        now(),
    );
    state.take(
        Event::Apply(Kind::Pod, pod("p1", "shop", Some("n1"), &json!({}))),
        now(),
    );
    settle(&mut state);
    let slice = json!({ "metadata": { "namespace": "shop", "name": "web-x", "labels": { "kubernetes.io/service-name": "web" } },
        "endpoints": [{ "targetRef": { "kind": "Pod", "uid": "p1" } }] });
    state.take(Event::Apply(Kind::Endpoints, slice), now());
    while state.work(now()) {}
    let update = state.ledger.writes(10).update;
    assert_eq!(update[0].dns_names, ["web", "web.shop", "web.shop.svc"]);
    state.written(&update[0], Written::Done, now());
    let spec = json!({ "spiffeID": "spiffe://example.org/vm", "parentID": "spiffe://example.org/spire/server", "selectors": ["unix:uid:1"] });
    state.take(
        Event::Apply(Kind::StaticEntry, rule("s", 1, spec.clone())),
        now(),
    );
    assert_eq!(settle(&mut state).0, 1);
    let set = status_of_static(&mut state);
    assert_eq!(
        (&set["rendered"], &set["masked"], &set["set"]),
        (&json!(true), &json!(false), &json!(true))
    );
    // Broken: it stays. Another controller's: it goes.
    let mut broken = spec.clone();
    broken["spiffeID"] = json!("nothing");
    state.take(Event::Apply(Kind::StaticEntry, rule("s", 2, broken)), now());
    assert_eq!(settle(&mut state), (0, vec![]));
    let mut other = spec;
    other["className"] = json!("other");
    state.take(Event::Apply(Kind::StaticEntry, rule("s", 3, other)), now());
    assert_eq!(settle(&mut state).1, ["/vm"]);
}

fn status_of_static(state: &mut State) -> Json {
    state.status_failed("s");
    state
        .statuses("2026-01-01T00:00:00Z")
        .into_iter()
        .find(|update| update.name == "s")
        .unwrap()
        .status
}

#[test]
fn ctl_11_conditions_keep_their_times_and_tell_news_once() {
    let ready = Conditions {
        ready: true,
        degraded: false,
        reason: "Registered",
        message: String::new(),
    };
    let first = json!({ "conditions": ready.render(&Json::Null, 1, "2026-01-01T00:00:00Z") });
    let second = ready.render(&first, 2, "2026-01-02T00:00:00Z");
    assert_eq!(second[0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    assert_eq!(
        (ready.event(&Json::Null).is_some(), ready.event(&first)),
        (true, None)
    );
    let broken = Conditions::invalid(&[]);
    assert_eq!(
        broken.render(&first, 2, "2026-01-02T00:00:00Z")[1]["lastTransitionTime"],
        "2026-01-02T00:00:00Z"
    );
    assert!(broken.event(&first).unwrap().0);
}

/// K5, as far as it needs no cluster: 5 000 pods, then the same list again as after a broken watch.
#[test]
fn five_thousand_pods_are_quick_and_a_second_list_changes_nothing() {
    let mut state = ready("");
    state.take(
        Event::Apply(
            Kind::SpiffeId,
            rule(
                "r",
                1,
                json!({ "spiffeIDTemplate": ID, "dnsNameTemplates": ["{{ .PodMeta.Name }}.shop"] }),
            ),
        ),
        now(),
    );
    let started = Instant::now();
    for n in 0..5000 {
        state.take(
            Event::Apply(
                Kind::Pod,
                pod(
                    &format!("p{n}"),
                    "shop",
                    Some("n1"),
                    &json!({ "app": "web" }),
                ),
            ),
            now(),
        );
    }
    assert_eq!(settle(&mut state).0, 5000);
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
    state.take(Event::Begin(Kind::Pod), now());
    for n in 0..4999 {
        state.take(
            Event::Apply(
                Kind::Pod,
                pod(
                    &format!("p{n}"),
                    "shop",
                    Some("n1"),
                    &json!({ "app": "web" }),
                ),
            ),
            now(),
        );
    }
    assert_eq!(state.backlog(), 0);
    state.take(Event::End(Kind::Pod), now());
    assert_eq!(settle(&mut state), (0, vec!["/ns/shop/p4999".to_owned()]));
}
