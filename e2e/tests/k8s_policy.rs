//! INJ-19: pods changed by the MutatingAdmissionPolicy of `signet k8s policy` are those `signet k8s inject` makes.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::{binaries, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

fn signet(args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(binaries::signet()?)
        .arg("k8s")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "signet: {told}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A container that the Pod Security Standard `restricted` admits.
fn container(name: &str, more: &Value) -> Value {
    let mut container = json!({"name": name, "image": "app", "securityContext": {
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
    }});
    for (key, value) in more.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    container
}

fn pod(annotations: &Value, labels: &Value, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container("app", &json!({}))],
        },
    });
    if !annotations.is_null() {
        pod["metadata"]["annotations"] = annotations.clone();
    }
    if !labels.is_null() {
        pod["metadata"]["labels"] = labels.clone();
    }
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

/// What the API server makes of a pod: metadata and spec that matter.
async fn admitted(pods: &Api<Pod>, pod: &Value) -> Result<Value> {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod: Pod = serde_json::from_value(pod.clone())?;
    let made = serde_json::to_value(pods.create(&params, &pod).await?)?;
    Ok(
        json!({"annotations": made["metadata"]["annotations"], "labels": made["metadata"]["labels"], "spec": made["spec"]}),
    )
}

fn cases() -> Vec<(&'static str, Value)> {
    let asks = json!({"signet.dev/inject": "socket"});
    let own_env = json!({"env": [{"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///own"}]});
    let own_mount = json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}], "env": [{"name": "A", "value": "b"}]});
    let taken = json!({"volumeMounts": [{"name": "data", "mountPath": "/spiffe-workload-api"}]});
    let data = json!([{"name": "data", "emptyDir": {}}]);
    let null = Value::Null;
    vec![
        ("by annotation", pod(&asks, &null, &json!({}))),
        ("by label", pod(&null, &asks, &json!({}))),
        (
            "enabled",
            pod(
                &json!({"signet.dev/inject": "enabled", "x": "y"}),
                &null,
                &json!({}),
            ),
        ),
        (
            "several containers",
            pod(
                &asks,
                &null,
                &json!({
                    "volumes": data,
                    "initContainers": [container("init", &json!({})), container("second", &own_mount)],
                    "containers": [container("app", &own_env), container("other", &own_mount)],
                }),
            ),
        ),
        (
            "label beats annotation",
            pod(&asks, &json!({"signet.dev/inject": "disabled"}), &json!({})),
        ),
        ("does not ask", pod(&null, &null, &json!({}))),
        (
            "path taken",
            pod(
                &asks,
                &null,
                &json!({"volumes": data, "containers": [container("app", &taken)]}),
            ),
        ),
        (
            "path taken in an init container",
            pod(
                &asks,
                &null,
                &json!({"volumes": data, "initContainers": [container("init", &taken)]}),
            ),
        ),
        (
            "volume taken",
            pod(
                &asks,
                &null,
                &json!({"volumes": [{"name": "spiffe-workload-api", "emptyDir": {}}]}),
            ),
        ),
        (
            "mode files",
            pod(&json!({"signet.dev/inject": "files"}), &null, &json!({})),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn inj_19_a_pod_from_the_policy_is_a_pod_from_the_injector() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
    let namespace = cluster.namespace("policy", &restricted).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, &namespace);

    // What the injector makes of them, before there is a policy; what it refuses stays as it is.
    let mut expected = Vec::new();
    for (name, pod) in cases() {
        let asked_for_files = name == "mode files";
        let made = signet(&["inject", "-n", &namespace, "-f", "-"], &pod.to_string());
        let made = match made {
            Ok(text) if !asked_for_files => serde_json::from_str(&text)?,
            _ => pod.clone(),
        };
        let through = admitted(&pods, &made)
            .await
            .with_context(|| name.to_owned())?;
        expected.push((name, pod, through));
    }
    let changed = expected
        .iter()
        .filter(|(_, pod, made)| pod["spec"]["volumes"] != made["spec"]["volumes"]);
    ensure!(
        changed.count() >= 4,
        "the injector changed nothing, so nothing would be compared"
    );

    cluster
        .apply_yaml(&signet(&["policy", "--name", "signet-socket"], "")?)
        .await?;
    let (_, first, _) = &expected[0];
    wait::until("the policy to be in force", || async {
        let made = admitted(&pods, first).await?;
        Ok(made["annotations"].get("signet.dev/status").cloned())
    })
    .await?;
    for (name, pod, through_injector) in &expected {
        let through_policy = admitted(&pods, pod)
            .await
            .with_context(|| (*name).to_owned())?;
        ensure!(
            through_policy == *through_injector,
            "{name}:\npolicy   {through_policy}\ninjector {through_injector}"
        );
    }

    // The namespace's own label counts as well, and the pods of kube-system are left alone.
    cluster
        .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {
            "signet.dev/inject": "enabled", restricted[0].0: restricted[0].1,
        }}}))
        .await?;
    let plain = pod(&Value::Null, &Value::Null, &json!({}));
    wait::until("the namespace's label to count", || async {
        let made = admitted(&pods, &plain).await?;
        Ok(made["annotations"].get("signet.dev/status").cloned())
    })
    .await?;
    let system: Api<Pod> = Api::namespaced(cluster.client()?, "kube-system");
    let made = admitted(&system, first).await?;
    ensure!(
        made["annotations"].get("signet.dev/status").is_none(),
        "kube-system was touched: {made}"
    );
    Ok(())
}
