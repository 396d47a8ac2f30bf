use serde_json::json;

use super::*;

fn scope() -> Scope {
    Scope {
        trust_domain: TrustDomain::new("example.org").unwrap(),
        cluster_name: "c".to_owned(),
        cluster_domain: None,
    }
}

fn spiffe_id(spec: Json) -> Result<Warnings, Vec<Problem>> {
    cluster_spiffe_id(&json!({ "spec": spec }), &scope())
}

#[test]
fn a_good_one_passes_without_a_word() {
    let spec = json!({ "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}", "podSelector": { "matchLabels": { "a": "b" } } });
    assert_eq!(spiffe_id(spec), Ok(vec![]));
    let by_label = json!({ "spiffeIDTemplate": "spiffe://example.org/{{ index .PodMeta.Labels \"a\" }}", "podSelector": { "matchLabels": { "a": "b" } } });
    assert_eq!(
        spiffe_id(by_label),
        Ok(vec![]),
        "the sample has the labels that are selected"
    );
}

#[test]
fn what_may_not_be_meant_is_warned_of() {
    let warnings = spiffe_id(json!({ "spiffeIDTemplate": "spiffe://example.org/{{ index .PodMeta.Labels \"x\" }}", "admin": true })).unwrap();
    assert_eq!(warnings.len(), 3);
    assert!(
        warnings[0].contains("every pod of the cluster")
            && warnings[1].contains("admin")
            && warnings[2].contains("made-up pod")
    );
}

#[test]
fn what_cannot_work_is_refused() {
    let refused = |spec: Json, path: &str| {
        let problems = spiffe_id(spec).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.path == path),
            "{problems:?}"
        );
    };
    refused(json!({}), "spec");
    refused(json!({ "spiffeIDTemplate": 5 }), "spec");
    refused(
        json!({ "spiffeIDTemplate": "{{ .PodMeta.Nam }}" }),
        "spec.spiffeIDTemplate",
    );
    refused(
        json!({ "spiffeIDTemplate": "spiffe://other.org/x" }),
        "spec.spiffeIDTemplate",
    );
    refused(
        json!({ "spiffeIDTemplate": "https://example.org/x" }),
        "spec.spiffeIDTemplate",
    );
    refused(
        json!({ "spiffeIDTemplate": "{{ range 99999999 }}{{ end }}{{ define \"a\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}" }),
        "spec.spiffeIDTemplate",
    );
    assert!(cluster_spiffe_id(&json!("text"), &scope()).is_err());
}

#[test]
fn static_entries() {
    let object = |id: &str| json!({ "spec": { "spiffeID": id, "parentID": "spiffe://example.org/agent", "selectors": ["unix:uid:0"] } });
    assert_eq!(
        cluster_static_entry(&object("spiffe://example.org/a"), &scope()),
        Ok(vec![])
    );
    let problems = cluster_static_entry(&object("spiffe://elsewhere/a"), &scope()).unwrap_err();
    assert_eq!(problems[0].path, "spec.spiffeID");
    assert!(problems[0].message.contains("not in the trust domain"));
    assert!(cluster_static_entry(&json!({ "spec": {} }), &scope()).is_err());
}

fn federated(profile: Json, url: &str) -> Result<Warnings, Vec<Problem>> {
    let spec = json!({ "trustDomain": "staging.ai.internal", "bundleEndpointURL": url, "bundleEndpointProfile": profile });
    cluster_federated_trust_domain(&json!({ "spec": spec }), &scope())
}

#[test]
fn federated_trust_domains() {
    let spiffe = json!({ "type": "https_spiffe", "endpointSPIFFEID": "spiffe://staging.ai.internal/spire/server" });
    let url = "https://spire-server.staging.ai.internal/bundle";
    assert!(federated(spiffe.clone(), url).unwrap()[0].contains("first bundle"));
    assert_eq!(federated(json!({ "type": "https_web" }), url), Ok(vec![]));
    let path = |profile: Json, url: &str| federated(profile, url).unwrap_err()[0].path.clone();
    assert_eq!(path(spiffe.clone(), "http://x"), "spec.bundleEndpointURL");
    assert_eq!(
        path(spiffe.clone(), "https://user:pw@x"),
        "spec.bundleEndpointURL"
    );
    assert_eq!(path(spiffe, "x y"), "spec.bundleEndpointURL");
    assert_eq!(
        path(json!({ "type": "https_spiffe" }), url),
        "spec.bundleEndpointProfile.endpointSPIFFEID"
    );
    assert_eq!(
        path(
            json!({ "type": "https_web", "endpointSPIFFEID": "spiffe://a/b" }),
            url
        ),
        "spec.bundleEndpointProfile.endpointSPIFFEID"
    );
    assert_eq!(
        path(json!({ "type": "http" }), url),
        "spec.bundleEndpointProfile.type"
    );
    let own = json!({ "spec": { "trustDomain": "example.org", "bundleEndpointURL": url, "bundleEndpointProfile": { "type": "https_web" }, "trustDomainBundle": "{" } });
    let paths: Vec<_> = cluster_federated_trust_domain(&own, &scope())
        .unwrap_err()
        .into_iter()
        .map(|problem| problem.path)
        .collect();
    assert_eq!(paths, ["spec.trustDomain", "spec.trustDomainBundle"]);
}
