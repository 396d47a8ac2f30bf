use proptest::prelude::*;

use super::*;

const STREAM: &str = "\
# The shop.
apiVersion: v1
kind:   Namespace   # spaces and comments stay
metadata: {name: shop, labels: {signet.dev/inject: enabled}}
---
# Serves the pages.

apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    spec:
      containers:
      - name: app
        image: web
        env: [{name: TURN, value: \"on\"}, {name: NUMBER, value: \"0644\"}, {name: EXP, value: \"1e3\"}]
      volumes:
      - {name: v, configMap: {name: c, defaultMode: 0644}}
---

--- # nothing here
---
kind: Unknown
apiVersion: example.org/v1
body: |
  indented --- stays
   ---
...
";

fn inject(text: &str) -> (String, Vec<Report>) {
    run(text, Action::Inject, "default", &Rules::default(), &[]).expect("a stream")
}

#[test]
fn inj_18_untouched_documents_stay_and_changed_ones_keep_their_comments() {
    let (text, reports) = inject(STREAM);
    assert_eq!(reports.len(), 1);
    assert_eq!(
        reports[0].to_string(),
        "Deployment shop/web: injected (socket)"
    );
    let (before, after) = (split(STREAM), split(&text));
    assert_eq!(before.len(), after.len());
    for index in [0, 2, 3, 4] {
        assert_eq!(before[index].text, after[index].text);
    }
    assert!(
        after[1].text.starts_with("---\n# Serves the pages.\n\n"),
        "{}",
        after[1].text
    );
    let web = parse(after[1].body()).expect("YAML");
    let spec = &web["spec"]["template"]["spec"];
    assert_eq!(
        spec["volumes"][0]["configMap"]["defaultMode"], 0o644,
        "octal, as kubectl reads it"
    );
    assert_eq!(spec["volumes"][1]["csi"]["driver"], "csi.spiffe.io");
    let env: Vec<_> = (0..3)
        .map(|i| spec["containers"][0]["env"][i]["value"].as_str())
        .collect();
    assert_eq!(
        env,
        [Some("on"), Some("0644"), Some("1e3")],
        "texts stay texts"
    );

    let (back, reports) =
        run(&text, Action::Uninject, "default", &Rules::default(), &[]).expect("a stream");
    assert_eq!(reports[0].verdict, Verdict::Uninjected);
    assert_eq!(
        parse(split(&back)[1].body()).expect("YAML"),
        parse(before[1].body()).expect("YAML")
    );
    let (again, _) = inject(&text);
    assert_eq!(again, text, "injecting twice changes nothing");
}

/// Texts that a YAML 1.1 reader, such as kubectl's, would take for something else must come out quoted.
#[test]
fn ambiguous_texts_are_quoted() {
    let texts = [
        "on",
        "off",
        "yes",
        "no",
        "y",
        "n",
        "true",
        "null",
        "~",
        "",
        "1e3",
        "0644",
        "0x1f",
        "1_000",
        "12:30:45",
        ".5",
        "+1",
        "- a",
        "a: b",
        "#x",
        "0o14",
        "=",
        "<<",
        "2026-01-01",
        " x",
        "x ",
        "1.",
        ".inf",
        "0b1",
    ];
    let object = serde_json::json!({"kind": "Pod", "texts": texts});
    let text = one_to_yaml(&object).expect("YAML");
    assert_eq!(parse(&text).expect("YAML"), object, "{text}");
    for word in [
        "on",
        "off",
        "yes",
        "no",
        "y",
        "n",
        "0644",
        "1_000",
        "12:30:45",
        "1e3",
        "<<",
        "=",
        "2026-01-01",
        "0b1",
        "+1",
        "1.",
    ] {
        let plain = format!("- {word}\n");
        assert!(!text.contains(&plain), "{word} is not quoted in\n{text}");
    }
}

#[test]
fn inj_18_every_kind_that_makes_pods() {
    for (version, kind, place) in [
        ("v1", "Pod", ""),
        ("v1", "ReplicationController", "/spec/template"),
        ("apps/v1", "Deployment", "/spec/template"),
        ("apps/v1", "StatefulSet", "/spec/template"),
        ("apps/v1", "DaemonSet", "/spec/template"),
        ("apps/v1", "ReplicaSet", "/spec/template"),
        ("batch/v1", "Job", "/spec/template"),
        ("batch/v1", "CronJob", "/spec/jobTemplate/spec/template"),
    ] {
        let pod = serde_json::json!({"metadata": {"labels": {"signet.dev/inject": "socket"}}, "spec": {"containers": [{"name": "a"}]}});
        let mut object = pod;
        for key in place.split('/').rev().filter(|key| !key.is_empty()) {
            object = serde_json::json!({ key: object });
        }
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        object["metadata"]["name"] = "x".into();
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [object, {"kind": "Other"}]});
        let (text, reports) = inject(&format!("{list}\n"));
        assert_eq!(reports.len(), 1, "{kind}");
        assert_eq!(
            reports[0].to_string(),
            format!("{kind} default/x: injected (socket)")
        );
        let value: Value = serde_json::from_str(&text).expect("JSON stays JSON");
        assert!(
            value
                .pointer(&format!("/items/0{place}/spec/volumes/0/csi"))
                .is_some(),
            "{text}"
        );
        assert_eq!(value["items"][1], serde_json::json!({"kind": "Other"}));
    }
    let (text, reports) = inject("apiVersion: example.org/v1\nkind: Deployment\n");
    assert_eq!(
        (text.as_str(), reports.len()),
        ("apiVersion: example.org/v1\nkind: Deployment\n", 0)
    );
}

