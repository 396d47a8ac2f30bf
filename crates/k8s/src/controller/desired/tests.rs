use serde_json::{Value as Json, json};

use super::*;
use crate::controller::crd::{ClusterSPIFFEID, ClusterStaticEntrySpec};
use crate::controller::template::{Scope, Sees, Template};

fn scope(trust_domain: &str) -> Scope {
    Scope {
        trust_domain: TrustDomain::new(trust_domain).unwrap(),
        cluster_name: "production".to_owned(),
        cluster_domain: Some("cluster.local".to_owned()),
    }
}

fn parent() -> Template {
    let text =
        "spiffe://{{ .TrustDomain }}/spire/agent/k8s_psat/{{ .ClusterName }}/{{ .NodeMeta.UID }}";
    Template::compile(text, Sees::Node).unwrap()
}

fn node() -> Node {
    Node::read(json!({ "metadata": { "name": "node-1", "uid": "node-uid", "resourceVersion": "1" }, "spec": {} })).unwrap()
}

fn pod(namespace: &str, account: &str, labels: Json) -> Pod {
    Pod::read(json!({
        "metadata": { "name": "api-server-0", "namespace": namespace, "uid": "pod-uid", "labels": labels, "managedFields": [{}] },
        "spec": { "serviceAccountName": account, "nodeName": "node-1", "containers": [{ "name": "app", "image": "myapp:1.0" }] },
        "status": { "phase": "Running" },
    }))
    .unwrap()
}

fn rule(manifest: &str, scope: &Scope) -> Rule {
    let object: ClusterSPIFFEID = serde_saphyr::from_str(manifest).unwrap();
    Rule::compile(&object.spec, scope).unwrap()
}

fn made(rule: &Rule, scope: &Scope, pod: &Pod, services: &[&str]) -> Result<Wanted, PodError> {
    render(
        rule,
        scope,
        &parent(),
        pod,
        &node(),
        &services.iter().map(|name| (*name).to_owned()).collect(),
    )
}

