"""What rendered objects may never be, whatever the values."""

import json
import re

RESTRICTED = {"signet-injector", "spire-server"}
NODE = {"spire-agent", "spiffe-csi-driver"}
# What each component may ask the API server for: kind of role, then group/resource, then verbs. `!`: by name only.
GRANTS = {
    "spire-server": {"ClusterRole": {"authentication.k8s.io/tokenreviews": "create", "/pods": "get", "/nodes": "get"}},
    "spire-agent": {"ClusterRole": {"/nodes/pods": "get", "/nodes/proxy": "get"}},
    "signet-injector": {
        "ClusterRole": {
            "/namespaces": "get list watch",
            "/nodes": "list",
            "events.k8s.io/events": "create patch",
            "admissionregistration.k8s.io/mutatingwebhookconfigurations!": "get list watch patch",
        }
    },
    "spire-controller-manager": {
        "ClusterRole": {
            "/pods": "get list watch",
            "/nodes": "get list watch",
            "/namespaces": "get list watch",
            "/endpoints": "get list watch",
            "discovery.k8s.io/endpointslices": "get list watch",
            "spire.spiffe.io/clusterspiffeids": "get list watch",
            "spire.spiffe.io/clusterstaticentries": "get list watch",
            "spire.spiffe.io/clusterfederatedtrustdomains": "get list watch",
            "spire.spiffe.io/clusterspiffeids/status": "update patch",
            "spire.spiffe.io/clusterstaticentries/status": "update patch",
            "spire.spiffe.io/clusterfederatedtrustdomains/status": "update patch",
            "events.k8s.io/events": "create patch",
            "admissionregistration.k8s.io/validatingwebhookconfigurations!": "get list watch patch",
            "signet.dev/workloadspiffeids": "get list watch",
            "signet.dev/workloadspiffeids/status": "update patch",
            "/configmaps!": "get list watch create patch",
            "certificates.k8s.io/signers!": "attest",
            "certificates.k8s.io/clustertrustbundles!": "get list watch create patch",
        },
        "Role": {
            "coordination.k8s.io/leases": "create",
            "coordination.k8s.io/leases!": "get update patch",
            "/configmaps": "create",
            "/configmaps!": "get list watch create patch",
        },
    },
}


def name(document):
    return f"{document['kind']} {document['metadata']['name']}"


def problems(documents):
    found = []
    seen = set()
    for document in documents:
        key = (document["kind"], document["metadata"].get("namespace"), document["metadata"]["name"])
        if key in seen:
            found.append(f"{name(document)}: twice")
        seen.add(key)
        annotations = document["metadata"].get("annotations") or {}
        if any(key.startswith("helm.sh/hook") for key in annotations):
            found.append(f"{name(document)}: a hook")
        check = CHECKS.get(document["kind"])
        if check:
            found += [f"{name(document)}: {problem}" for problem in check(document)]
    found += [*budgets(documents), *references(documents), *bundle_rights(documents), *node_access(documents)]
    return found


def role(document):
    component = document["metadata"].get("labels", {}).get("app.kubernetes.io/name")
    grants = GRANTS.get(component, {}).get(document["kind"], {})
    for rule in document["rules"]:
        if rule.get("nonResourceURLs"):
            yield f"may ask for paths: {rule}"
        for group in rule.get("apiGroups", []):
            for resource in rule.get("resources", []):
                granted = set(grants.get(f"{group}/{resource}", "").split())
                if rule.get("resourceNames"):
                    granted |= set(grants.get(f"{group}/{resource}!", "").split())
                if more := set(rule["verbs"]) - granted:
                    yield f"{component} may {' '.join(sorted(more))} {group}/{resource}"


def node_access(documents):
    """On OpenShift, whoever needs the node has leave, and nobody else."""
    accounts = {
        (document["metadata"]["namespace"], document["spec"]["template"]["spec"]["serviceAccountName"])
        for document in documents
        if document["kind"] == "DaemonSet"
    }
    bound = {
        (subject["namespace"], subject["name"])
        for document in documents
        if document["kind"] == "RoleBinding" and document["roleRef"]["name"].startswith("system:openshift:scc:")
        for subject in document["subjects"]
    }
    if bound and bound != accounts:
        yield f"SCC for {sorted(bound)}, needed by {sorted(accounts)}"


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
            if not {"kube-system", "kube-public", "kube-node-lease"} <= never:
                yield f"asks about system namespaces: {webhook['name']}"
            if not webhook.get("matchConditions"):
                yield f"asks about pods that did not ask: {webhook['name']}"


