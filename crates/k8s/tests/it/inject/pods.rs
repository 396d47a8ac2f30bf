//! Pods of every kind, and what is none.

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

/// Probes and hooks of every kind, and some that are none.
fn probes() -> impl Strategy<Value = Value> {
    let headers = json!([{"name": "Host", "value": "own"}]);
    let handler = select(vec![
        json!({"httpGet": {"path": "/ok?x=$(Y)", "port": "web", "httpHeaders": headers}, "periodSeconds": 3}),
        json!({"httpGet": {"port": 80, "scheme": "HTTPS"}}),
        json!({"httpGet": {"port": 80, "host": "127.0.0.1"}}),
        json!({"tcpSocket": {"port": "web"}, "failureThreshold": 7}),
        json!({"grpc": {"port": 80, "service": "shop"}}),
        json!({"exec": {"command": ["true"]}}),
        json!({"httpGet": {"port": "nowhere"}}),
        json!({"httpGet": null}),
    ]);
    let place = select(vec![
        json!({"readinessProbe": "X"}),
        json!({"livenessProbe": "X"}),
        json!({"startupProbe": "X"}),
        json!({"lifecycle": {"preStop": "X"}}),
        json!({"lifecycle": {"postStart": "X", "stopSignal": "SIGINT"}}),
    ]);
    vec((place, handler), 0..3).prop_map(|all| {
        let mut probes = json!({});
        for (place, handler) in all {
            let text = place.to_string().replace("\"X\"", &handler.to_string());
            let one: Value = serde_json::from_str(&text).expect("JSON");
            for (key, value) in one.as_object().expect("an object") {
                probes[key] = value.clone();
            }
        }
        probes
    })
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
        option::of(prop_oneof![Just(80_u16), 1..20000_u16]),
        any::<bool>(),
        probes(),
    )
        .prop_map(|(context, env, mounts, port, native, mut container)| {
            container["image"] = json!("x");
            container["unknownField"] = json!({"deep": [null, 1.5]});
            let set = [
                ("env", env),
                ("volumeMounts", mounts),
                (
                    "ports",
                    port.map_or(
                        Value::Null,
                        |port| json!([{"name": "web", "containerPort": port}]),
                    ),
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
            ("capture", "all"),
            ("capture", "inbound"),
            ("capture-skip-ports", "80, 8080"),
            ("capture-skip-cidrs", "10.0.0.0/8"),
            (
                "upstreams",
                "9=10.0.0.0/8:80=shop/b, 10=[fd00::/8]:80=shop/b",
            ),
        ]),
        0..5,
    )
}

prop_compose! {
    pub(super) fn pod()(
        containers in vec(container(), 1..4),
        inits in vec(container(), 0..3),
        mode in select(vec!["socket", "files", "envoy", "envoy", "enabled"]),
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

pub(super) fn json_tree() -> impl Strategy<Value = Value> {
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