#[test]
fn refusals_and_misplaced_switches_are_told() {
    let stream = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {signet.dev/inject: envoy}}
spec: {template: {spec: {containers: [{name: a}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: p, annotations: {signet.dev/inject: envoy}}
spec: {containers: [{name: a}]}
";
    let (text, reports) = inject(stream);
    assert_eq!(text, stream);
    assert!(reports[0].warnings[0].contains("move it to spec.template.metadata"));
    assert!(!reports[0].is_failure() && reports[1].is_failure());
    assert!(reports[1].to_string().contains("refused (no_ports)"));
    let (_, compared) =
        run(stream, Action::Check, "default", &Rules::default(), &[]).expect("a stream");
    assert!(compared[1].is_failure() && !compared[0].is_failure());
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    let problem = run(
        "a: 1\n---\nb: [\n",
        Action::Inject,
        "default",
        &Rules::default(),
        &[],
    )
    .expect_err("no YAML");
    assert!(
        problem
            .to_string()
            .starts_with("document 2 (line 2) is not YAML"),
        "{problem}"
    );
}

#[test]
fn a_list_of_all_pods_of_a_cluster_is_read() {
    use std::fmt::Write as _;

    let mut text = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
    for number in 0..2_500 {
        writeln!(
            text,
            "- {{apiVersion: v1, kind: Pod, metadata: {{name: p{number}}}, spec: {{x: [{}]}}}}",
            "a,".repeat(100)
        )
        .expect("a text");
    }
    let (_, reports) = inject(&text);
    assert_eq!(reports.len(), 2_500);
}

#[test]
fn aliases_do_not_make_more_of_a_document_than_it_is() {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for number in 1..9 {
        let items = vec![format!("*a{}", number - 1); 10].join(",");
        text.push_str(&format!("a{number}: &a{number} [{items}]\n"));
    }
    parse(&text).expect_err("a thousand million items");
}

#[test]
fn the_first_comments_stay_after_a_byte_order_mark() {
    let (text, reports) = inject(
        "\u{feff}# mine\napiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {signet.dev/inject: socket}}\nspec: {containers: [{name: a}]}\n",
    );
    assert_eq!(reports.len(), 1);
    assert!(text.starts_with("\u{feff}# mine\napiVersion"), "{text}");
}

#[test]
fn a_switch_in_an_unknown_kind_is_told() {
    let rollout = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: r}\nspec: {template: {metadata: {labels: {signet.dev/inject: envoy}}}}\n";
    let (text, reports) = inject(rollout);
    assert_eq!(text, rollout);
    let told = reports[0].to_string();
    assert!(told.starts_with("Rollout default/r: ") && told.contains("--pod-template"));
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {signet.dev/inject: envoy}}\n";
    assert_eq!(inject(namespace).1, []);
}

proptest! {
    /// The documents together are the stream, whatever it is.
    #[test]
    fn nothing_is_lost_in_splitting(text in "(---|\\.\\.\\.|a: b|# c|[ \r\n-]|\u{feff}|[^a]){0,40}") {
        let documents = split(&text);
        let whole: String = documents.iter().map(|document| document.text).collect();
        prop_assert_eq!(&whole, &text);
        for document in documents {
            let _ = document.is_blank();
            prop_assert!(document.text.ends_with(document.body()));
        }
    }
}

/// INJ-18: custom resources, by the paths that are given.
#[test]
fn inj_18_custom_resources_by_path() {
    const ROLLOUT: &str = "\
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {signet.dev/inject: socket}}
    spec: {containers: [{name: app, image: web}]}
---
apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: ray}
spec:
  headGroupSpec:
    template: {spec: {containers: [{name: head, image: ray}]}}
  workerGroupSpecs:
  - template:
      metadata: {annotations: {signet.dev/inject: socket}}
      spec: {containers: [{name: worker, image: ray}]}
";
    let (text, reports) = inject(ROLLOUT);
    assert_eq!(
        (text.as_str(), reports.len()),
        (ROLLOUT, 2),
        "unknown kinds are left alone, and told"
    );
    let templates = [
        "rollouts.argoproj.io=.spec.template",
        "RayCluster.ray.io=.spec.headGroupSpec.template",
        "RayCluster.ray.io={.spec.workerGroupSpecs[*].template}",
    ]
    .map(|text| text.parse().expect(text));
    let with = |text: &str, action| run(text, action, "default", &Rules::default(), &templates);
    let (text, reports) = with(ROLLOUT, Action::Inject).expect("a stream");
    let told: Vec<_> = reports.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "Rollout shop/web: injected (socket)",
            "RayCluster default/ray at spec.headGroupSpec.template: unchanged: neither the pod nor its namespace asks for it",
            "RayCluster default/ray at spec.workerGroupSpecs.0.template: injected (socket)",
        ]
    );
    let rollout = parse(split(&text)[0].body()).expect("YAML");
    let volume = &rollout["spec"]["template"]["spec"]["volumes"][0];
    assert_eq!(volume["csi"]["driver"], "csi.spiffe.io");
    let (back, _) = with(&text, Action::Uninject).expect("a stream");
    for (before, after) in split(ROLLOUT).iter().zip(split(&back)) {
        let parsed = |document: &Document<'_>| parse(document.body()).expect("YAML");
        assert_eq!(parsed(before), parsed(&after));
    }
    let astray = ["rollouts.argoproj.io=.spec.tmplate"
        .parse()
        .expect("a path")];
    let (_, reports) = run(
        ROLLOUT,
        Action::Inject,
        "default",
        &Rules::default(),
        &astray,
    )
    .expect("a stream");
    assert!(
        reports[0].to_string().contains("leads to no pod template"),
        "{}",
        reports[0]
    );
}
