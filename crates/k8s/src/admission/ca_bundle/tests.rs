use std::time::{Duration, UNIX_EPOCH};

use identity::{SpiffeId, TrustDomain, X509Authority};

use super::*;

fn roots(count: usize) -> Roots {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut bundle = identity::Bundle::empty(TrustDomain::new("example.org").unwrap());
    let id = SpiffeId::parse("spiffe://example.org/ca").unwrap();
    let authority = || X509Authority::new(testkit::forge(&id, now).leaf().clone());
    bundle.x509_authorities = (0..count).map(|_| authority()).collect();
    Roots::of(&bundle)
}

fn hosts() -> Vec<String> {
    vec!["injector.spire.svc".to_owned()]
}

fn webhook(name: &str, service: &str, ca_bundle: Option<&str>) -> Value {
    let service = json!({"name": service, "namespace": "spire", "path": "/mutate-pods"});
    let mut client_config = json!({ "service": service });
    if let Some(ca_bundle) = ca_bundle {
        client_config["caBundle"] = ca_bundle.into();
    }
    json!({"name": name, "clientConfig": client_config, "sideEffects": "None"})
}

fn check(webhooks: Vec<Value>, wanted: &Roots, expected: State) {
    let object = json!({ "webhooks": webhooks });
    assert_eq!(state(&object, &hosts(), wanted), expected);
}

#[test]
fn inj_15_what_is_wrong_with_a_ca_bundle_is_seen() {
    let (wanted, other) = (roots(2), roots(1));
    let text = wanted.to_ca_bundle();
    let more = wanted.and(&other).to_ca_bundle();
    check(
        vec![webhook("a", "injector", Some(&text))],
        &wanted,
        State::Equal,
    );
    check(
        vec![webhook("a", "injector", None)],
        &wanted,
        State::Missing,
    );
    check(
        vec![webhook("a", "injector", Some(""))],
        &wanted,
        State::Missing,
    );
    check(
        vec![webhook("a", "injector", Some("%%"))],
        &wanted,
        State::Missing,
    );
    let other = other.to_ca_bundle();
    check(
        vec![webhook("a", "injector", Some(&other))],
        &wanted,
        State::Missing,
    );
    check(
        vec![webhook("a", "injector", Some(&more))],
        &wanted,
        State::Stranger,
    );
    let two = vec![
        webhook("a", "injector", Some(&more)),
        webhook("b", "injector", None),
    ];
    check(two, &wanted, State::Missing);
    check(
        vec![webhook("a", "another", Some(&other))],
        &wanted,
        State::NoWebhook,
    );
    check(Vec::new(), &wanted, State::NoWebhook);
    assert_eq!(state(&json!(null), &hosts(), &wanted), State::NoWebhook);
}

#[test]
fn only_ca_bundles_of_our_own_webhooks_are_applied() {
    let wanted = roots(1);
    let object = json!({"webhooks": [
        webhook("a.signet.dev", "injector", None),
        webhook("b.other.dev", "another", None),
        {"name": "c.signet.dev", "clientConfig": {"url": "https://injector.spire.svc:8443/x"}},
        {"name": "d", "clientConfig": {"url": "https://elsewhere/x"}},
        {"clientConfig": {"service": {"name": "injector", "namespace": "spire"}}},
    ]});
    let target = Target {
        kind: TargetKind::Mutating,
        name: "signet".to_owned(),
    };
    let patch = patch(&object, &target.resource(), &target.name, &hosts(), &wanted);
    let ca_bundle = wanted.to_ca_bundle();
    let expected = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "signet"},
        "webhooks": [
            {"name": "a.signet.dev", "clientConfig": {"caBundle": ca_bundle}},
            {"name": "c.signet.dev", "clientConfig": {"caBundle": ca_bundle}},
        ],
    });
    assert_eq!(patch, expected);
}

#[test]
fn roots_survive_their_encoding() {
    let three = roots(3);
    assert_eq!(
        Roots::from_ca_bundle(&three.to_ca_bundle()),
        Some(three.clone())
    );
    assert!(three.and(&roots(1)).contains(&three));
    assert!(!three.contains(&roots(1)));
    assert_eq!(three.len(), 3);
}