def workload(document):
    spec = document["spec"]
    template = spec["template"]
    labels = template["metadata"]["labels"]
    if not spec["selector"]["matchLabels"].items() <= labels.items():
        yield "its selector does not match its pods"
    component = labels["app.kubernetes.io/name"]
    pod = template["spec"]
    if not pod.get("serviceAccountName"):
        yield "no service account"
    for container in pod["containers"] + pod.get("initContainers", []):
        if not container["securityContext"].get("readOnlyRootFilesystem"):
            yield f"{container['name']}: its root file system can be written"
        if not re.fullmatch(r"[^\s@]+(:[\w.-]+|@sha256:[0-9a-f]{64})", container["image"]):
            yield f"{container['name']}: image {container['image']}"
    if component in RESTRICTED:
        yield from restricted(pod)
    elif component not in NODE:
        yield f"an unknown component {component}"
    ports = [port["name"] for container in pod["containers"] for port in container.get("ports", [])]
    if len(ports) != len(set(ports)) or any(len(port) > 15 for port in ports):
        yield f"port names {ports}"


VOLUMES = {"configMap", "csi", "emptyDir", "projected", "persistentVolumeClaim", "secret", "downwardAPI", "ephemeral"}


def restricted(pod):
    """Pod Security's level restricted."""
    context = pod.get("securityContext") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield key
    if not context.get("runAsNonRoot") or context.get("runAsUser") == 0:
        yield "may run as root"
    if (context.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccomp profile"
    for volume in pod.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES and volume["name"] not in ("spire-data", "spiffe-workload-api"):
            yield f"volume {volume['name']} of kind {kinds}"
    for container in pod["containers"] + pod.get("initContainers", []):
        own = container["securityContext"]
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False or "ALL" not in own["capabilities"]["drop"]:
            yield f"{container['name']}: privileges"


def budgets(documents):
    """Every Deployment with two replicas or more has a budget."""
    covered = {document["metadata"]["name"] for document in documents if document["kind"] == "PodDisruptionBudget"}
    for document in documents:
        if document["kind"] == "Deployment":
            several = document["spec"]["replicas"] > 1
            if several != (document["metadata"]["name"] in covered):
                yield f"{name(document)}: {document['spec']['replicas']} replicas, and a budget is {'missing' if several else 'there'}"


def references(documents):
    """Config maps, service accounts and services that are named are there."""
    there = {(document["kind"], document["metadata"].get("namespace"), document["metadata"]["name"]) for document in documents}
    bundles = {"spire-bundle", "trust"}
    for document in documents:
        namespace = document["metadata"].get("namespace")
        if document["kind"] in ("StatefulSet", "DaemonSet", "Deployment"):
            pod = document["spec"]["template"]["spec"]
            account = pod["serviceAccountName"]
            if account != "default" and ("ServiceAccount", namespace, account) not in there:
                yield f"{name(document)}: service account {account} is missing"
            for volume in pod.get("volumes", []):
                config = (volume.get("configMap") or {}).get("name")
                if config and config not in bundles and ("ConfigMap", namespace, config) not in there:
                    yield f"{name(document)}: config map {config} is missing"
        for webhook in document.get("webhooks", []):
            service = webhook["clientConfig"]["service"]
            if ("Service", service["namespace"], service["name"]) not in there:
                yield f"{name(document)}: service {service['name']} is missing"
        for subject in document.get("subjects", []):
            if subject["name"] != "default" and ("ServiceAccount", subject["namespace"], subject["name"]) not in there:
                yield f"{name(document)}: subject {subject['name']} is missing"


def bundle_rights(documents):
    """The controller may write the objects that its configuration tells it to, by name, and no others of their kinds but its record."""
    for document in documents:
        text = (document.get("data") or {}).get("controller.yaml")
        if text is None:
            continue
        bundle = (json.loads(text).get("signet") or {}).get("bundle") or {}
        trust = bundle.get("clusterTrustBundle") or {}
        signer = trust.get("signerName")
        # The record of federation relationships is made by POST, for which there are no names.
        home = document["metadata"]["namespace"]
        expected = {(home, "configmaps", None), (home, "configmaps", "signet-federation")}
        if bundle:
            where = "everywhere" if "namespaceSelector" in bundle else bundle["namespace"]
            expected.add((where, "configmaps", bundle["configMap"]))
        if trust:
            prefix = signer.replace("/", ":") + ":" if signer else ""
            expected.add(("everywhere", "clustertrustbundles", prefix + trust["name"]))
        if signer:
            expected.add(("everywhere", "signers", signer))
        granted = {
            (role["metadata"].get("namespace", "everywhere"), resource, named)
            for role in documents
            if role["kind"] in ("Role", "ClusterRole")
            for rule in role["rules"]
            for resource in rule.get("resources", [])
            if resource in ("configmaps", "clustertrustbundles", "signers")
            for named in rule.get("resourceNames", [None])
        }
        if granted != expected:
            yield f"{name(document)}: bundles {sorted(map(str, expected))}, and granted are {sorted(map(str, granted))}"


CHECKS = {
    "ClusterRole": role,
    "Role": role,
    "MutatingWebhookConfiguration": webhooks,
    "ValidatingWebhookConfiguration": webhooks,
    "StatefulSet": workload,
    "DaemonSet": workload,
    "Deployment": workload,
}
