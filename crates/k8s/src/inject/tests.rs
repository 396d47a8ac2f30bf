//! Who gets what, and who does not; what always holds is in `tests/it/inject.rs`.

use serde_json::json;

use super::annotations::{ANNOTATIONS, INJECT, STATUS};
use super::*;

mod capture;
mod sidecars;

fn pod(annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "web", "ports": [{"containerPort": 8080}]}], "futureField": {"x": [1]}},
    })
}

fn asking(mode: &str) -> Value {
    pod(json!({INJECT: mode}))
}

fn with(mode: &str, more: &[(&str, &str)]) -> Value {
    let mut pod = asking(mode);
    for (name, value) in more {
        pod["metadata"]["annotations"][format!("signet.dev/{name}")] = json!(value);
    }
    pod
}

fn shop() -> Namespace {
    Namespace::named("shop")
}

fn injected(pod: &Value) -> Patched {
    match inject(pod, &shop(), &Rules::default()) {
        Outcome::Patched(patched) => *patched,
        other => panic!("{other:?}"),
    }
}

fn code(pod: &Value) -> &'static str {
    inject(pod, &shop(), &Rules::default()).code()
}

/// INJ-01: pod beats namespace, label beats annotation, and of a namespace only the label counts.
#[test]
fn inj_01_who_asks() {
    let values = [None, Some("enabled"), Some("disabled")];
    for (label, annotation) in values
        .iter()
        .flat_map(|l| values.iter().map(move |a| (l, a)))
    {
        for (ns_label, ns_annotation) in values
            .iter()
            .flat_map(|l| values.iter().map(move |a| (l, a)))
        {
            let mut pod = pod(json!({}));
            if let Some(value) = label {
                pod["metadata"]["labels"] = json!({INJECT: value});
            }
            if let Some(value) = annotation {
                pod["metadata"]["annotations"] = json!({INJECT: value});
            }
            let mut namespace = shop();
            let set = |map: &mut BTreeMap<String, String>, value: &Option<&str>| {
                map.extend(value.map(|value| (INJECT.to_owned(), value.to_owned())));
            };
            set(&mut namespace.labels, ns_label);
            set(&mut namespace.annotations, ns_annotation);
            let expected = match label.or(*annotation).or(*ns_label) {
                None => "not_asked",
                Some("enabled") => "injected",
                Some(_) => "disabled",
            };
            let outcome = inject(&pod, &namespace, &Rules::default());
            assert_eq!(
                outcome.code(),
                expected,
                "{label:?} {annotation:?} {ns_label:?} {ns_annotation:?}"
            );
        }
    }
}

#[test]
fn which_mode() {
    assert_eq!(injected(&asking("files")).status.mode, Mode::Files);
    assert_eq!(injected(&asking("enabled")).status.mode, Mode::Socket);
    assert_eq!(
        injected(&with("enabled", &[("mode", "envoy")])).status.mode,
        Mode::Envoy
    );
    let mut namespace = shop();
    namespace
        .annotations
        .insert("signet.dev/mode".to_owned(), "files".to_owned());
    let Outcome::Patched(patched) = inject(&asking("enabled"), &namespace, &Rules::default())
    else {
        panic!("not injected");
    };
    assert_eq!(patched.status.mode, Mode::Files);
}

/// INJ-02, again in code.
#[test]
fn inj_02_namespaces_that_are_never_touched() {
    let rules = Rules {
        own_namespace: "spire-system".to_owned(),
        excluded_namespaces: vec!["legacy".to_owned()],
        ..Rules::default()
    };
    for name in [
        "kube-system",
        "kube-public",
        "kube-node-lease",
        "spire-system",
        "legacy",
    ] {
        let mut namespace = Namespace::named(name);
        assert_eq!(
            inject(&asking("socket"), &namespace, &rules).code(),
            "namespace_excluded"
        );
        namespace
            .labels
            .insert(INJECT.to_owned(), "enabled".to_owned());
        assert_eq!(
            inject(&pod(json!({})), &namespace, &rules).code(),
            "excluded_namespace"
        );
    }
    let mirror = pod(json!({INJECT: "socket", "kubernetes.io/config.mirror": "x"}));
    assert_eq!(code(&mirror), "static_pod");
}

