//! K4: what holds for every pod.

use std::collections::BTreeSet;

use json_patch::PatchOperation;
use k8s::inject::{
    Drift, Mode, Namespace, NativeSidecars, Outcome, Patched, Rules, check, inject, pss, uninject,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

fn context() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"runAsUser": 1000, "runAsNonRoot": true}),
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}),
        json!({"privileged": true}),
    ])
}

/// A container; its name is given later, since names in a pod differ.
fn container() -> impl Strategy<Value = Value> {
    let env = select(vec![
        json!(null),
        json!([{"name": "A", "value": "$(B)"}]),
        json!([{"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///own"}]),
    ]);
    let mounts = select(vec![
        json!(null),
        json!([{"name": "data", "mountPath": "/data"}]),
        json!([{"name": "data", "mountPath": "/spiffe-workload-api"}]),
    ]);
    (
        context(),
        env,
        mounts,
        option::of(1..20000_u16),
        any::<bool>(),
    )
        .prop_map(|(context, env, mounts, port, native)| {
            let mut container = json!({"image": "x", "unknownField": {"deep": [null, 1.5]}});
            let set = [
                ("env", env),
                ("volumeMounts", mounts),
                (
                    "ports",
                    port.map_or(Value::Null, |port| json!([{"containerPort": port}])),
                ),
                ("securityContext", context),
                (
                    "restartPolicy",
                    if native { json!("Always") } else { Value::Null },
                ),
            ];
            for (key, value) in set {
                if !value.is_null() {
                    container[key] = value;
                }
            }
            container
        })
}

fn annotations() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    vec(
        select(vec![
            ("skip-containers", "c0, c2"),
            ("port", "7443"),
            ("app-port", "80"),
            ("protocol", "tcp"),
            ("allow", "shop/web, ops/*"),
            ("allow", "spiffe://other.org/x"),
            (
                "upstreams",
                "b.shop:8080=shop/b, tcp://99=10.0.0.1:5432=spiffe://other.org/db",
            ),
            ("upstreams", "wrong"),
            ("cpu-limit", "1m"),
            ("env", "X=$(Y)"),
            ("run-as-user", "1234"),
            ("native-sidecar", "true"),
        ]),
        0..4,
    )
}

prop_compose! {
    fn pod()(
        containers in vec(container(), 1..4),
        inits in vec(container(), 0..3),
        mode in select(vec!["socket", "files", "envoy", "enabled"]),
        more in annotations(),
        own in any::<bool>(),
        secret in any::<bool>(),
        fields in select(vec![json!({}), json!({"hostNetwork": true}), json!({"restartPolicy": "Never"}), json!({"hostPID": true}), json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}})]),
    ) -> Value {
        let name = |mut container: Value, prefix: &str, index: usize| {
            container["name"] = json!(format!("{prefix}{index}"));
            container
        };
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"}, "spec": fields, "status": {"x": 1}});
        pod["spec"]["containers"] = containers.into_iter().enumerate().map(|(i, c)| name(c, "c", i)).collect();
        if !inits.is_empty() {
            pod["spec"]["initContainers"] = inits.into_iter().enumerate().map(|(i, c)| name(c, "i", i)).collect();
        }
        if secret {
            pod["spec"]["imagePullSecrets"] = json!([{"name": "registry"}]);
        }
        if own || more.is_empty() {
            pod["metadata"]["labels"] = json!({"signet.dev/inject": mode, "app": "web"});
        } else {
            pod["metadata"]["annotations"] = json!({"signet.dev/inject": mode, "own/annotation": "~1/~"});
        }
        for (key, value) in more {
            pod["metadata"]["annotations"][format!("signet.dev/{key}")] = json!(value);
        }
        pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
        pod
    }
}

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
    let PatchOperation::Add(add) = operation else {
        return false;
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
        ["spec", "containers" | "initContainers", "0"] => {
            our_name(&add.value, &["signet-files", "signet-envoy"])
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
    fn a_patch_adds_what_is_documented_and_nothing_else(pod in pod(), rules in any_rules()) {
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
    fn twice_is_once(pod in pod(), rules in any_rules()) {
        if let Some(patched) = injected(&pod, &rules) {
            let again = inject(&patched.pod, &Namespace::named("shop"), &rules);
            prop_assert_eq!(again.code(), "already_injected");
            prop_assert_eq!(check(&patched.pod, &Namespace::named("shop"), &rules), Drift::None);
        }
    }

    #[test]
    fn in_and_out_is_nothing(pod in pod(), rules in any_rules()) {
        if let Some(patched) = injected(&pod, &rules) {
            prop_assert_eq!(uninject(&patched.pod), Some(pod));
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
    fn restricted_stays_restricted(pod in pod(), rules in any_rules()) {
        if let Some(patched) = injected(&pod, &rules) {
            let before: BTreeSet<String> = pss::violations(&pod).into_iter().collect();
            let after: BTreeSet<String> = pss::violations(&patched.pod).into_iter().collect();
            prop_assert_eq!(before, after);
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

fn json_tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/~]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let keys = select(vec![
            "metadata",
            "spec",
            "annotations",
            "containers",
            "name",
            "env",
            "ports",
            "mounts",
            "mode",
            "hash",
            "version",
            "overlay",
        ]);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((keys, inner), 0..4).prop_map(|pairs| pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
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
    for (mode, native) in [
        ("socket", true),
        ("files", true),
        ("envoy", true),
        ("envoy", false),
    ] {
        let mut pod = pod.clone();
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
        let name = format!("{mode}{}", if native { "" } else { "-classic" });
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
