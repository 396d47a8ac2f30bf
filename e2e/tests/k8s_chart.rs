//! K7: every chart value and manifest: real helms, strict schemas, our own programs, and the real API server's dry run.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::binaries::{self, repository};
use e2e::cluster::Cluster;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::OnceCell;

/// What `e2e/tools/fetch-helm` puts into the cache folder.
const HELMS: [&str; 2] = ["helm-4.1.4/helm", "helm-3.17.2/helm"];

/// The operator's definitions of the kinds that the chart renders, from `e2e/tools/build-monitoring`.
const MONITORING: [&str; 3] = ["podmonitors", "servicemonitors", "prometheusrules"];

/// Requests to the API server at a time.
const AT_A_TIME: usize = 4;

fn cached(path: &str) -> Result<PathBuf> {
    let found = binaries::cache()?.join(path);
    ensure!(
        found.exists(),
        "no {}: run e2e/tools/fetch-helm and e2e/tools/build-monitoring",
        found.display()
    );
    Ok(found)
}

async fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// What the chart renders with these values, as objects.
async fn rendered(values: &Value) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.json");
    std::fs::write(&file, values.to_string())?;
    let text = run(Command::new(cached(HELMS[0])?)
        .args(["template", "signet"])
        .arg(repository("helm/signet"))
        .args(["--namespace", "spire-server", "--kube-version", "1.37.1"])
        .arg("--values")
        .arg(&file))
    .await?;
    documents(&text)
}

fn documents(text: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).context("parse what was rendered")?;
    Ok(all.into_iter().filter(|one| !one.is_null()).collect())
}

/// What `helm/tests/check.py` says of all its cases, and every distinct object that it rendered.
async fn checked() -> Result<&'static (String, Vec<Value>)> {
    static CHECKED: OnceCell<Result<(String, Vec<Value>)>> = OnceCell::const_new();
    let checked = CHECKED.get_or_init(|| async {
        let folder = tempfile::tempdir()?;
        let objects = folder.path().join("objects.json");
        let mut check = Command::new(cached("charts/bin/python")?);
        check.arg(repository("helm/tests/check.py"));
        for helm in HELMS {
            check.arg("--helm").arg(cached(helm)?);
        }
        check.arg("--monitoring").arg(cached("monitoring")?);
        check.arg("--signet").arg(binaries::signet()?);
        let summary = run(check.arg("--objects").arg(&objects)).await?;
        Ok((summary, serde_json::from_slice(&std::fs::read(objects)?)?))
    });
    // The error of one is the error of all that wait for it.
    checked.await.as_ref().map_err(|error| anyhow!("{error:#}"))
}

#[tokio::test]
async fn k7_charts_hold_over_many_values() -> Result<()> {
    testkit::aloud(&checked().await?.0);
    Ok(())
}

#[tokio::test]
async fn k7_hlm_13_manifests_are_what_the_chart_renders() -> Result<()> {
    run(Command::new(repository("e2e/tools/render-manifests")).arg("--check")).await?;
    Ok(())
}

/// The definitions and the namespaces of `manifests/`, for real: everything else needs them.
async fn prepared() -> Result<&'static Cluster> {
    let cluster = Cluster::shared().await?;
    let own = std::fs::read_dir(repository("manifests/crds"))?;
    let mut files = own
        .map(|file| Ok(file?.path()))
        .collect::<Result<Vec<_>>>()?;
    for kind in MONITORING {
        let file = format!("monitoring/crds/monitoring.coreos.com_{kind}.yaml");
        files.push(cached(&file)?);
    }
    for file in files {
        let text = std::fs::read_to_string(file)?;
        cluster.apply_yaml(&text).await?;
    }
    for name in ["spire-server", "spire-system"] {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        cluster.apply(&namespace).await?;
    }
    Ok(cluster)
}

