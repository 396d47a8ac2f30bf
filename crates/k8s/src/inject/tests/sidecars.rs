//! The containers added.

use super::*;

/// INJ-06: by version, by pod.
#[test]
fn inj_06_native_sidecars_where_they_exist() {
    for (server, kubelet, native) in [
        ("v1.28.9", "v1.28.9", false),
        ("v1.29.0", "v1.28.3", false),
        ("v1.29.1", "1.29+k3s1", true),
        ("v1.33.0", "v1.33.0-eks-1", true),
        ("v1.37.1", "v1.37.1", true),
    ] {
        let rules = Rules {
            cluster: Versions {
                server: Versions::parse(server),
                oldest_kubelet: Versions::parse(kubelet),
            },
            ..Rules::default()
        };
        let outcome = inject(&asking("envoy"), &shop(), &rules);
        let Outcome::Patched(patched) = outcome else {
            panic!("{outcome:?}")
        };
        let place = if native {
            "/spec/initContainers/0"
        } else {
            "/spec/containers/0"
        };
        let sidecar = patched.pod.pointer(place).expect("a sidecar");
        assert_eq!(sidecar["name"], "signet-envoy", "{server}");
        assert_eq!(sidecar.get("restartPolicy").is_some(), native, "{server}");
        let forced = inject(
            &with("envoy", &[("native-sidecar", "true")]),
            &shop(),
            &rules,
        );
        let Outcome::Patched(forced) = forced else {
            panic!("{forced:?}")
        };
        assert_eq!(forced.status.init_containers, ["signet-envoy"]);
    }
}