/// INJ-03: one pod for every refusal.
#[test]
fn inj_03_inj_07_every_refusal_has_its_pod() {
    let spec = |mode, key: &str, value: Value| {
        let mut pod = asking(mode);
        pod["spec"][key] = value;
        pod
    };
    let app = |mode, key: &str, value: Value| {
        let mut pod = asking(mode);
        pod["spec"]["containers"][0][key] = value;
        pod
    };
    let mount = json!([{"name": "other", "mountPath": "/spiffe-workload-api/"}]);
    let mut seen: Vec<&str> = [
        spec("socket", "containers", json!("none")),
        spec("socket", "volumes", json!([1])),
        asking("yes please"),
        with("envoy", &[("port", "0")]),
        with("envoy", &[("upstreams", "nonsense")]),
        spec("envoy", "hostNetwork", json!(true)),
        spec("socket", "hostPID", json!(true)),
        spec("socket", "os", json!({"name": "windows"})),
        spec(
            "socket",
            "nodeSelector",
            json!({"kubernetes.io/os": "windows"}),
        ),
        app("envoy", "name", json!("signet-envoy")),
        spec(
            "socket",
            "volumes",
            json!([{"name": "spiffe-workload-api", "emptyDir": {}}]),
        ),
        app("socket", "volumeMounts", mount),
        with("envoy", &[("port", "8080")]),
        with("envoy", &[("upstreams", "8443=b:1=x/y")]),
        app("envoy", "ports", json!([])),
        capture::as_envoys_user(),
        spec("socket", "containers", json!([])),
    ]
    .iter()
    .map(|pod| match inject(pod, &shop(), &Rules::default()) {
        Outcome::Refused(refusal) => refusal.code(),
        other => panic!("{pod}: {other:?}"),
    })
    .collect();
    seen.push(
        inject(
            &asking("socket"),
            &Namespace::named("kube-system"),
            &Rules::default(),
        )
        .code(),
    );
    let mut baseline = shop();
    baseline.labels.insert(
        "pod-security.kubernetes.io/enforce".to_owned(),
        "baseline".to_owned(),
    );
    let mut rules = Rules::default();
    rules.socket.kind = SocketKind::HostPath;
    seen.push(inject(&asking("socket"), &baseline, &rules).code());
    rules.socket.kind = SocketKind::Csi;
    seen.push(inject(&with("envoy", &[("capture", "all")]), &baseline, &rules).code());
    rules.native_sidecars = NativeSidecars::Never;
    seen.push(
        inject(
            &spec("envoy", "restartPolicy", json!("Never")),
            &shop(),
            &rules,
        )
        .code(),
    );
    seen.push(inject(&with("envoy", &[("hold-app", "true")]), &shop(), &rules).code());
    let mut documented: Vec<&str> = REFUSALS.iter().map(|(code, _)| *code).collect();
    documented.sort_unstable();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, documented);
}

/// INJ-04: another webhook's container gets what it lacks; the API server's defaults are no difference.
#[test]
fn what_was_added_since_is_completed() {
    let mut pod = injected(&asking("socket")).pod;
    pod["spec"]["containers"][0]["terminationMessagePath"] = json!("/dev/termination-log");
    assert_eq!(code(&pod), "already_injected");
    let late = json!({"name": "late", "image": "x"});
    pod["spec"]["containers"]
        .as_array_mut()
        .expect("a list")
        .push(late);
    let patched = injected(&pod);
    assert_eq!(patched.status.mounts, ["app", "late"]);
    let mut by_patch = pod.clone();
    json_patch::patch(&mut by_patch, &patched.patch).expect("patch");
    assert_eq!(by_patch, patched.pod);
    assert_eq!(code(&patched.pod), "already_injected");
}

