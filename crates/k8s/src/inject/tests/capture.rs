//! INJ-14: what a captured pod gets.

use super::*;

fn captured(more: &[(&str, &str)]) -> Value {
    let mut all = vec![("capture", "all")];
    all.extend_from_slice(more);
    with("envoy", &all)
}

/// Its app's connections could not be told from Envoy's.
pub(super) fn as_envoys_user() -> Value {
    let mut pod = captured(&[]);
    pod["spec"]["securityContext"] = json!({"runAsUser": 65532});
    pod
}

fn args(patched: &Patched) -> String {
    let args = patched.pod["spec"]["initContainers"][0]["args"]
        .as_array()
        .expect("arguments");
    let args: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
    args.join(" ")
}

#[test]
fn rules_before_envoy_before_all() {
    let mut pod = captured(&[
        (
            "upstreams",
            "9090=db.shop:5432=shop/db, 9091=[fd00::/8]:80=shop/x",
        ),
        ("capture-skip-ports", "9100"),
        ("capture-skip-cidrs", "10.9.0.0/16 fd09::/16"),
        ("capture-skip-interfaces", "eth1"),
        ("run-as-user", "1234"),
    ]);
    let spec = &mut pod["spec"];
    spec["containers"][0]["ports"] = json!([{"containerPort": 8080}, {"containerPort": 9100}, {"containerPort": 53, "protocol": "UDP"}]);
    spec["initContainers"] = json!([{"name": "migrate"}, {"name": "proxy", "restartPolicy": "Always", "ports": [{"containerPort": 7070}]}]);
    let patched = injected(&pod);
    let names: Vec<&str> = containers(&patched.pod, "initContainers")
        .map(name_of)
        .collect();
    assert_eq!(
        names,
        ["signet-capture", "signet-envoy", "migrate", "proxy"]
    );
    assert_eq!(
        args(&patched),
        "k8s capture --envoy-user 1234 --app-ports 7070,8080 --inbound-port 15006 --skip-cidrs 10.9.0.0/16,fd09::/16 \
         --skip-interfaces eth1 --upstream 9090=db.shop:5432 --upstream 9091=[fd00::/8]:80"
    );
    assert_eq!(
        patched.pod["spec"]["initContainers"][0]["image"],
        Rules::default().images.signet
    );
    assert_eq!(uninject(&patched.pod).expect("a status"), pod);
}

#[test]
fn nothing_changes_without_the_annotation() {
    let mut pod = asking("envoy");
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 8080}});
    let plain = injected(&pod);
    let off = injected(&captured(&[("capture", "off")]));
    assert_eq!(plain.status.hash, off.status.hash);
    assert_eq!(plain.pod["spec"]["containers"], pod["spec"]["containers"]);
    assert!(!plain.pod.to_string().contains("original_dst"));
}

/// A probe that another webhook adds later is pointed to Envoy as well; the first stay as they are.
#[test]
fn inj_13_probes_are_merged_when_injected_again() {
    let mut pod = captured(&[]);
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({"tcpSocket": {"port": 8080}, "periodSeconds": 2});
    let mut again = injected(&pod).pod;
    assert_eq!(
        again["spec"]["containers"][0]["readinessProbe"],
        json!({"httpGet": {"path": "/signet/app/readiness", "port": 15021, "scheme": "HTTP"}, "periodSeconds": 2})
    );
    let late = json!({"grpc": {"port": 8080, "service": "$(NAME)"}});
    again["spec"]["containers"][0]["livenessProbe"] = late.clone();
    let patched = injected(&again);
    assert_eq!(patched.status.probes.len(), 2);
    let envoy = patched.pod["spec"]["initContainers"][1]["args"][1]
        .as_str()
        .expect("a bootstrap");
    assert!(envoy.contains("$(SIGNET_POD_IP)"), "the kubelet's part");
    assert!(
        envoy.contains("\\u0024(NAME)") && !envoy.contains("$(NAME)"),
        "the pod's own"
    );
    let out = uninject(&patched.pod).expect("a status");
    assert_eq!(out["spec"]["containers"][0]["livenessProbe"], late);
    assert_eq!(code(&patched.pod), "already_injected");
}

#[test]
fn what_cannot_be_captured_is_told() {
    let told = |pod: &Value, namespace: &Namespace| match inject(pod, namespace, &Rules::default())
    {
        Outcome::Refused(refusal) => (refusal.code(), refusal.to_string()),
        other => panic!("{other:?}"),
    };
    let mut level = shop();
    level.labels.insert(
        "pod-security.kubernetes.io/enforce".to_owned(),
        "restricted".to_owned(),
    );
    let (code, text) = told(&captured(&[]), &level);
    assert_eq!(code, "capture_forbidden");
    assert!(
        text.contains("restricted") && text.contains("NET_ADMIN"),
        "{text}"
    );
    let mut openshift = shop();
    openshift
        .annotations
        .insert("openshift.io/sa.scc.uid-range".to_owned(), "1/1".to_owned());
    assert_eq!(told(&captured(&[]), &openshift).0, "capture_user");
    assert_eq!(told(&as_envoys_user(), &shop()).0, "capture_user");
    // A container merged over Envoy's would undo the exemption of its own connections.
    let mut overlaid = captured(&[]);
    overlaid["spec"]["initContainers"] =
        json!([{"name": "signet-envoy", "image": "auto", "securityContext": {"runAsUser": 7}}]);
    assert_eq!(told(&overlaid, &shop()).0, "capture_user");
    let mut taken = captured(&[]);
    taken["spec"]["initContainers"] = json!([{"name": "signet-capture"}]);
    assert_eq!(told(&taken, &shop()).0, "container_name_taken");
    assert_eq!(
        told(&captured(&[("port", "15006")]), &shop()).0,
        "port_taken"
    );
    for (more, problem) in [
        (&[("capture", "yes")][..], "inbound, outbound, all or off"),
        (&[("capture-skip-ports", "x")], "is no port"),
        (&[("capture-skip-cidrs", "10.0.0.1/8")], "write 10.0.0.0/8"),
        (&[("capture-skip-interfaces", "a/b")], "no interface"),
        (
            &[("capture-skip-ports", "8080")],
            "nothing is there to capture",
        ),
        (
            &[("capture", "inbound"), ("upstreams", "9=10.0.0.0/8:80=a/b")],
            "write outbound or all",
        ),
    ] {
        let (code, text) = told(&captured(more), &shop());
        assert_eq!(code, "invalid_annotation");
        assert!(text.contains(problem), "{text}");
    }
}
