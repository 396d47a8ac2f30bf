//! AS-31: who could get around the injector, and what comes of it.
//!
//! Two decide: the API server by the webhook configuration, as the chart renders it, and the injector.

use std::path::Path;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};

use super::*;
use crate::inject::annotations::INJECT;
use crate::inject::{Mode, inject};

/// The conditions as they are rendered; [`holds`] says the same. Who changes one changes both.
const ASKED_FOR: &str = "has(object.metadata.labels) && 'signet.dev/inject' in object.metadata.labels \
    ? !(object.metadata.labels['signet.dev/inject'] in ['disabled', 'false']) \
    : has(object.metadata.annotations) && 'signet.dev/inject' in object.metadata.annotations \
    && !(object.metadata.annotations['signet.dev/inject'] in ['disabled', 'false'])";
const SAYS_NOTHING: &str =
    "!has(object.metadata.annotations) || !('signet.dev/inject' in object.metadata.annotations)";

fn holds(expression: &str, object: &Value) -> bool {
    let said = |kind| object["metadata"][kind].get(INJECT).and_then(Value::as_str);
    match expression {
        ASKED_FOR => said("labels")
            .or_else(|| said("annotations"))
            .is_some_and(|value| !matches!(value, "disabled" | "false")),
        SAYS_NOTHING => said("annotations").is_none(),
        other => panic!("a condition this test does not know: {other}"),
    }
}

/// What the chart renders.
struct Rendered {
    webhooks: Vec<Value>,
    rules: Rules,
}

impl Rendered {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/signet.yaml");
        let text = std::fs::read_to_string(path).expect("the manifests");
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        let named = |kind: &str| {
            let mut all = objects.iter();
            let is = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == "signet-injector";
            all.find(is).expect(kind)
        };
        let config = named("ConfigMap")["data"]["injector.yaml"].as_str();
        let config: Value = serde_saphyr::from_str(config.expect("a text")).expect("YAML");
        let webhooks = &named("MutatingWebhookConfiguration")["webhooks"];
        Self {
            webhooks: webhooks.as_array().expect("webhooks").clone(),
            rules: serde_json::from_value(config["inject"].clone()).expect("rules"),
        }
    }

    /// How many of the webhooks the API server asks.
    fn asked(&self, request: &AdmissionRequest, namespace: &Namespace) -> usize {
        let asks = |webhook: &&Value| {
            let matches = |key: &str, labels| {
                let selector = webhook.get(key).cloned().unwrap_or_else(|| json!({}));
                let selector: LabelSelector = serde_json::from_value(selector).expect(key);
                Selector::try_from(selector).expect(key).matches(&labels)
            };
            let object = request.object.as_ref().expect("an object");
            let labels = object["metadata"].get("labels").cloned();
            let labels = labels.unwrap_or_else(|| json!({}));
            let mut conditions = webhook["matchConditions"].as_array().into_iter().flatten();
            let mut rules = webhook["rules"].as_array().into_iter().flatten();
            rules.any(|rule| covers(rule, request))
                && matches("namespaceSelector", namespace.labels.clone())
                && matches(
                    "objectSelector",
                    serde_json::from_value(labels).expect("labels"),
                )
                && conditions.all(|one| holds(one["expression"].as_str().expect("CEL"), object))
        };
        self.webhooks.iter().filter(asks).count()
    }
}

/// Whether a webhook's rule is about such a request.
fn covers(rule: &Value, request: &AdmissionRequest) -> bool {
    let mut resource = format!("{}s", request.kind.kind.to_lowercase());
    if !request.sub_resource.is_empty() {
        resource = format!("{resource}/{}", request.sub_resource);
    }
    let has = |key: &str, wanted: &str| {
        let mut all = rule[key].as_array().into_iter().flatten();
        all.any(|one| one == wanted)
    };
    has("apiGroups", &request.kind.group)
        && has("operations", &request.operation)
        && has("resources", &resource)
}

fn namespace(name: &str) -> Namespace {
    let mut namespace = Namespace::named(name);
    let key = "kubernetes.io/metadata.name".to_owned();
    namespace.labels.insert(key, name.to_owned());
    let said = match name {
        "opted" | "kube-system" | "spire-server" | "spire-system" => Some("enabled"),
        "off" => Some("disabled"),
        "misspelt" => Some("Enabled"),
        _ => None,
    };
    let label = said.map(|said| (INJECT.to_owned(), said.to_owned()));
    namespace.labels.extend(label);
    if name == "annotated" {
        let all = &mut namespace.annotations;
        all.insert(INJECT.to_owned(), "enabled".to_owned());
    }
    namespace
}

fn metadata(metadata: Value) -> Value {
    let ports = json!([{"containerPort": 8080}]);
    json!({"metadata": metadata, "spec": {"containers": [{"name": "app", "image": "web", "ports": ports}]}})
}

