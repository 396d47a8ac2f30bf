"""What rendered objects may never be, whatever the values."""

import monitors
import network
import pods
import rights
from pods import name

SYSTEM = {"kube-system", "kube-public", "kube-node-lease"}


def problems(documents):
    return [problem for check in CHECKS for problem in check(documents)]


def objects_are_there_once(documents):
    seen = set()
    for document in documents:
        key = (document["kind"], document["metadata"].get("namespace"), document["metadata"]["name"])
        if key in seen:
            yield f"{name(document)}: twice"
        seen.add(key)


def hlm_04_no_hooks(documents):
    """But `helm test`, which runs when somebody asks for it."""
    for document in documents:
        annotations = document["metadata"].get("annotations") or {}
        hooks = {key: value for key, value in annotations.items() if key.startswith("helm.sh/hook")}
        if hooks and (document["kind"] != "Pod" or hooks["helm.sh/hook"] != "test"):
            yield f"{name(document)}: a hook"
        if document["kind"] in ("Job", "CronJob"):
            yield f"{name(document)}: a Job"


def webhooks_hold_up_nobody_else(documents):
    for document in documents:
        for problem in webhooks(document) if "webhooks" in document else ():
            yield f"{name(document)}: {problem}"


def webhooks(document):
    for webhook in document["webhooks"]:
        if "caBundle" in webhook["clientConfig"]:
            yield "a caBundle, which is the programs' to keep"
        if webhook["sideEffects"] != "None" or webhook["admissionReviewVersions"] != ["v1"]:
            yield "side effects, or another version than v1"
        if document["kind"] == "MutatingWebhookConfiguration":
            never = {
                value
                for expression in webhook["namespaceSelector"]["matchExpressions"]
                if expression["key"] == "kubernetes.io/metadata.name" and expression["operator"] == "NotIn"
                for value in expression["values"]
            }
            if not SYSTEM <= never:
                yield f"asks about system namespaces: {webhook['name']}"
            if not webhook.get("matchConditions"):
                yield f"asks about pods that did not ask: {webhook['name']}"


CHECKS = [
    objects_are_there_once,
    hlm_04_no_hooks,
    webhooks_hold_up_nobody_else,
    pods.selectors_and_ports_hold,
    pods.hlm_05_only_programs_of_the_node_go_beyond_restricted,
    pods.hlm_05_namespaces_ask_for_the_level_that_their_pods_need,
    network.hlm_06_every_pod_has_one_policy_or_the_nodes_network,
    network.hlm_06_only_ports_that_are_asked_are_open,
    network.hlm_06_agents_alone_ask_the_server,
    network.hlm_06_pods_go_where_they_need_to,
    pods.hlm_07_replicas_are_kept_apart_and_a_drain_takes_one,
    monitors.hlm_08_monitors_ask_every_program_once,
    rights.hlm_11_roles_grant_what_the_table_says,
    rights.hlm_11_bundles_are_granted_by_name,
    rights.hlm_11_ca_bundles_of_others_are_granted_when_asked_for,
    rights.whoever_is_named_is_there,
    pods.hlm_12_images_have_a_version_or_a_digest,
    pods.hlm_14_pods_are_for_linux,
    pods.hlm_14_openshift_gives_leave_to_programs_of_the_node_alone,
]