#[test]
fn annotations_of_which_nothing_comes_are_told() {
    let warnings = |mode, annotations: &[(&str, &str)]| injected(&with(mode, annotations)).warnings;
    assert_eq!(
        warnings("envoy", &[("alow", "shop/frontend"), ("port", "9443")]),
        ["annotation signet.dev/alow does not exist: it does nothing"]
    );
    assert_eq!(
        warnings("files", &[("allow", "shop/frontend"), ("env", "A=b")]),
        ["annotation signet.dev/allow does nothing in mode files, only in envoy"]
    );
    assert_eq!(
        warnings("socket", &[("env", "A=b"), ("skip-containers", "x")]),
        ["annotation signet.dev/env does nothing in mode socket, only in files, envoy"]
    );
    let many: Vec<String> = (0..99).map(|number| format!("x{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(warnings("envoy", &many).len(), 5);
}

/// INJ-12: what is wrong warns, and the pod still comes out.
#[test]
fn inj_12_wrong_resources_warn() {
    let pod = with(
        "envoy",
        &[
            ("cpu-request", "many"),
            ("memory-request", "1Gi"),
            ("memory-limit", "1Mi"),
            ("log-level", "loud"),
            ("run-as-user", "0"),
            ("env", "1X=2"),
            ("image", "own:1"),
        ],
    );
    let patched = injected(&pod);
    assert_eq!(patched.warnings.len(), 5, "{:?}", patched.warnings);
    let sidecar = &patched.pod["spec"]["initContainers"][0];
    assert_eq!(sidecar["image"], "own:1");
    assert_eq!(
        sidecar["resources"]["requests"],
        json!({"cpu": "20m", "memory": "1Gi"})
    );
    assert_eq!(sidecar["resources"]["limits"], json!({"memory": "1Gi"}));
    assert_eq!(sidecar["securityContext"]["runAsUser"], 65532);
}

/// INJ-12: Envoy stays while the app still answers, and never longer than the pod may.
#[test]
fn envoy_goes_on_for_its_grace_period() {
    let (old, new) = (Some((1, 29)), Some((1, 37)));
    for (value, of_pod, kubelet, seconds, warnings) in [
        ("10s", None, new, json!(10), 0),
        ("10", Some(60), new, json!(10), 0),
        ("45s", None, new, json!(30), 1),
        ("45s", Some(5), new, json!(5), 1),
        ("45s", Some(0), new, json!(null), 1),
        ("10s", None, old, json!(null), 1),
        ("0", None, new, json!(null), 1),
        ("-1s", None, new, json!(null), 1),
        ("1m", None, new, json!(null), 1),
    ] {
        let mut pod = with("envoy", &[("grace-period", value)]);
        if let Some(seconds) = of_pod {
            pod["spec"]["terminationGracePeriodSeconds"] = json!(seconds);
        }
        let mut rules = Rules::default();
        rules.cluster.server = new;
        rules.cluster.oldest_kubelet = kubelet;
        let Outcome::Patched(patched) = inject(&pod, &shop(), &rules) else {
            panic!("{value}: not injected");
        };
        let sidecar = &patched.pod["spec"]["initContainers"][0];
        let hook = &sidecar["lifecycle"]["preStop"]["sleep"]["seconds"];
        assert_eq!(
            (hook, patched.warnings.len()),
            (&seconds, warnings),
            "{value} {of_pod:?}"
        );
    }
}

/// INJ-11.
#[test]
fn inj_11_openshift_assigns_the_user() {
    let mut namespace = shop();
    namespace.annotations.insert(
        "openshift.io/sa.scc.uid-range".to_owned(),
        "1000650000/10000".to_owned(),
    );
    for mode in ["files", "envoy"] {
        let outcome = inject(&asking(mode), &namespace, &Rules::default());
        let Outcome::Patched(patched) = outcome else {
            panic!("{outcome:?}")
        };
        let sidecar = &patched.pod["spec"]["initContainers"][0];
        assert_eq!(sidecar["securityContext"].get("runAsUser"), None);
    }
}

#[test]
fn inj_12_pull_secrets_are_merged() {
    let mut pod = asking("envoy");
    pod["spec"]["imagePullSecrets"] = json!([{"name": "a"}]);
    let mut rules = Rules::default();
    rules.images.pull_secrets = vec!["a".to_owned(), "b".to_owned()];
    let outcome = inject(&pod, &shop(), &rules);
    let Outcome::Patched(patched) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        patched.pod["spec"]["imagePullSecrets"],
        json!([{"name": "a"}, {"name": "b"}])
    );
    assert_eq!(patched.status.image_pull_secrets, ["b"]);
    assert_eq!(uninject(&patched.pod).expect("a status"), pod);
}

/// INJ-20.
#[test]
fn inj_20_a_container_with_the_image_auto_is_merged() {
    let mut pod = asking("envoy");
    let own = json!({"name": "signet-envoy", "image": "auto", "env": [{"name": "X", "value": "1"}], "resources": {"limits": {"cpu": "1"}}});
    pod["spec"]["containers"]
        .as_array_mut()
        .expect("a list")
        .push(own);
    let patched = injected(&pod);
    assert_eq!(
        patched.pod["spec"]["containers"]
            .as_array()
            .expect("a list")
            .len(),
        1
    );
    let sidecar = &patched.pod["spec"]["initContainers"][0];
    assert_eq!(sidecar["image"], "envoyproxy/envoy:distroless-v1.40.0");
    assert_eq!(sidecar["env"].as_array().expect("a list").len(), 2);
    assert_eq!(
        sidecar["resources"]["limits"],
        json!({"cpu": "1", "memory": "256Mi"})
    );
    assert_eq!(sidecar["restartPolicy"], "Always");
    let mut patched_by_client = pod.clone();
    json_patch::patch(&mut patched_by_client, &patched.patch).expect("patch");
    assert_eq!(patched_by_client, patched.pod);
    assert_eq!(uninject(&patched.pod).expect("a status"), pod);
    assert_eq!(code(&patched.pod), "already_injected");
}

/// The app must be able to read its key, and nobody more than needed.
#[test]
fn the_key_is_for_the_app() {
    let made = |pod: &Value| {
        let patched = injected(pod);
        let sidecar = &patched.pod["spec"]["initContainers"][0];
        let user = sidecar["securityContext"]["runAsUser"].clone();
        (user, sidecar["args"][5].clone())
    };
    let mut pod = asking("files");
    assert_eq!(made(&pod), (json!(65532), json!("0644")));
    pod["spec"]["securityContext"] = json!({"fsGroup": 2000});
    assert_eq!(made(&pod), (json!(65532), json!("0640")));
    pod["spec"]["securityContext"] = json!({"runAsUser": 1000, "fsGroup": 2000});
    assert_eq!(made(&pod), (json!(1000), json!("0600")));
    pod["spec"]["initContainers"] = json!([{"name": "init", "securityContext": {"runAsUser": 7}}]);
    assert_eq!(made(&pod), (json!(1000), json!("0640")));
    pod["metadata"]["annotations"]["signet.dev/run-as-user"] = json!("7");
    assert_eq!(made(&pod), (json!(7), json!("0640")));
}