fn silent() -> Value {
    metadata(json!({}))
}

fn label(value: &str) -> Value {
    metadata(json!({"labels": {INJECT: value}}))
}

fn with(mode: &str, key: &str, value: Value) -> Value {
    let mut pod = label(mode);
    pod["spec"][key] = value;
    pod
}

/// What stands in the way, where it is, the pod, whether the API server asks, and what the injector says.
type Row = (&'static str, &'static str, Value, bool, &'static str);

/// Namespace, label, annotation, and what comes of it.
const SWITCHES: &str = "
    shop      | 'enabled'  | -           | asked | injected
    shop      | 'true'     | -           | asked | injected
    shop      | -          | 'envoy'     | asked | injected
    shop      | -          | -           | never | not_asked
    opted     | -          | -           | asked | injected
    annotated | -          | -           | never | not_asked
    off       | -          | -           | never | disabled
    off       | 'files'    | -           | asked | injected
    opted     | 'disabled' | -           | never | disabled
    opted     | -          | 'false'     | never | disabled
    opted     | 'disabled' | 'socket'    | never | disabled
    shop      | 'socket'   | 'disabled'  | asked | injected
    opted     | 'sidecar'  | -           | asked | invalid_inject_value
    shop      | 'Enabled'  | -           | asked | invalid_inject_value
    opted     | -          | 'Disabled'  | asked | invalid_inject_value
    opted     | -          | 'disabled ' | asked | invalid_inject_value
    opted     | ''         | -           | asked | invalid_inject_value
    opted     | ''         | 'enabled'   | asked | invalid_inject_value
    opted     | -          | ''          | asked | invalid_inject_value
    misspelt  | -          | -           | asked | invalid_inject_value
    misspelt  | 'disabled' | -           | never | disabled
";

fn switches() -> Vec<Row> {
    let lines = SWITCHES.lines().filter(|line| line.contains('|'));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let mut pod = silent();
            for (kind, cell) in [("labels", cells[1]), ("annotations", cells[2])] {
                if cell != "-" {
                    pod["metadata"][kind] = json!({INJECT: cell.trim_matches('\'')});
                }
            }
            (line, cells[0], pod, cells[3] == "asked", cells[4])
        })
        .collect()
}

fn places() -> Vec<Row> {
    let mut rows = Vec::new();
    for name in [
        "kube-system",
        "kube-public",
        "kube-node-lease",
        "spire-server",
        "spire-system",
    ] {
        rows.push((
            "a pod that asks there",
            name,
            label("socket"),
            false,
            "namespace_excluded",
        ));
    }
    rows.push((
        "its own label",
        "kube-system",
        silent(),
        false,
        "excluded_namespace",
    ));
    rows.push((
        "its own label",
        "spire-server",
        silent(),
        false,
        "excluded_namespace",
    ));
    let key = metadata(json!({"labels": {"signet.dev/Inject": "enabled"}}));
    rows.push(("the wrong key", "shop", key.clone(), false, "not_asked"));
    rows.push(("the wrong key", "opted", key, true, "injected"));
    // The kubelet takes pods away that say so and have no file, so nobody runs under this annotation.
    let mirror = json!({"kubernetes.io/config.mirror": "x", INJECT: "socket"});
    let mirror = metadata(json!({"annotations": mirror}));
    rows.push((
        "a mirror of a static pod",
        "shop",
        mirror,
        true,
        "static_pod",
    ));
    rows
}

/// Pods that a sidecar or an identity does not go with.
fn unfit() -> Vec<Row> {
    let selector = json!({"kubernetes.io/os": "windows"});
    let windows = json!({"name": "windows"});
    let named = json!([{"name": "signet-envoy", "image": "own"}]);
    let volume = json!([{"name": "spiffe-workload-api", "emptyDir": {}}]);
    let rows = [
        ("envoy", "hostNetwork", json!(true), "host_network"),
        // No ports of ours there.
        ("socket", "hostNetwork", json!(true), "injected"),
        ("files", "hostPID", json!(true), "host_pid"),
        ("socket", "os", windows, "windows"),
        ("socket", "nodeSelector", selector, "windows"),
        ("envoy", "containers", named.clone(), "container_name_taken"),
        ("envoy", "initContainers", named, "container_name_taken"),
        ("socket", "volumes", volume, "volume_name_taken"),
        ("socket", "containers", json!([]), "no_containers"),
        ("socket", "containers", json!("x"), "malformed_pod"),
    ];
    let row = |(mode, key, value, code)| (key, "shop", with(mode, key, value), true, code);
    let mut rows: Vec<Row> = rows.map(row).to_vec();
    let mut host = silent();
    host["spec"]["hostPID"] = json!(true);
    rows.push(("hostPID", "opted", host, true, "host_pid"));
    rows
}

