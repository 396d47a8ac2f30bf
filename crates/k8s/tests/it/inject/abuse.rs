//! AS-32: values and names that would like to be more than a value or a name.

use k8s::inject::{Namespace, Outcome, Patched, Rules, inject, uninject};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::pods::pod;
use super::{any_rules, injected};

/// A pod as Kubernetes' own types have it: what they do not know is gone.
fn typed(pod: &Value) -> Value {
    let pod: Pod = serde_json::from_value(pod.clone()).expect("a pod of the API");
    serde_json::to_value(pod).expect("JSON")
}

/// Had we added a field that the API does not know, the typed pod would lose it and the patched one keep it.
fn typed_both_ways(pod: &Value, patched: &Patched) -> (Value, Value) {
    let mut expected = typed(pod);
    json_patch::patch(&mut expected, &patched.patch).expect("a patch that applies");
    (typed(&patched.pod), expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn k4_as_32_what_is_added_is_of_the_api(pod in pod(), rules in any_rules()) {
        if let Some(patched) = injected(&pod, &rules) {
            let (is, expected) = typed_both_ways(&pod, &patched);
            prop_assert_eq!(is, expected);
        }
    }

    /// Whatever stands in an annotation: refused, told, or a value among values.
    #[test]
    fn k4_as_32_any_text_is_a_text(value in "\\PC{0,24}|[\"'{}$()~/\\\\,=:\n\t -]{0,12}", name in proptest::sample::select(NAMES.to_vec()), mode in proptest::sample::select(vec!["files", "envoy"])) {
        let pod = asking(mode, name, &value);
        if let Outcome::Patched(patched) = answer(&pod) {
            holds(&pod, &patched);
        }
    }
}

/// All that take text, by their last part.
const NAMES: [&str; 18] = [
    "skip-containers",
    "app-port",
    "port",
    "protocol",
    "allow",
    "upstreams",
    "metrics-port",
    "capture",
    "capture-skip-ports",
    "capture-skip-cidrs",
    "capture-skip-interfaces",
    "image",
    "image-pull-policy",
    "log-level",
    "run-as-user",
    "env",
    "cpu-limit",
    "no-such",
];

fn asking(mode: &str, name: &str, value: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "annotations": {"signet.dev/inject": mode}},
        "spec": {"containers": [{"name": "app", "image": "web", "ports": [{"containerPort": 8080}]}]},
    });
    pod["metadata"]["annotations"][format!("signet.dev/{name}")] = json!(value);
    pod
}

fn answer(pod: &Value) -> Outcome {
    inject(pod, &Namespace::named("shop"), &Rules::default())
}

/// What holds for every pod that got something, however hostile.
fn holds(pod: &Value, patched: &Patched) {
    let mut by_patch = pod.clone();
    json_patch::patch(&mut by_patch, &patched.patch).expect("a patch that applies");
    assert_eq!(by_patch, patched.pod);
    let (is, expected) = typed_both_ways(pod, patched);
    assert_eq!(is, expected);
    assert_eq!(uninject(&patched.pod).as_ref(), Some(pod));
    assert_eq!(answer(&patched.pod).code(), "already_injected");
    for volume in &patched.status.volumes {
        let all = patched.pod["spec"]["volumes"].as_array().expect("a list");
        let ours = all.iter().find(|one| one["name"] == *volume);
        assert_eq!(ours.expect("ours").get("hostPath"), None, "{volume}");
    }
    for container in ours(patched) {
        let security = &container["securityContext"];
        assert_eq!(security["privileged"], false);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(container.get("command"), None, "no shell to break out of");
    }
    for warning in &patched.warnings {
        assert!(!warning.contains(char::is_control), "{warning:?}");
    }
}

/// The containers added.
fn ours(patched: &Patched) -> Vec<&Value> {
    let (spec, status) = (&patched.pod["spec"], &patched.status);
    let all = |list: &str| spec[list].as_array().into_iter().flatten();
    let named = |names: &[String], one: &Value| names.iter().any(|name| one["name"] == **name);
    let inits = all("initContainers").filter(|one| named(&status.init_containers, one));
    let others = all("containers").filter(|one| named(&status.containers, one));
    inits.chain(others).collect()
}

