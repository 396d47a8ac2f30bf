"""What pods may need, and what keeps them running."""

import json
import re

# What of Pod Security's level restricted each program of the node goes beyond, and nothing more; docs/kubernetes.md says why.
EXCEPTIONS = {
    "spire-agent": {"hostPID", "hostNetwork", "root", "hostPath"},
    "spiffe-csi-driver": {"root", "hostPath", "privileges", "seccomp"},
}
# Folders of the node that a value may put in place of a volume that restricted allows.
CHOSEN = {("spire-server", "spire-data"), ("signet-injector", "spiffe-workload-api"), ("signet-test", "spiffe-workload-api")}
RESTRICTED = {"signet-injector", "spire-server", "signet-test"}
VOLUMES = {"configMap", "csi", "emptyDir", "projected", "persistentVolumeClaim", "secret", "downwardAPI", "ephemeral"}
IMAGE = re.compile(r"[^\s@]+(:[\w.-]+|@sha256:[0-9a-f]{64})")
WORKLOADS = ("StatefulSet", "DaemonSet", "Deployment", "Pod")


def name(document):
    return f"{document['kind']} {document['metadata']['name']}"


def of(document):
    """(labels, spec) of a workload's pods."""
    one = document if document["kind"] == "Pod" else document["spec"]["template"]
    return one["metadata"]["labels"], one["spec"]


def workloads(documents):
    """(document, component, pod's spec) of everything that runs."""
    for document in documents:
        if document["kind"] in WORKLOADS:
            labels, spec = of(document)
            yield document, labels["app.kubernetes.io/name"], spec


def containers(spec):
    return spec["containers"] + spec.get("initContainers", [])