/// What the API server says against these objects, each looked at strictly and by itself.
async fn refused(cluster: &Cluster, objects: &[Value]) -> Vec<String> {
    let answers = stream::iter(objects)
        .map(|object| cluster.apply_dry_run(object))
        .buffer_unordered(AT_A_TIME);
    let errors = answers.filter_map(|answer| async { answer.err() });
    errors.map(|error| format!("{error:#}")).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_the_api_server_takes_the_manifests_and_every_object_of_every_case() -> Result<()> {
    let cluster = prepared().await?;
    let mut objects = documents(&std::fs::read_to_string(repository(
        "manifests/signet.yaml",
    ))?)?;
    let own = objects.len();
    ensure!(own > 30, "only {own} objects in manifests/signet.yaml");
    let cases = &checked().await?.1;
    ensure!(cases.len() > 250, "only {} objects", cases.len());
    objects.extend(cases.iter().cloned());
    let namespaces: BTreeSet<&str> = objects
        .iter()
        .filter_map(|object| object["metadata"]["namespace"].as_str())
        .collect();
    for name in namespaces {
        cluster.namespace_named(name, &[]).await?;
    }
    let started = tokio::time::Instant::now();
    let refused = refused(cluster, &objects).await;
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    testkit::aloud(format!(
        "{} objects taken by the API server in {:?}",
        objects.len(),
        started.elapsed()
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_the_api_server_refuses_wrong_fields_and_says_which() -> Result<()> {
    let cluster = prepared().await?;
    let watched = json!({"enabled": true});
    let objects = rendered(&json!({"global": {"telemetry": {"prometheus":
        {"enabled": true, "rules": watched, "serviceMonitor": watched}}}}))
    .await?;
    // Kind, where, a wrong value, what the refusal must name.
    let table = [
        (
            "ClusterSPIFFEID",
            "/spec",
            json!({"spiffeIdTemplate": "x"}),
            "spiffeIdTemplate",
        ),
        (
            "Deployment",
            "/spec/template/spec",
            json!({"contaners": []}),
            "contaners",
        ),
        (
            "NetworkPolicy",
            "/spec",
            json!({"policyTypes": ["Inwards"]}),
            "policyTypes",
        ),
        (
            "PodDisruptionBudget",
            "/spec",
            json!({"maxUnavailable": "half"}),
            "maxUnavailable",
        ),
        (
            "ServiceMonitor",
            "/spec",
            json!({"endpoint": []}),
            "endpoint",
        ),
        (
            "PrometheusRule",
            "/spec/groups/0",
            json!({"interval": "soon"}),
            "interval",
        ),
    ];
    for (kind, place, wrong, named) in table {
        let found = objects.iter().find(|object| object["kind"] == kind);
        let mut object = found.with_context(|| format!("no {kind}"))?.clone();
        let place = object.pointer_mut(place).context("the place")?;
        let (place, wrong) = (place.as_object_mut(), wrong.as_object());
        let wrong = wrong.context("an object")?.clone();
        place.context("an object")?.extend(wrong);
        let refused = refused(cluster, &[object]).await.join("\n");
        ensure!(refused.contains(named), "{kind}, {named}: {refused:?}");
    }
    Ok(())
}

/// A pod of `namespace` with this label and this annotation `signet.dev/inject`.
fn pod(namespace: &str, label: Option<&str>, annotation: Option<&str>) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": "app"},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    if let Some(label) = label {
        pod["metadata"]["labels"] = json!({"signet.dev/inject": label});
    }
    if let Some(annotation) = annotation {
        pod["metadata"]["annotations"] = json!({"signet.dev/inject": annotation});
    }
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn inj_02_an_injector_that_is_away_holds_up_only_pods_that_asked() -> Result<()> {
    let cluster = prepared().await?;
    let configuration = rendered(&json!({}))
        .await?
        .into_iter()
        .find(|object| object["kind"] == "MutatingWebhookConfiguration")
        .context("the chart renders a webhook")?;
    cluster.apply(&configuration).await?;
    let plain = cluster.namespace("plain", &[]).await?;
    let asking = cluster
        .namespace("asking", &[("signet.dev/inject", "enabled")])
        .await?;
    let against = cluster
        .namespace("against", &[("signet.dev/inject", "disabled")])
        .await?;
    // Namespace, label, annotation; whether the pod waits for the injector.
    let table = [
        (plain.as_str(), None, None, false),
        (&plain, Some("enabled"), None, true),
        (&plain, Some("envoy"), None, true),
        (&plain, Some("disabled"), None, false),
        (&plain, Some("false"), None, false),
        (&plain, None, Some("false"), false),
        (&plain, None, Some("socket"), true),
        (&plain, None, Some("disabled"), false),
        (&plain, Some("disabled"), Some("enabled"), false),
        (&plain, Some("enabled"), Some("disabled"), true),
        (&asking, None, None, true),
        (&asking, Some("disabled"), None, false),
        (&asking, None, Some("disabled"), false),
        (&asking, None, Some("files"), true),
        (&against, None, None, false),
        (&against, Some("enabled"), None, true),
        ("kube-system", Some("enabled"), None, false),
        ("spire-server", Some("enabled"), None, false),
    ];
    let mut wrong = Vec::new();
    for (namespace, label, annotation, waits) in table {
        let answer = cluster
            .apply_dry_run(&pod(namespace, label, annotation))
            .await;
        let failed = answer
            .as_ref()
            .err()
            .is_some_and(|error| format!("{error:#}").contains("inject.signet.dev"));
        if failed != waits || (answer.is_err() && !failed) {
            wrong.push(format!(
                "{namespace} label {label:?} annotation {annotation:?}: {answer:?}"
            ));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// The pod of a workload, in `namespace` and under an account that is there.
fn pod_of(workload: &Value, namespace: &str) -> Value {
    let mut spec = workload["spec"]["template"]["spec"].clone();
    spec["serviceAccountName"] = json!("default");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": workload["metadata"]["name"]},
        "spec": spec,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn hlm_05_only_programs_that_need_the_node_are_not_restricted() -> Result<()> {
    let cluster = prepared().await?;
    let enforced = [("pod-security.kubernetes.io/enforce", "restricted")];
    let namespace = cluster.namespace("restricted", &enforced).await?;
    let mut seen = Vec::new();
    // Without a claim: the API server has none for a bare pod.
    let values = json!({"spire-server": {"persistence": {"type": "emptyDir"}}});
    for workload in rendered(&values).await? {
        if workload["spec"]["template"]["spec"]["containers"].is_null() {
            continue;
        }
        let answer = cluster.apply_dry_run(&pod_of(&workload, &namespace)).await;
        let refused = answer.as_ref().err().map(|error| format!("{error:#}"));
        let forbidden = refused
            .as_ref()
            .is_some_and(|text| text.contains("violates PodSecurity"));
        ensure!(refused.is_none() || forbidden, "{refused:?}");
        let name = workload["metadata"]["name"].as_str().unwrap_or_default();
        seen.push((name.to_owned(), forbidden));
    }
    seen.sort();
    let expected = [
        ("signet-agent", true),
        ("signet-csi-driver", true),
        ("signet-injector", false),
        ("signet-server", false),
    ];
    let expected = expected.map(|(name, forbidden)| (name.to_owned(), forbidden));
    ensure!(seen == expected, "{seen:?}");
    Ok(())
}
