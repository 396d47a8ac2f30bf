//! K6: what somebody may write into pods and rules keeps neither events nor other resources waiting.

use serde_json::{Value as Json, json};
use testkit::TestServer;

use super::*;

/// A rule called `name` for the pods of the same label.
fn rule_of(name: &str, spec: Json) -> Json {
    let mut rule = rule(1, ID);
    rule["metadata"]["uid"] = json!(name);
    rule["metadata"]["name"] = json!(name);
    rule["spec"]["podSelector"] = json!({ "matchLabels": { name: "yes" } });
    for (key, value) in spec.as_object().expect("an object") {
        rule["spec"][key] = value.clone();
    }
    rule
}

/// As many pods with the label `name` as this, which an ordinary rule takes, too.
fn victims(name: &str, count: usize) -> Vec<Json> {
    let mut all = pods(count);
    for pod in &mut all {
        pod["metadata"]["labels"] = json!({ name: "yes" });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_an_expensive_template_does_not_keep_others_waiting() {
    let server = TestServer::start().await;
    let controller = Loop::start(&server, "");
    let body = "{{ printf \"%s%s\" $s $s | len | print | html }}".repeat(30);
    let dear = format!("{{{{ $s := printf \"%3000d\" 1 }}}}{{{{ range 199 }}}}{body}{{{{ end }}}}");
    let bomb = rule_of("bomb", json!({ "spiffeIDTemplate": dear }));
    let all = victims("bomb", 20);
    controller.list(&[bomb, rule(1, ID)], &all).await;
    controller.until(20).await;
}

/// An object may hold a megabyte and a half; a selector of it is held against every pod.
#[tokio::test(flavor = "multi_thread")]
async fn k6_giant_selectors_do_not_keep_others_waiting() {
    let server = TestServer::start().await;
    let mut controller = Loop::start(&server, "");
    let values: Vec<String> = (0..100_000).map(|n| format!("value-{n}")).collect();
    let wide =
        json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": values }] });
    let many: Vec<Json> = (0..20_000)
        .map(|n| json!({ "key": format!("k{n}"), "operator": "DoesNotExist" }))
        .collect();
    let long = json!({ "matchExpressions": many });
    let rules = [
        rule_of(
            "wide",
            json!({ "podSelector": wide, "spiffeIDTemplate": "spiffe://example.org/wide/{{ .PodMeta.Name }}" }),
        ),
        rule_of(
            "long",
            json!({ "podSelector": long, "spiffeIDTemplate": "spiffe://example.org/long/{{ .PodMeta.Name }}" }),
        ),
        rule(1, ID),
    ];
    controller.list(&rules, &pods(200)).await;
    // They are right, if long: their entries come, too.
    controller.until(600).await;
    let started = Instant::now();
    controller.tell(Event::Apply(Kind::Pod, pod("late"))).await;
    let entries = controller.until(603).await;
    assert!(entries.values().any(|path| path == "/long/late"));
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
    // An earlier status may tell of fewer pods.
    controller
        .status(|status| {
            status["conditions"][0]["status"] == "True"
                && status["stats"]["podsSelected"].as_i64() >= Some(200)
        })
        .await;
}

/// What is longer than an ID, a selector or a name may be is told, however long it is, and nothing of it reaches the server.
#[tokio::test(flavor = "multi_thread")]
async fn k6_annotations_of_a_megabyte_are_refused_and_others_go_on() {
    let server = TestServer::start().await;
    let mut controller = Loop::start(&server, "");
    let blob = "{{ index .PodMeta.Annotations \"blob\" }}";
    let rules = [
        rule_of(
            "blob",
            json!({ "spiffeIDTemplate": format!("spiffe://example.org/{blob}") }),
        ),
        rule_of(
            "names",
            json!({ "dnsNameTemplates": [format!("{blob}.example")], "podSelector": {"matchLabels": {"blob": "yes"}} }),
        ),
        rule(1, ID),
    ];
    let mut all = victims("blob", 20);
    for pod in &mut all {
        pod["metadata"]["annotations"] = json!({ "blob": "a".repeat(1 << 20) });
    }
    controller.list(&rules, &all).await;
    let entries = controller.until(20).await;
    assert!(
        entries
            .values()
            .all(|path| path.starts_with("/ns/shop/pod/p"))
    );
    let all_refused = |status: &Json| status["stats"]["podEntryRenderFailures"] == 20;
    for _ in ["blob", "names"] {
        let status = controller.status(all_refused).await;
        let degraded = &status["conditions"][1];
        assert_eq!(degraded["status"], "True", "{degraded}");
        let message = degraded["message"].as_str().expect("a message");
        assert!(message.len() < 4096, "{} bytes", message.len());
    }
}