/// INJ-05.
#[test]
fn inj_05_drift_is_told() {
    let rules = Rules::default();
    let fresh = asking("envoy");
    assert_eq!(check(&fresh, &shop(), &rules), Drift::Missing);
    assert_eq!(check(&pod(json!({})), &shop(), &rules), Drift::None);
    let good = injected(&fresh).pod;
    assert_eq!(check(&good, &shop(), &rules), Drift::None);
    let told = |pod: &Value, rules: &Rules| check(pod, &shop(), rules).to_string();
    let mut edited = good.clone();
    edited["spec"]["initContainers"][0]["image"] = json!("evil");
    assert!(told(&edited, &rules).contains("container signet-envoy is gone or was edited"));
    let mut other = rules.clone();
    other.images.envoy = "envoy:new".to_owned();
    assert!(told(&good, &other).contains("rules, version or annotations have changed"));
    let mut off = good;
    off["metadata"]["annotations"][INJECT] = json!("disabled");
    assert_eq!(check(&off, &shop(), &rules), Drift::Unasked);
    let mut unmounted = injected(&asking("socket")).pod;
    unmounted["spec"]["containers"][0]["volumeMounts"] = json!([]);
    assert!(told(&unmounted, &rules).contains("gone or was edited"));
    assert!(STATUS.starts_with("signet.dev/"));
}

#[test]
fn the_switches_on_containers() {
    let mut pod = with("socket", &[("skip-containers", "app")]);
    let set = json!([{"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///own"}]);
    pod["spec"]["containers"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "two", "env": set}));
    pod["spec"]["initContainers"] = json!([{"name": "init"}]);
    let patched = injected(&pod);
    assert_eq!(patched.status.mounts, ["two", "init"]);
    assert_eq!(patched.status.env, ["init"]);
    assert_eq!(
        patched.pod["spec"]["containers"][0].get("volumeMounts"),
        None
    );
    assert_eq!(patched.pod["spec"]["containers"][1]["env"], set);
    assert_eq!(uninject(&patched.pod).expect("a status"), pod);
}

#[test]
fn annotations_are_documented_once() {
    let mut names: Vec<&str> = ANNOTATIONS
        .iter()
        .map(|annotation| annotation.name)
        .collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn rules_are_read_and_checked() {
    let rules: Rules = serde_json::from_value(json!({
        "trustDomain": "prod.example", "defaultMode": "envoy", "nativeSidecars": "always",
        "socket": {"kind": "hostPath"}, "images": {"pullPolicy": "Always"}, "envoy": {"resources": {"cpuLimit": "1"}},
    }))
    .expect("rules");
    assert_eq!(rules.validate(), Vec::<String>::new());
    assert_eq!(rules.trust_domain.as_str(), "prod.example");
    for (bad, told) in [
        (json!({"envoy": {"port": 15020}}), "must differ"),
        (json!({"envoy": {"user": 0}}), "envoy.user"),
        (
            json!({"envoy": {"resources": {"cpuLimit": "x"}}}),
            "envoy.resources: cpu",
        ),
        (
            json!({"files": {"resources": {"memoryRequest": "1Mi", "memoryLimit": "1Ki"}}}),
            "below its request",
        ),
        (json!({"socket": {"hostPath": "x"}}), "socket.hostPath"),
        (json!({"images": {"envoy": ""}}), "images.envoy"),
    ] {
        let rules: Rules = serde_json::from_value(bad).expect("rules");
        assert!(
            rules.validate().join("\n").contains(told),
            "{told}: {:?}",
            rules.validate()
        );
    }
    assert!(serde_json::from_value::<Rules>(json!({"trustDomian": "x"})).is_err());
}
