//! K4: what holds for every pod.

use std::collections::BTreeSet;

use json_patch::PatchOperation;
use k8s::inject::{
    Drift, Mode, Namespace, NativeSidecars, Outcome, Patched, Rules, check, inject, pss, uninject,
};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use self::pods::{json_tree, pod};

mod abuse;
mod pods;

fn rules(native: NativeSidecars, mode: Mode) -> Rules {
    let mut rules = Rules {
        native_sidecars: native,
        default_mode: mode,
        ..Rules::default()
    };
    rules.images.pull_secrets = vec!["registry".to_owned(), "own".to_owned()];
    rules
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let native = select(vec![NativeSidecars::Auto, NativeSidecars::Never]);
    (native, select(Mode::ALL.to_vec())).prop_map(|(native, mode)| rules(native, mode))
}

/// The places a patch may touch.
fn is_documented(operation: &PatchOperation, pod: &Value) -> bool {
    let add = match operation {
        PatchOperation::Add(add) => add,
        PatchOperation::Remove(remove) => {
            let path = remove.path.to_string();
            let handler = path.rsplit('/').next().unwrap_or_default();
            return matches!(handler, "tcpSocket" | "grpc") && pod.pointer(&path).is_some();
        }
        _ => return false,
    };
    let path = add.path.to_string();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let our_name = |value: &Value, ours: &[&str]| {
        value["name"]
            .as_str()
            .is_some_and(|name| ours.contains(&name))
    };
    match parts[..] {
        // Parents that were not there.
        ["metadata", "annotations"] => add.value == json!({}) && pod.pointer(&path).is_none(),
        ["spec", "initContainers" | "imagePullSecrets"] => {
            add.value == json!([]) && pod.pointer(&path).is_none()
        }
        [
            "spec",
            "containers" | "initContainers",
            _,
            "env" | "volumeMounts",
        ] => add.value == json!([]),
        // And what is added.
        ["metadata", "annotations", "signet.dev~1status"] => true,
        ["spec", "volumes", "-"] => our_name(
            &add.value,
            &["spiffe-workload-api", "signet-files", "signet-envoy"],
        ),
        ["spec", "imagePullSecrets", "-"] => our_name(&add.value, &["own", "registry"]),
        ["spec", "containers" | "initContainers", "0"] => our_name(
            &add.value,
            &["signet-files", "signet-envoy", "signet-capture"],
        ),
        // A probe or hook that asked a captured port asks Envoy.
        [
            "spec",
            "containers" | "initContainers",
            _,
            "readinessProbe" | "livenessProbe" | "startupProbe",
            "httpGet",
        ]
        | [
            "spec",
            "containers" | "initContainers",
            _,
            "lifecycle",
            "preStop" | "postStart",
            "httpGet",
        ] => {
            let annotations = &pod["metadata"]["annotations"];
            add.value["port"] == 15021
                && annotations["signet.dev/capture"] != Value::Null
                && add.value["path"]
                    .as_str()
                    .is_some_and(|path| path.starts_with("/signet/"))
        }
        ["spec", "containers" | "initContainers", _, "env", "-"] => {
            our_name(&add.value, &["SPIFFE_ENDPOINT_SOCKET"])
        }
        [
            "spec",
            "containers" | "initContainers",
            _,
            "volumeMounts",
            "-",
        ] => our_name(&add.value, &["spiffe-workload-api", "signet-files"]),
        _ => false,
    }
}