/// Of these a pod cannot do without the right value.
const REFUSED: [(&str, &str); 26] = [
    ("allow", "shop/web\"}}, {\"any\": true"),
    ("allow", "spiffe://example.org/ns/../sa/*"),
    ("allow", "shop/$(NAME)"),
    ("allow", "shop/web~1admin"),
    ("allow", "*"),
    ("upstreams", "9090=db.shop:8443=shop/db\"}"),
    ("upstreams", "9090=\"db\":8443=shop/db"),
    ("upstreams", "9090=$(NAME):8443=shop/db"),
    ("upstreams", "9090=db.shop:8443=shop/$(NAME)"),
    (
        "upstreams",
        "9090=db:8443=shop/db\nadmin: {address: 0.0.0.0}",
    ),
    ("upstreams", "9090=db:8443\u{0}=shop/db"),
    ("upstreams", "9090=../../etc:8443=shop/db"),
    ("upstreams", "unix:///run/x.sock=shop/db"),
    ("port", "8443\nprivileged: true"),
    ("port", "[8443]"),
    ("port", "+8443"),
    ("app-port", "8080; rm"),
    ("metrics-port", "0x3AAC"),
    ("protocol", "http\", \"x\": \""),
    ("native-sidecar", "{\"op\":\"add\"}"),
    ("hold-app", "yes"),
    ("capture", "all --uid=0"),
    ("capture-skip-ports", "80 --redirect=1"),
    ("capture-skip-cidrs", "0.0.0.0/0;flush"),
    ("capture-skip-interfaces", "eth0\" accept"),
    ("mode", "envoy\nfiles"),
];

#[test]
fn as_32_a_hostile_value_is_refused() {
    for (name, value) in REFUSED {
        // Only who says no mode has it read.
        let switch = if name == "mode" { "enabled" } else { "envoy" };
        let pod = asking(switch, name, value);
        let full = format!("signet.dev/{name}");
        match answer(&pod) {
            Outcome::Refused(refusal) => {
                assert_eq!(refusal.code(), "invalid_annotation", "{name}: {value:?}");
                let told = refusal.to_string();
                assert!(
                    told.contains(&full) && !told.contains(char::is_control),
                    "{told:?}"
                );
            }
            other => panic!("{name}: {value:?}: {other:?}"),
        }
    }
}

/// Of these it can.
const LEFT_OUT: [(&str, &str); 37] = [
    ("image", "envoy --privileged"),
    ("image", "--privileged"),
    ("image", "envoy\nsecurityContext: {privileged: true}"),
    ("image", "envoy\",\"command\":[\"sh\"]"),
    ("image", "$(NAME)"),
    ("image", "../../envoy"),
    ("image", ""),
    ("image-pull-policy", "Always\", \"x\": \""),
    ("log-level", "debug --admin-address-path /tmp/x"),
    ("log-level", "$(NAME)"),
    ("run-as-user", "0"),
    ("run-as-user", "-1"),
    ("run-as-user", "1e3"),
    ("run-as-user", "1000, privileged: true"),
    ("cpu-limit", "1\n2"),
    ("cpu-limit", "-1"),
    ("memory-request", "64Mi\"}, {\"op\": \"remove\""),
    ("memory-limit", "99999999999999999999E"),
    ("ephemeral-storage-limit", "NaN"),
    ("env", "LD_PRELOAD=/tmp/x.so"),
    ("env", "A=b, LD_LIBRARY_PATH=/tmp"),
    ("env", "LD_AUDIT=/tmp/x.so"),
    ("env", "GLIBC_TUNABLES=glibc.malloc.check=3"),
    ("env", "PATH=/tmp"),
    (
        "env",
        "SPIFFE_ENDPOINT_SOCKET=unix:///spiffe-workload-api/../tmp/x.sock",
    ),
    ("env", "SIGNET_POD_IP=\"}}"),
    ("env", "POD_NAME=--x"),
    ("env", "A\n=b"),
    ("env", "A~1B=c"),
    ("env", "$(A)=b"),
    ("env", "A=b\u{0}c"),
    ("socket-path", "../../etc"),
    ("host-path", "/"),
    ("mount-path", "/"),
    ("privileged", "true"),
    ("a~1b~0c/d", "x"),
    ("a\r\nWarning: b", "x"),
];