/// Pods that have what they would get, or say so.
fn done(rules: &Rules) -> Vec<Row> {
    let Outcome::Patched(done) = inject(&label("envoy"), &namespace("shop"), rules) else {
        panic!("not injected");
    };
    let mut hollow = done.pod.clone();
    hollow["spec"]["initContainers"] = json!([]);
    let mut edited = done.pod.clone();
    edited["spec"]["initContainers"][0]["image"] = json!("own");
    let forged = json!({"signet.dev/status": "{}"});
    let forged = metadata(json!({"labels": {INJECT: "socket"}, "annotations": forged}));
    vec![
        ("injected", "shop", done.pod, true, "already_injected"),
        ("no sidecar", "shop", hollow, true, "injected"),
        ("another image", "shop", edited, true, "injected"),
        ("a forged status", "shop", forged, true, "injected"),
    ]
}

/// What the injector says to a request, and the answer.
async fn ask(rules: &Rules, strict: bool, request: &AdmissionRequest) -> (String, Answer) {
    let mut rules = rules.clone();
    rules.strict = strict;
    let scene = Scene::of(rules, vec![namespace(&request.namespace)]);
    let answer = scene.ask(|asked| *asked = request.clone()).await;
    let figures = scene.metrics.render();
    let skipped = figures.lines().find_map(|line| {
        let rest = line.strip_prefix("signet_injector_skipped{reason=\"")?;
        rest.strip_suffix("\"} 1")
    });
    let code = skipped.unwrap_or("injected").to_owned();
    assert_eq!(scene.counted("mutated"), code == "injected", "{figures}");
    (code, answer.expect("an answer"))
}

fn create(namespace: &str, pod: Value) -> AdmissionRequest {
    AdmissionRequest {
        uid: "u".to_owned(),
        kind: Kind {
            group: String::new(),
            version: "v1".to_owned(),
            kind: "Pod".to_owned(),
        },
        namespace: namespace.to_owned(),
        operation: "CREATE".to_owned(),
        object: Some(pod),
        ..AdmissionRequest::default()
    }
}

#[tokio::test]
async fn as_31_nobody_gets_around_it_silently() {
    let rendered = Rendered::read();
    let rules = &rendered.rules;
    assert_eq!(rules.default_mode, Mode::Socket);
    let rows = [switches(), places(), unfit(), done(rules)].concat();
    for (what, place, pod, asked, expected) in rows {
        let request = create(place, pod);
        // Never both: the second would be asked for nothing.
        let count = rendered.asked(&request, &namespace(place));
        assert_eq!(count, usize::from(asked), "{what} in {place}");
        let (code, answer) = ask(rules, false, &request).await;
        assert_eq!(code, expected, "{what} in {place}");
        assert_eq!(!answer.patch.0.is_empty(), code == "injected", "{what}");
        // Whoever would get it, the API server asks about.
        assert!(asked || code != "injected", "{what} in {place}");
        let (_, strictly) = ask(rules, true, &request).await;
        if REFUSALS.iter().any(|(refusal, _)| *refusal == code) {
            let warning = answer.warnings.first().expect("a warning");
            assert!(warning.starts_with("signet: not injected: "), "{warning}");
            assert_eq!(strictly.denied.expect("a denial").code, 403, "{what}");
        } else {
            assert_eq!((answer.denied, strictly.denied), (None, None), "{what}");
        }
    }
}

/// What is no new pod is neither asked about nor changed; what it makes is.
#[tokio::test]
async fn as_31_other_requests_are_no_way_around_it() {
    let rendered = Rendered::read();
    let of = |group: &str, kind: &str, operation: &str, sub: &str| {
        let mut request = create("opted", label("envoy"));
        request.kind.group = group.to_owned();
        request.kind.kind = kind.to_owned();
        request.operation = operation.to_owned();
        request.sub_resource = sub.to_owned();
        request
    };
    for request in [
        of("", "Pod", "UPDATE", ""),
        of("", "Pod", "UPDATE", "ephemeralcontainers"),
        of("", "Pod", "UPDATE", "resize"),
        of("", "Pod", "DELETE", ""),
        of("", "Pod", "CONNECT", "exec"),
        of("", "Pod", "CREATE", "binding"),
        of("", "Pod", "CREATE", "eviction"),
        of("apps", "Deployment", "CREATE", ""),
        of("batch", "Job", "CREATE", ""),
        of("", "ReplicationController", "CREATE", ""),
        of("", "PodTemplate", "CREATE", ""),
    ] {
        assert_eq!(
            rendered.asked(&request, &namespace("opted")),
            0,
            "{request:?}"
        );
        let (code, answer) = ask(&rendered.rules, true, &request).await;
        assert_eq!((code.as_str(), answer), ("not_a_new_pod", Answer::allow()));
    }
    // The control: the same as a new pod.
    let request = of("", "Pod", "CREATE", "");
    assert_eq!(rendered.asked(&request, &namespace("opted")), 1);
}