fn labels(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn selectors(wanted: &Wanted) -> Vec<String> {
    wanted
        .key
        .selectors
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The guides' resources as they print them.
mod guides {
    pub(super) const PRODUCTION: &str = r#"
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata:
  name: production-workloads
spec:
  spiffeIDTemplate: "spiffe://example.com/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"
  podSelector:
    matchLabels: {}
  namespaceSelector:
    matchLabels:
      spire-enabled: "true"
"#;
    pub(super) const API_SERVER: &str = r#"
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata:
  name: api-server
spec:
  # SPIFFE ID template
  spiffeIDTemplate: "spiffe://example.org/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"

  # Pod selector
  podSelector:
    matchLabels:
      spiffe.io/spire-managed-identity: "true"

  # Namespace selector
  namespaceSelector:
    matchLabels:
      spiffe.io/enabled: "true"

  # SVID TTL
  ttl: 1h

  # DNS names to include in SVID
  dnsNameTemplates:
  - "{{ .PodMeta.Name }}"
  - "{{ .PodMeta.Name }}.{{ .PodMeta.Namespace }}"
  - "{{ .PodMeta.Name }}.{{ .PodMeta.Namespace }}.svc.cluster.local"
"#;
    pub(super) const PAYMENT: &str = r#"
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata:
  name: payment-service
spec:
  spiffeIDTemplate: "spiffe://example.org/workload/payment-service"

  podSelector:
    matchLabels:
      app: payment-service

  namespaceSelector:
    matchLabels:
      environment: production

  ttl: 30m

  # Federated trust bundles
  federatesWith:
  - external-partner.org
"#;
    pub(super) const PAYMENTS_API: &str = r#"
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata:
  name: payments-api
spec:
  spiffeIDTemplate: |-
    spiffe://ai.internal/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}
  podSelector:
    matchLabels:
      app: payments-api
  workloadSelectorTemplates:
  - "k8s:ns:{{ .PodMeta.Namespace }}"
  - "k8s:sa:{{ .PodSpec.ServiceAccountName }}"
  - "k8s:pod-label:app:payments-api"
  dnsNameTemplates:
  - "payments-api.{{ .PodMeta.Namespace }}.svc"
"#;
}

#[test]
fn the_guides_pods_get_the_guides_ids() {
    let scope = scope("example.org");
    let api = rule(guides::API_SERVER, &scope);
    let pod_of_guide = pod(
        "production",
        "api-server",
        json!({ "app": "api-server", "spiffe.io/spire-managed-identity": "true" }),
    );
    assert!(
        api.takes_pod(&pod_of_guide.labels)
            && api.takes_namespace(&labels(&[("spiffe.io/enabled", "true")]))
    );
    assert!(
        !api.takes_namespace(&labels(&[])) && !api.takes_pod(&labels(&[("app", "api-server")]))
    );
    let wanted = made(&api, &scope, &pod_of_guide, &[]).unwrap();
    assert_eq!(
        wanted.key.spiffe_id.as_str(),
        "spiffe://example.org/ns/production/sa/api-server"
    );
    assert_eq!(
        wanted.key.parent_id.as_str(),
        "spiffe://example.org/spire/agent/k8s_psat/production/node-uid"
    );
    assert_eq!(selectors(&wanted), ["k8s:pod-uid:pod-uid"]);
    assert_eq!(
        wanted.dns_names,
        [
            "api-server-0",
            "api-server-0.production",
            "api-server-0.production.svc.cluster.local"
        ]
    );
    assert_eq!(wanted.x509_svid_ttl, Some(Duration::from_secs(3600)));

    let payment = rule(guides::PAYMENT, &scope);
    let wanted = made(
        &payment,
        &scope,
        &pod("production", "pay", json!({ "app": "payment-service" })),
        &[],
    )
    .unwrap();
    assert_eq!(
        wanted.key.spiffe_id.as_str(),
        "spiffe://example.org/workload/payment-service"
    );
    assert_eq!(wanted.x509_svid_ttl, Some(Duration::from_secs(1800)));
    assert_eq!(
        wanted.federates_with,
        BTreeSet::from([TrustDomain::new("external-partner.org").unwrap()])
    );
}

#[test]
fn the_other_guides_too() {
    let com = scope("example.com");
    let all = rule(guides::PRODUCTION, &com);
    assert!(all.takes_pod(&labels(&[])) && !all.takes_everything());
    assert!(
        all.takes_namespace(&labels(&[("spire-enabled", "true")]))
            && !all.takes_namespace(&labels(&[("spire-enabled", "false")]))
    );
    let wanted = made(&all, &com, &pod("production", "api-server", json!({})), &[]).unwrap();
    assert_eq!(
        wanted.key.spiffe_id.as_str(),
        "spiffe://example.com/ns/production/sa/api-server"
    );

    let internal = scope("ai.internal");
    let payments = rule(guides::PAYMENTS_API, &internal);
    let wanted = made(
        &payments,
        &internal,
        &pod("payments", "api", json!({ "app": "payments-api" })),
        &[],
    )
    .unwrap();
    assert_eq!(
        wanted.key.spiffe_id.as_str(),
        "spiffe://ai.internal/ns/payments/sa/api"
    );
    assert_eq!(
        selectors(&wanted),
        [
            "k8s:ns:payments",
            "k8s:pod-label:app:payments-api",
            "k8s:pod-uid:pod-uid",
            "k8s:sa:api"
        ]
    );
    assert_eq!(wanted.dns_names, ["payments-api.payments.svc"]);
}

#[test]
fn ctl_03_ctl_13_services_follow_the_templates_sorted_and_never_twice() {
    let scope = scope("example.org");
    let manifest =
        guides::API_SERVER.to_owned() + "  - web.production\n  autoPopulateDNSNames: true\n";
    let rule = rule(&manifest, &scope);
    let wanted = made(
        &rule,
        &scope,
        &pod("production", "a", json!({})),
        &["web", "alt"],
    )
    .unwrap();
    let expected = [
        "api-server-0",
        "api-server-0.production",
        "api-server-0.production.svc.cluster.local",
        "web.production",
        "alt",
        "alt.production",
        "alt.production.svc",
        "alt.production.svc.cluster.local",
        "web",
        "web.production.svc",
        "web.production.svc.cluster.local",
    ];
    assert_eq!(wanted.dns_names, expected);
}

fn with_template(id: &str, more: Json) -> Result<Wanted, PodError> {
    let scope = scope("example.org");
    let mut spec = json!({ "spiffeIDTemplate": id });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let spec = serde_json::from_value(spec).unwrap();
    let rule = Rule::compile(&spec, &scope).unwrap();
    made(
        &rule,
        &scope,
        &pod("shop", "buyer", json!({ "tier": "front end" })),
        &[],
    )
}

#[test]
fn ctl_13_what_makes_no_entry_says_why() {
    const GOOD: &str = "spiffe://example.org/x";
    let cases = [
        (
            "spiffe://other.org/x",
            json!({}),
            "is not in the trust domain example.org",
        ),
        (
            "{{ .PodMeta.Name }}",
            json!({}),
            "spiffeIDTemplate: \"api-server-0\"",
        ),
        (
            "spiffe://example.org/{{ .PodMeta.Labels.none }}",
            json!({}),
            "does not have a value",
        ),
        (
            "spiffe://example.org/{{ index .PodMeta.Labels \"none\" }}",
            json!({}),
            "spiffeIDTemplate",
        ),
        (
            "spiffe://example.org/{{ index .PodMeta.Labels \"tier\" }}",
            json!({}),
            "spiffeIDTemplate",
        ),
        ("spiffe://example.org/spire/server", json!({}), "reserved"),
        ("spiffe://example.org", json!({}), "has no path"),
        (
            GOOD,
            json!({ "workloadSelectorTemplates": ["{{ .PodMeta.Name }}"] }),
            "workloadSelectorTemplates: \"api-server-0\": a selector is written",
        ),
        (
            GOOD,
            json!({ "workloadSelectorTemplates": ["k8s:{{ .PodMeta.Labels.none }}"] }),
            "does not have a value",
        ),
        (
            GOOD,
            json!({ "dnsNameTemplates": ["under_score"] }),
            "dnsNameTemplates: DNS name \"under_score\"",
        ),
        (
            GOOD,
            json!({ "dnsNameTemplates": ["{{ index .PodMeta.Labels \"tier\" }}"] }),
            "dnsNameTemplates",
        ),
    ];
    for (id, more, said) in cases {
        let message = with_template(id, more).unwrap_err().to_string();
        assert!(message.contains(said), "{id}: {message}");
    }
}

#[test]
fn a_broken_resource_names_every_mistake() {
    let spec = serde_json::from_value(json!({
        "spiffeIDTemplate": "{{", "dnsNameTemplates": ["ok", "{{ .Nope }}"], "ttl": "5 minutes", "jwtTtl": "1h",
        "federatesWith": ["example.org", "Bad"], "podSelector": { "matchExpressions": [{ "key": "a", "operator": "Sometimes" }] },
        "namespaceSelector": { "matchExpressions": [{ "key": "a", "operator": "In" }] }, "hint": "h".repeat(1025),
    }));
    let problems = Rule::compile(&spec.unwrap(), &scope("example.org")).unwrap_err();
    let paths: Vec<_> = problems
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    let expected = [
        "spec.spiffeIDTemplate",
        "spec.dnsNameTemplates[1]",
        "spec.podSelector",
        "spec.namespaceSelector",
        "spec.ttl",
        "spec.federatesWith[0]",
        "spec.federatesWith[1]",
        "spec.hint",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn static_entries_are_taken_as_written() {
    let spec: ClusterStaticEntrySpec = serde_json::from_value(json!({
        "spiffeID": "spiffe://example.org/vm", "parentID": "spiffe://example.org/spire/server", "selectors": ["unix:uid:1", "unix:gid:2"],
        "x509SVIDTTL": "2h", "jwtSVIDTTL": "0", "dnsNames": ["vm"], "hint": "h", "admin": true, "downstream": true, "storeSVID": true,
    }))
    .unwrap();
    let wanted = static_entry(&spec, &scope("example.org")).unwrap();
    assert_eq!(
        (wanted.x509_svid_ttl, wanted.jwt_svid_ttl),
        (Some(Duration::from_secs(7200)), None)
    );
    assert!(wanted.admin && wanted.downstream && wanted.store_svid);
    assert_eq!(wanted.key.pods().count(), 0);
    let broken = ClusterStaticEntrySpec {
        selectors: vec!["x".to_owned()],
        parent_id: "y".to_owned(),
        ..spec
    };
    let problems = static_entry(&broken, &scope("example.org")).unwrap_err();
    assert_eq!(
        problems
            .iter()
            .map(|problem| problem.path.as_str())
            .collect::<Vec<_>>(),
        ["spec.parentID", "spec.selectors[0]"]
    );
}

#[test]
fn an_entry_comes_back_from_the_wire_the_same() {
    let wanted = with_template(
        "spiffe://example.org/x",
        json!({ "ttl": "90s", "hint": "h", "dnsNameTemplates": ["b", "a"] }),
    )
    .unwrap();
    let entry = wanted.entry(EntryId::new("east.1").unwrap());
    let wire = proto::spire::api::types::Entry::from(&entry);
    let back = Wanted::of(&proto::convert::entry(&wire).unwrap());
    assert!(back.differences(&wanted).is_empty() && back == wanted);
    assert_eq!(back.key.pods().collect::<Vec<_>>(), ["pod-uid"]);
}

#[test]
fn of_several_declarations_the_oldest_holds() {
    let source = |created: &str, deleting, uid: &str| Source {
        tenant: false,
        created: created.to_owned(),
        deleting,
        uid: uid.to_owned(),
    };
    let mut sources = [
        source("2026-01-02T00:00:00Z", false, "a"),
        source("2026-01-01T00:00:00Z", true, "a"),
        source("2026-01-01T00:00:00Z", false, "b"),
        source("2026-01-01T00:00:00Z", false, "a"),
    ];
    sources.sort();
    assert_eq!(
        sources.map(|source| (
            source.created.starts_with("2026-01-01"),
            source.deleting,
            source.uid
        )),
        [
            (true, false, "a".to_owned()),
            (true, false, "b".to_owned()),
            (true, true, "a".to_owned()),
            (false, false, "a".to_owned()),
        ]
    );
}

#[test]
fn pods_that_ended_are_known() {
    let phase = |phase: &str| {
        Pod::read(json!({ "metadata": { "name": "a", "namespace": "b", "uid": "c" }, "spec": {}, "status": { "phase": phase } })).unwrap()
    };
    assert!(phase("Succeeded").finished && phase("Failed").finished);
    assert!(!phase("Running").finished && !phase("Pending").finished);
    assert_eq!(phase("Pending").node, None);
    assert!(Pod::read(json!({ "metadata": {} })).is_none() && Node::read(json!([])).is_none());
}