/// The warning names the annotation, and the pod gets what it would get without it.
#[test]
fn as_32_a_hostile_value_is_told_and_left_out() {
    for (name, value) in LEFT_OUT {
        let pod = asking("envoy", name, value);
        let Outcome::Patched(patched) = answer(&pod) else {
            panic!("{name}: {value:?}: {:?}", answer(&pod));
        };
        holds(&pod, &patched);
        let [warning] = &patched.warnings[..] else {
            panic!("{name}: {value:?}: {:?}", patched.warnings);
        };
        let full = format!("annotation signet.dev/{}", name.escape_debug());
        assert!(warning.starts_with(&full), "{warning}");
        let plain = asking("envoy", "port", "8443");
        let plain = injected(&plain, &Rules::default()).expect("a patch");
        assert_eq!(patched.pod["spec"], plain.pod["spec"], "{name}: {value:?}");
    }
}

/// What is free text stays one text: no patch operation, no second field, no expansion of `~1`.
#[test]
fn as_32_free_text_stays_one_value() {
    let text = r#"{"op": "remove" "path": "/spec"}~1~0 '; --x"#;
    let pod = asking("envoy", "env", &format!("A={text}"));
    let Outcome::Patched(patched) = answer(&pod) else {
        panic!("{:?}", answer(&pod));
    };
    holds(&pod, &patched);
    let env = ours(&patched)[0]["env"].as_array().expect("a list");
    assert_eq!(env.last(), Some(&json!({"name": "A", "value": text})));
}

/// The name of everything that may have one.
const ODD: &str = "a/b~1c~0d\"$(X)\n";

/// Pods whose own names and places are the trap; where they are refused, with this code.
fn hostile_pods() -> Vec<(&'static str, Value, &'static str)> {
    let volume = |name: &str| json!({"volumes": [{"name": name, "hostPath": {"path": "/"}}]});
    let app = |more: Value| {
        let mut app = json!({"name": "app", "image": "web", "ports": [{"containerPort": 8080}]});
        let all = app.as_object_mut().expect("an object");
        all.extend(more.as_object().expect("an object").clone());
        json!({"containers": [app]})
    };
    let mount = |path: &str| app(json!({"volumeMounts": [{"name": "data", "mountPath": path}]}));
    let auto = json!({"name": "signet-envoy", "image": "auto"});
    vec![
        ("socket", volume("spiffe-workload-api"), "volume_name_taken"),
        ("envoy", volume("spiffe-workload-api"), "volume_name_taken"),
        ("envoy", volume("signet-envoy"), "volume_name_taken"),
        ("files", volume("signet-files"), "volume_name_taken"),
        ("socket", volume(ODD), "injected"),
        (
            "envoy",
            app(json!({"name": "signet-envoy"})),
            "container_name_taken",
        ),
        (
            "files",
            app(json!({"name": "signet-files"})),
            "container_name_taken",
        ),
        (
            "envoy",
            json!({"initContainers": [{"name": "signet-envoy"}]}),
            "container_name_taken",
        ),
        ("envoy", json!({"initContainers": [auto]}), "injected"),
        ("socket", app(json!({"name": ODD})), "injected"),
        (
            "socket",
            app(json!({"env": [{"name": ODD, "value": ODD}]})),
            "injected",
        ),
        ("socket", mount("/"), "injected"),
        ("files", mount("/"), "injected"),
        ("socket", mount("/spiffe-workload-api"), "mount_path_taken"),
        (
            "socket",
            mount("/spiffe-workload-api///"),
            "mount_path_taken",
        ),
        ("files", mount("/run/signet/files/"), "mount_path_taken"),
        (
            "files",
            mount("//run/x/../signet/./files"),
            "mount_path_taken",
        ),
        (
            "envoy",
            app(json!({"ports": [{"containerPort": 8443}]})),
            "port_taken",
        ),
        (
            "envoy",
            app(json!({"ports": [{"containerPort": 15020}]})),
            "port_taken",
        ),
        ("envoy", json!({"serviceAccountName": ODD}), "injected"),
    ]
}

#[test]
fn as_32_a_hostile_pod_is_answered() {
    for (mode, spec, code) in hostile_pods() {
        let mut pod = asking(mode, "inject", mode);
        // Keys with all that a JSON Pointer has to escape.
        pod["metadata"]["annotations"]["a~1b/c~0d/~"] = json!("~1");
        pod["metadata"]["labels"] = json!({"x/y~1z": "~0"});
        let all = pod["spec"].as_object_mut().expect("an object");
        all.extend(spec.as_object().expect("an object").clone());
        let outcome = answer(&pod);
        assert_eq!(outcome.code(), code, "{mode}: {spec}");
        if let Outcome::Patched(patched) = outcome {
            holds(&pod, &patched);
        }
    }
}