def beyond(component, spec):
    """What of a pod the level restricted forbids: (kind, where)."""
    context = spec.get("securityContext") or {}
    yield from ((key, key) for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
    if (context.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccomp", "no seccomp profile"
    for volume in spec.get("volumes", []):
        if not set(volume) - {"name"} <= VOLUMES and (component, volume["name"]) not in CHOSEN:
            yield "hostPath", f"volume {volume['name']} of kind {sorted(set(volume) - {'name'})}"
    for container in containers(spec):
        own = container.get("securityContext") or {}
        where = container["name"]
        if not own.get("runAsNonRoot", context.get("runAsNonRoot")) or own.get("runAsUser", context.get("runAsUser")) == 0:
            yield "root", f"{where}: may run as root"
        capabilities = own.get("capabilities") or {}
        more = set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False or "ALL" not in capabilities.get("drop", []) or more:
            yield "privileges", f"{where}: privileges"


def hlm_05_only_programs_of_the_node_go_beyond_restricted(documents):
    for document, component, spec in workloads(documents):
        if component not in RESTRICTED and component not in EXCEPTIONS:
            yield f"{name(document)}: an unknown component {component}"
        for kind, where in beyond(component, spec):
            if kind not in EXCEPTIONS.get(component, set()):
                yield f"{name(document)}: not restricted: {where}"
        for container in containers(spec):
            if not container["securityContext"].get("readOnlyRootFilesystem"):
                yield f"{name(document)}: {container['name']}: its root file system can be written"


def hlm_05_namespaces_ask_for_the_level_that_their_pods_need(documents):
    levels = {}
    for document in documents:
        if document["kind"] == "Namespace":
            asked = {key: value for key, value in document["metadata"]["labels"].items() if key.startswith("pod-security.kubernetes.io/")}
            if asked and set(asked) != {f"pod-security.kubernetes.io/{mode}" for mode in ("enforce", "audit", "warn")}:
                yield f"{name(document)}: not all modes: {sorted(asked)}"
            levels[document["metadata"]["name"]] = set(asked.values())
    for namespace, level in levels.items():
        need = [name(document) for document, _, spec in workloads(documents) if document["metadata"]["namespace"] == namespace and list(beyond("", spec))]
        if level and level != {"privileged" if need else "restricted"}:
            yield f"{namespace}: it asks for {sorted(level)}, and {need} need more than restricted"


def hlm_07_replicas_are_kept_apart_and_a_drain_takes_one(documents):
    for document, component, spec in workloads(documents):
        # A test's pod may be evicted by whatever needs its place.
        if component != "signet-test" and not spec.get("priorityClassName"):
            yield f"{name(document)}: no priority class"
        if document["kind"] != "Deployment":
            continue
        labels, _ = of(document)
        budgets = [budget for budget in documents if budget["kind"] == "PodDisruptionBudget" and selects(budget["spec"]["selector"], document, budget)]
        replicas = document["spec"]["replicas"]
        if (replicas > 1) != (len(budgets) == 1):
            yield f"{name(document)}: {replicas} replicas and {len(budgets)} budgets"
        for budget in budgets:
            if budget["spec"].get("maxUnavailable") in (None, 0, "0%"):
                yield f"{name(document)}: its budget lets no node be drained"
        spread = {one["topologyKey"] for one in spec.get("topologySpreadConstraints", []) if matches(one["labelSelector"], labels)}
        if "kubernetes.io/hostname" not in spread or "topology.kubernetes.io/zone" not in spread:
            yield f"{name(document)}: replicas are spread over {sorted(spread)} only"
        apart = ((spec.get("affinity") or {}).get("podAntiAffinity") or {}).get("preferredDuringSchedulingIgnoredDuringExecution", [])
        if not any(term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname" and matches(term["podAffinityTerm"]["labelSelector"], labels) for term in apart):
            yield f"{name(document)}: replicas may be on one node"


def matches(selector, labels):
    return selector.get("matchLabels") and selector["matchLabels"].items() <= labels.items()


def selects(selector, document, by):
    same = by["metadata"].get("namespace") == document["metadata"].get("namespace")
    return same and matches(selector, of(document)[0])


def hlm_12_images_have_a_version_or_a_digest(documents):
    for document, _, spec in workloads(documents):
        for container in containers(spec):
            if not IMAGE.fullmatch(container["image"]) or container["image"].endswith(":latest"):
                yield f"{name(document)}: {container['name']}: image {container['image']}"


def hlm_12_every_image_is_of(documents, registry, digest, secret):
    """With a registry, a digest and a pull secret given for all: every image, also those that are injected into pods of users."""
    for document, _, spec in workloads(documents):
        for container in containers(spec):
            if not container["image"].startswith(registry + "/") or (digest and not container["image"].endswith("@" + digest)):
                yield f"{name(document)}: {container['name']}: {container['image']} is not of {registry}, with {digest}"
        if {"name": secret} not in spec.get("imagePullSecrets", []):
            yield f"{name(document)}: no pull secret"
    for document in documents:
        if "injector.yaml" in document.get("data", {}):
            images = json.loads(document["data"]["injector.yaml"])["inject"]["images"]
            if images["pullSecrets"] != [secret] or not all(images[which].startswith(registry + "/") for which in ("signet", "envoy")):
                yield f"injected: {images}"


def hlm_12_each_part_may_have_an_image_of_its_own(documents, expected):
    found = {
        container["name"]: (container["image"], *(one["name"] for one in spec.get("imagePullSecrets", [])))
        for _, _, spec in workloads(documents)
        for container in containers(spec)
    }
    if found != expected:
        yield f"images {found}, expected {expected}"


def hlm_14_pods_are_for_linux(documents):
    for document, _, spec in workloads(documents):
        if "kubernetes.io/os" not in spec.get("nodeSelector", {}) and "kubernetes.io/hostname" not in spec.get("nodeSelector", {}):
            yield f"{name(document)}: a node with Windows may get it"


def hlm_14_openshift_gives_leave_to_programs_of_the_node_alone(documents):
    accounts = {(document["metadata"]["namespace"], spec["serviceAccountName"]) for document, _, spec in workloads(documents) if document["kind"] == "DaemonSet"}
    bound = leave(documents)
    if bound and bound != accounts:
        yield f"SCC for {sorted(bound)}, needed by {sorted(accounts)}"
    users = [name(document) for document, _, spec in workloads(documents) if (spec.get("securityContext") or {}).get("runAsUser") and bound]
    if users:
        yield f"OpenShift gives users itself: {users}"


def leave(documents):
    """Who is let beyond OpenShift's usual bounds."""
    return {
        (subject["namespace"], subject["name"])
        for document in documents
        if document["kind"] == "RoleBinding" and document["roleRef"]["name"].startswith("system:openshift:scc:")
        for subject in document["subjects"]
    }


def hlm_14_openshift_has_leave(documents):
    if not leave(documents):
        yield "agent and CSI driver have no leave to use the node"


def hlm_05_there_are_namespaces(documents):
    found = {document["metadata"]["name"] for document in documents if document["kind"] == "Namespace"}
    if found != {"spire-server", "spire-system"}:
        yield f"namespaces {found}"


def selectors_and_ports_hold(documents):
    for document, _, spec in workloads(documents):
        labels, _ = of(document)
        if document["kind"] != "Pod" and not matches(document["spec"]["selector"], labels):
            yield f"{name(document)}: its selector does not match its pods"
        if not spec.get("serviceAccountName"):
            yield f"{name(document)}: no service account"
        ports = [port["name"] for container in spec["containers"] for port in container.get("ports", [])]
        if len(ports) != len(set(ports)) or any(len(port) > 15 for port in ports):
            yield f"{name(document)}: port names {ports}"
