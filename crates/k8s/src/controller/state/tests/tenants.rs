//! CTL-15: WorkloadSPIFFEIDs.

use super::*;

const TENANTS: &str = "signet: {tenants: [{namespaceSelector: {matchLabels: {env: prod}}, pathPrefix: '/ns/{namespace}', maxTtl: 1h}]}\n";

/// The namespace `shop` is a tenant, `other` is none; each has a pod.
fn house() -> State {
    let mut state = ready(TENANTS);
    state.take(Event::Begin(Kind::WorkloadSpiffeId), now());
    state.take(Event::End(Kind::WorkloadSpiffeId), now());
    let other = json!({ "metadata": { "name": "other", "labels": { "env": "test" } } });
    state.take(Event::Apply(Kind::Namespace, other), now());
    for (uid, namespace) in [("p1", "shop"), ("p2", "other")] {
        let pod = pod(uid, namespace, Some("n1"), &json!({ "app": uid }));
        state.take(Event::Apply(Kind::Pod, pod), now());
    }
    state
}

fn apply(state: &mut State, uid: &str, namespace: &str, generation: i64, template: &str) {
    let mut object = rule(uid, generation, json!({ "spiffeIDTemplate": template }));
    object["metadata"]["namespace"] = json!(namespace);
    state.take(Event::Apply(Kind::WorkloadSpiffeId, object), now());
}

fn cluster(state: &mut State, uid: &str, generation: i64, spec: Json) {
    state.take(
        Event::Apply(Kind::SpiffeId, rule(uid, generation, spec)),
        now(),
    );
}

fn reason(state: &mut State, name: &str) -> Json {
    status(state, name)["conditions"][0]["reason"].clone()
}

#[test]
fn ctl_15_a_tenant_registers_its_own_pods_within_its_bounds() {
    let mut state = house();
    apply(&mut state, "t", "shop", 1, ID);
    let (writes, _) = settle(&mut state);
    assert_eq!(writes, 1, "none of the other namespace");
    let told = status(&mut state, "t");
    assert_eq!(told["conditions"][0]["reason"], "Registered");
    assert_eq!(told["stats"]["podsSelected"], 1);
    assert!(told["stats"]["namespacesSelected"].is_null());
    let update = state.statuses("t");
    assert!(update.is_empty(), "told once");
}

#[test]
fn ctl_15_a_namespace_without_a_policy_has_nothing_and_hears_why() {
    let mut state = house();
    apply(&mut state, "t", "other", 1, ID);
    assert_eq!(settle(&mut state).0, 0);
    let told = status(&mut state, "t");
    assert_eq!(told["conditions"][0]["reason"], "NotAllowed");
    assert_eq!(told["stats"]["podsRefused"], 1);
    // Nor does the default mean nobody without any policy at all.
    let mut plain = ready("");
    apply(&mut plain, "t", "shop", 1, ID);
    let pod = pod("p1", "shop", Some("n1"), &json!({}));
    plain.take(Event::Apply(Kind::Pod, pod), now());
    assert_eq!(settle(&mut plain).0, 0);
}

#[test]
fn ctl_15_what_is_not_allowed_is_taken_back_and_the_fallback_stays() {
    let mut state = house();
    let fallback = json!({ "spiffeIDTemplate": "spiffe://example.org/default/{{ .PodMeta.Name }}", "fallback": true });
    cluster(&mut state, "default", 1, fallback);
    apply(&mut state, "t", "shop", 1, ID);
    settle(&mut state);
    apply(&mut state, "t", "shop", 2, "spiffe://example.org/admin");
    let (writes, deleted) = settle(&mut state);
    assert_eq!((writes, deleted), (1, vec!["/ns/shop/p1".to_owned()]));
    assert_eq!(reason(&mut state, "t"), "NotAllowed");
}

/// Nothing that a tenant breaks keeps alive what the operator takes back.
#[test]
fn ctl_15_a_broken_tenant_freezes_its_own_entries_alone() {
    let mut state = house();
    let payments = json!({ "spiffeIDTemplate": "spiffe://example.org/payments", "podSelector": { "matchLabels": { "app": "p1" } } });
    cluster(&mut state, "r", 1, payments.clone());
    apply(&mut state, "t", "shop", 1, ID);
    assert_eq!(settle(&mut state).0, 2);
    apply(&mut state, "t", "shop", 2, "{{ .Nope");
    let gone = rule("r", 1, payments);
    state.take(Event::Delete(Kind::SpiffeId, gone), now());
    assert_eq!(settle(&mut state).1, ["/payments"]);
    assert_eq!(reason(&mut state, "t"), "Invalid");
    assert_eq!(state.ledger.owned(), 1, "its own is kept");
}

/// An older resource of a tenant's does not stand for the cluster's.
#[test]
fn ctl_15_the_clusters_resource_holds() {
    let mut state = house();
    apply(&mut state, "a-older", "shop", 1, ID);
    settle(&mut state);
    let spec = json!({ "spiffeIDTemplate": ID, "ttl": "5m" });
    cluster(&mut state, "z-younger", 1, spec);
    assert_eq!(settle(&mut state).0, 2, "an update, and the other pod's");
    assert_eq!(status(&mut state, "a-older")["stats"]["entriesMasked"], 1);
}
