//! What the chart gives the CSI driver, whatever the values: the node's mounts, and nothing else.

use anyhow::{Context, Result, ensure};
use e2e::release;
use serde_json::{Value, json};

const NAME: &str = "signet-csi-driver";

/// The chart's objects, by several values that operators use.
fn renderings() -> Result<Vec<Vec<Value>>> {
    [
        json!({}),
        json!({"global": {"spire": {
            "trustDomain": "corp.example", "clusterName": "east",
            "recommendations": {"enabled": true}, "namespaces": {"create": true},
        }}}),
        json!({"spiffe-csi-driver": {"selinux": {"enabled": true}}}),
        json!({"global": {"telemetry": {"prometheus": {"enabled": true}}}}),
    ]
    .iter()
    .map(release::render)
    .collect()
}

fn pod(objects: &[Value]) -> Result<&Value> {
    let driver = objects
        .iter()
        .find(|one| one["kind"] == "DaemonSet" && one["metadata"]["name"] == NAME);
    Ok(&driver.context("no driver")?["spec"]["template"]["spec"])
}

#[test]
fn csi_08_the_driver_has_the_nodes_mounts_and_no_network_token_or_right() -> Result<()> {
    for objects in renderings()? {
        let pod = pod(&objects)?;
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            ensure!(pod[key] != true, "{key}: {pod}");
        }
        // Privileged since the API server asks that for Bidirectional, and no second container is.
        let containers = pod["containers"].as_array().context("containers")?;
        ensure!(containers.len() == 1 && pod["initContainers"].is_null());
        let security = &containers[0]["securityContext"];
        ensure!(security["readOnlyRootFilesystem"] == true, "{security}");
        let mounts = containers[0]["volumeMounts"].as_array();
        let shared = mounts.into_iter().flatten();
        let shared = shared.filter(|mount| mount["mountPropagation"] == "Bidirectional");
        let shared: Vec<&Value> = shared.map(|mount| &mount["mountPath"]).collect();
        ensure!(shared == [&json!("/var/lib/kubelet/pods")], "{shared:?}");

        ensure!(pod["automountServiceAccountToken"] == false, "{pod}");
        let volumes = pod["volumes"].as_array().context("volumes")?;
        ensure!(
            volumes.iter().all(|volume| volume["hostPath"].is_object()),
            "{volumes:?}"
        );
        let account = &pod["serviceAccountName"];
        let subjects = objects
            .iter()
            .filter_map(|one| one["subjects"].as_array())
            .flatten();
        ensure!(
            subjects.clone().count() > 0
                && subjects.clone().all(|subject| subject["name"] != *account),
            "{account} has rights"
        );
        let policy = objects
            .iter()
            .find(|one| one["kind"] == "NetworkPolicy" && one["metadata"]["name"] == NAME);
        let policy = &policy.context("no NetworkPolicy")?["spec"];
        ensure!(
            policy["policyTypes"] == json!(["Ingress", "Egress"]),
            "{policy}"
        );
        ensure!(policy["egress"] == json!([]), "{policy}");
    }
    Ok(())
}

#[test]
fn csi_12_the_driver_is_on_every_node_and_stays_longest() -> Result<()> {
    for objects in renderings()? {
        let pod = pod(&objects)?;
        // Above whatever is evicted from a full node, and on nodes whatever their taints.
        ensure!(pod["priorityClassName"] == "system-node-critical", "{pod}");
        ensure!(
            pod["tolerations"] == json!([{"operator": "Exists"}]),
            "{pod}"
        );
        ensure!(pod["affinity"].is_null(), "{pod}");
    }
    Ok(())
}
