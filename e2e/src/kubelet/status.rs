//! A pod's status from how its containers fare.

use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::list;
use super::node::NODE_ADDRESS;
use super::pod::{Kind, Slot};

/// The quality-of-service class: whether limits equal requests, whether there are any.
pub(super) fn class(pod: &Value) -> &str {
    pod["status"]["qosClass"].as_str().unwrap_or("BestEffort")
}

pub(super) fn phase(pod: &Value, slots: &[Slot]) -> &'static str {
    let policy = pod["spec"]["restartPolicy"].as_str().unwrap_or("Always");
    let failed_first = slots.iter().any(|slot| {
        let ended = slot.last.as_ref().filter(|_| slot.running.is_none());
        slot.kind == Kind::Init && policy == "Never" && ended.is_some_and(|ended| ended.code != 0)
    });
    if failed_first {
        return "Failed";
    }
    let main = || slots.iter().filter(|slot| slot.kind == Kind::Main);
    if main().any(|slot| slot.running.is_some()) {
        return "Running";
    }
    let codes: Option<Vec<i32>> = main()
        .map(|slot| slot.last.as_ref().map(|ended| ended.code))
        .collect();
    match codes {
        None => "Pending",
        Some(codes) if policy != "Always" && codes.iter().all(|code| *code == 0) => "Succeeded",
        Some(_) if policy == "Never" => "Failed",
        Some(_) => "Running",
    }
}

/// The whole status; times of conditions that have not changed are kept from what was said before.
pub(super) fn of(pod: &Value, slots: &[Slot], address: Option<&str>, said: &Value) -> Value {
    let first: Vec<&Slot> = slots
        .iter()
        .filter(|slot| slot.kind != Kind::Main)
        .collect();
    let main: Vec<&Slot> = slots
        .iter()
        .filter(|slot| slot.kind == Kind::Main)
        .collect();
    let finished = matches!(phase(pod, slots), "Succeeded" | "Failed");
    let initialized = first.iter().all(|slot| match slot.kind {
        Kind::Sidecar => flag(slot, |health| &health.started),
        _ => slot.last.as_ref().is_some_and(|ended| ended.code == 0),
    });
    let ready = !finished
        && slots
            .iter()
            .filter(|slot| slot.kind != Kind::Init)
            .all(|slot| flag(slot, |health| &health.ready));
    let condition = |kind: &str, status: bool| {
        let status = if status { "True" } else { "False" };
        let before = list(said, "/conditions");
        let same = |one: &&Value| one["type"] == kind && one["status"] == status;
        before.iter().find(same).cloned().unwrap_or_else(|| {
            json!({
                "type": kind, "status": status, "lastTransitionTime": Timestamp::now().to_string(),
            })
        })
    };
    let mut status = json!({
        "phase": phase(pod, slots),
        "qosClass": class(pod),
        "hostIP": NODE_ADDRESS,
        "hostIPs": [{"ip": NODE_ADDRESS}],
        "startTime": said.get("startTime").cloned()
            .unwrap_or_else(|| json!(Timestamp::now().to_string())),
        "conditions": [
            condition("PodScheduled", true),
            condition("PodReadyToStartContainers", address.is_some()),
            condition("Initialized", initialized || finished),
            condition("ContainersReady", ready),
            condition("Ready", ready),
        ],
        "initContainerStatuses": first.iter().map(|slot| container(slot)).collect::<Vec<_>>(),
        "containerStatuses": main.iter().map(|slot| container(slot)).collect::<Vec<_>>(),
    });
    if let Some(address) = address {
        status["podIP"] = json!(address);
        status["podIPs"] = json!([{"ip": address}]);
    }
    status
}

fn container(slot: &Slot) -> Value {
    let last = slot.last.as_ref().map(|ended| {
        json!({"terminated": {
            "exitCode": ended.code,
            "reason": if ended.code == 0 { "Completed" } else { "Error" },
            "startedAt": ended.started_at.to_string(),
            "finishedAt": ended.at.to_string(),
            "containerID": format!("containerd://{}", ended.id),
        }})
    });
    let over = slot.kind == Kind::Init && slot.last.as_ref().is_some_and(|ended| ended.code == 0);
    let state = match (&slot.running, &last, &slot.waiting) {
        (Some(container), ..) => {
            json!({"running": {"startedAt": container.started_at.to_string()}})
        }
        (None, Some(last), None) => last.clone(),
        (None, Some(last), _) if over => last.clone(),
        (None, _, Some((reason, message))) => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        (None, None, None) => json!({"waiting": {"reason": "PodInitializing"}}),
    };
    let image = slot.spec["image"].as_str().unwrap_or_default();
    let mut status = json!({
        "name": slot.spec["name"],
        "image": image,
        "imageID": format!("e2e.invalid/{image}"),
        "ready": flag(slot, |health| &health.ready) || over,
        "started": flag(slot, |health| &health.started),
        "restartCount": slot.restarts,
        "state": state,
        "lastState": last.filter(|_| slot.running.is_some()).unwrap_or_else(|| json!({})),
    });
    let id = match (&slot.running, &slot.last) {
        (Some(container), _) => Some(&container.id),
        (None, Some(ended)) => Some(&ended.id),
        _ => None,
    };
    if let Some(id) = id {
        status["containerID"] = json!(format!("containerd://{id}"));
    }
    status
}

fn flag(slot: &Slot, of: impl Fn(&super::container::Health) -> &AtomicBool) -> bool {
    let running = slot.running.as_ref();
    running.is_some_and(|container| of(&container.health).load(Ordering::Relaxed))
}
