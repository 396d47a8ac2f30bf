"""What each program may ask of the API server, and that whoever is named is there."""

import json

from pods import name, workloads

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
            # See hlm_11_ca_bundles_of_others_are_granted_when_asked_for.
            "admissionregistration.k8s.io/mutatingwebhookconfigurations": "get list watch patch",
            "admissionregistration.k8s.io/validatingwebhookconfigurations": "get list watch patch",
            "apiregistration.k8s.io/apiservices": "get list watch patch",
            "apiextensions.k8s.io/customresourcedefinitions": "get list watch patch",
        },
        "Role": {
            "coordination.k8s.io/leases": "create",
            "coordination.k8s.io/leases!": "get update patch",
            "/configmaps": "create",
            "/configmaps!": "get list watch create patch",
        },
    },
}


def hlm_11_roles_grant_what_the_table_says(documents):
    for document in documents:
        if document["kind"] in ("ClusterRole", "Role"):
            for problem in role(document):
                yield f"{name(document)}: {problem}"


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


def whoever_is_named_is_there(documents):
    """Config maps, service accounts and services."""
    there = {(document["kind"], document["metadata"].get("namespace"), document["metadata"]["name"]) for document in documents}
    bundles = {"spire-bundle", "trust", "corp-bundle"}
    for document, _, pod in workloads(documents):
        namespace, account = document["metadata"]["namespace"], pod["serviceAccountName"]
        if account != "default" and ("ServiceAccount", namespace, account) not in there:
            yield f"{name(document)}: service account {account} is missing"
        for volume in pod.get("volumes", []):
            config = (volume.get("configMap") or {}).get("name")
            if config and config not in bundles and ("ConfigMap", namespace, config) not in there:
                yield f"{name(document)}: config map {config} is missing"
    for document in documents:
        for webhook in document.get("webhooks", []):
            service = webhook["clientConfig"]["service"]
            if ("Service", service["namespace"], service["name"]) not in there:
                yield f"{name(document)}: service {service['name']} is missing"
        for subject in document.get("subjects", []):
            if subject["name"] != "default" and ("ServiceAccount", subject["namespace"], subject["name"]) not in there:
                yield f"{name(document)}: subject {subject['name']} is missing"


def hlm_11_bundles_are_granted_by_name(documents):
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


def hlm_11_ca_bundles_of_others_are_granted_when_asked_for(documents):
    """Webhooks, APIs and definitions of all names may be changed by the controller alone, where it is told to keep their caBundles."""
    kinds = {"mutatingwebhookconfigurations", "validatingwebhookconfigurations", "apiservices", "customresourcedefinitions"}
    asked = any(
        ((json.loads(text).get("signet") or {}).get("bundle") or {}).get("caBundles")
        for document in documents
        if (text := (document.get("data") or {}).get("controller.yaml"))
    )
    granted = {
        resource
        for role in documents
        if role["kind"] in ("Role", "ClusterRole")
        for rule in role["rules"]
        if not rule.get("resourceNames")
        for resource in rule.get("resources", [])
        if resource in kinds
    }
    if granted != (kinds if asked else set()):
        yield f"caBundles {'asked for' if asked else 'off'}, and granted are {sorted(granted)}"