fn injected(pod: &Value, rules: &Rules) -> Option<Patched> {
    match inject(pod, &Namespace::named("shop"), rules) {
        Outcome::Patched(patched) => Some(*patched),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn k4_a_patch_adds_what_is_documented_and_nothing_else(pod in pod(), rules in any_rules()) {
        if let Some(patched) = injected(&pod, &rules) {
            for operation in &patched.patch.0 {
                prop_assert!(is_documented(operation, &pod), "{operation:?}");
            }
            let mut by_patch = pod.clone();
            json_patch::patch(&mut by_patch, &patched.patch).expect("a patch that applies");
            prop_assert_eq!(&by_patch, &patched.pod);
        }
    }

    #[test]
    fn k4_twice_is_once(pod in pod(), rules in any_rules()) {
        if let Some(patched) = injected(&pod, &rules) {
            let again = inject(&patched.pod, &Namespace::named("shop"), &rules);
            prop_assert_eq!(again.code(), "already_injected");
            prop_assert_eq!(check(&patched.pod, &Namespace::named("shop"), &rules), Drift::None);
        }
    }

    #[test]
    fn k4_in_and_out_is_nothing(pod in pod(), rules in any_rules()) {
        if let Some(patched) = injected(&pod, &rules) {
            let out = uninject(&patched.pod).expect("a status");
            prop_assert_eq!(out.to_string(), pod.to_string());
        } else {
            prop_assert_eq!(uninject(&pod), None);
        }
    }

    /// Other rules, then the first again: as if nothing had been in between.
    #[test]
    fn new_rules_replace_what_the_old_ones_added(pod in pod(), first in any_rules(), second in any_rules()) {
        if let (Some(one), Some(two)) = (injected(&pod, &first), injected(&pod, &second)) {
            let changed = injected(&one.pod, &second).map_or(one.pod, |patched| patched.pod);
            prop_assert_eq!(changed, two.pod);
        }
    }

    #[test]
    fn k4_inj_10_restricted_stays_restricted(pod in pod(), rules in any_rules()) {
        if let Some(patched) = injected(&pod, &rules) {
            let before: BTreeSet<String> = pss::violations(&pod).into_iter().collect();
            let after: BTreeSet<String> = pss::violations(&patched.pod).into_iter().collect();
            let added: Vec<&str> = after.difference(&before).map(String::as_str).collect();
            let captured = patched.status.init_containers.iter().any(|name| name == "signet-capture");
            let needs = ["container signet-capture adds capabilities", "container signet-capture does not demand runAsNonRoot", "container signet-capture runs as root"];
            prop_assert_eq!(added, if captured { needs.to_vec() } else { Vec::new() });
            prop_assert_eq!(before.difference(&after).count(), 0);
        }
    }

    /// Where `restricted` or `baseline` is enforced, nobody is captured, and the reason says so.
    #[test]
    fn capture_and_pod_security_exclude_each_other(pod in pod(), level in select(vec!["baseline", "restricted"])) {
        let mut namespace = Namespace::named("shop");
        namespace.labels.insert("pod-security.kubernetes.io/enforce".to_owned(), level.to_owned());
        if let Outcome::Patched(patched) = inject(&pod, &namespace, &Rules::default()) {
            prop_assert!(!patched.pod.to_string().contains("NET_ADMIN"));
        }
    }

    /// Whatever JSON comes: an answer, no panic.
    #[test]
    fn any_json_is_answered(pod in json_tree(), key in select(vec!["containers", "initContainers", "volumes", "imagePullSecrets", "nodeSelector", "securityContext"])) {
        let _ = inject(&pod, &Namespace::named("shop"), &Rules::default());
        for mode in ["socket", "files", "envoy"] {
            let mut whole = json!({"metadata": {"labels": {"signet.dev/inject": mode}}, "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}});
            whole["spec"][key] = pod.clone();
            let outcome = inject(&whole, &Namespace::named("shop"), &Rules::default());
            prop_assert_ne!(outcome.code(), "not_asked");
            whole["metadata"]["annotations"] = json!({"signet.dev/status": pod.to_string()});
            let _ = inject(&whole, &Namespace::named("shop"), &Rules::default());
            let _ = uninject(&whole);
        }
    }
}

/// One pod for each mode, as it comes out.
#[test]
fn goldens() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "labels": {"app": "web"}, "annotations": {
            "signet.dev/allow": "shop/frontend, ops/*",
            "signet.dev/upstreams": "9090=db.shop:8443=shop/db, tcp://5432=10.0.0.1:5432=spiffe://other.org/db",
        }},
        "spec": {
            "serviceAccountName": "web",
            "initContainers": [{"name": "migrate", "image": "web"}],
            "containers": [{"name": "app", "image": "web", "ports": [{"containerPort": 8080}]}],
        },
    });
    for (mode, native, suffix) in [
        ("socket", true, ""),
        ("files", true, ""),
        ("envoy", true, ""),
        ("envoy", false, "-classic"),
        ("envoy", true, "-captured"),
    ] {
        let mut pod = pod.clone();
        if suffix == "-captured" {
            pod["metadata"]["annotations"]["signet.dev/capture"] = json!("all");
            let app = &mut pod["spec"]["containers"][0];
            app["readinessProbe"] = json!({"httpGet": {"path": "/ready?full", "port": 8080}});
            app["livenessProbe"] = json!({"grpc": {"port": 8080}});
        }
        pod["metadata"]["labels"]["signet.dev/inject"] = json!(mode);
        let native_sidecars = if native {
            NativeSidecars::Always
        } else {
            NativeSidecars::Never
        };
        let patched = injected(
            &pod,
            &Rules {
                native_sidecars,
                ..Rules::default()
            },
        )
        .expect("a patch");
        let mut shown = patched.pod;
        // The version changes the hash of what carries an image; the golden is of the shape.
        let status = shown["metadata"]["annotations"]["signet.dev/status"]
            .as_str()
            .expect("a status");
        let mut status: Value = serde_json::from_str(status).expect("JSON");
        status["hash"] = json!("<hash>");
        status["version"] = json!("<version>");
        shown["metadata"]["annotations"]["signet.dev/status"] = status;
        show_bootstrap(&mut shown);
        let name = format!("{mode}{suffix}");
        let text = k8s::offline::to_yaml(&[shown]).expect("YAML");
        let text = text.replace(env!("CARGO_PKG_VERSION"), "<version>");
        insta::assert_snapshot!(name, text);
    }
}

/// The inline bootstrap as YAML, to be read.
fn show_bootstrap(pod: &mut Value) {
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            if let Some(text) = container["args"][1]
                .as_str()
                .filter(|text| text.starts_with('{'))
            {
                container["args"][1] = serde_json::from_str(text).expect("JSON");
            }
        }
    }
}
