"""NetworkPolicies: who reaches which port, and where each pod may go, read as the network reads them."""

import json

from pods import matches, name, of, workloads

DNS = {(53, "UDP"), (53, "TCP")}
ANY = "anybody"
# Ports that the API server or anybody asks; the others of a program are for the kubelet of the node, which no policy stops.
WEBHOOK, FIGURES = {"webhook"}, {"metrics", "ctl-metrics"}


def policies(documents, document):
    return [
        policy
        for policy in documents
        if policy["kind"] == "NetworkPolicy"
        and policy["metadata"]["namespace"] == document["metadata"]["namespace"]
        and matches(policy["spec"]["podSelector"], of(document)[0])
    ]


def ingress(policy):
    """{port's name: who, as JSON}."""
    found = {}
    for rule in policy["spec"].get("ingress") or []:
        for port in rule.get("ports", [{"port": "every port"}]):
            found.setdefault(port["port"], set()).add(json.dumps(rule["from"], sort_keys=True) if rule.get("from") else ANY)
    return found


def egress(policy):
    """Ports that the pod may ask, wherever they are."""
    return {
        (port["port"], port.get("protocol", "TCP"))
        for rule in policy["spec"].get("egress") or []
        for port in rule.get("ports", [{"port": "every port"}])
    }


def values_of(documents, key):
    """The configuration of a program, as it is rendered."""
    for document in documents:
        if document["kind"] == "ConfigMap" and key in document["data"]:
            return json.loads(document["data"][key])
    return {}


def hlm_06_every_pod_has_one_policy_or_the_nodes_network(documents):
    if not any(document["kind"] == "NetworkPolicy" for document in documents):
        return
    for document, component, spec in workloads(documents):
        if component == "signet-test":
            continue
        found = policies(documents, document)
        if len(found) != (0 if spec.get("hostNetwork") else 1):
            yield f"{name(document)}: {len(found)} network policies"
        for policy in found:
            if set(policy["spec"]["policyTypes"]) != {"Ingress", "Egress"}:
                yield f"{name(policy)}: {policy['spec']['policyTypes']}: the other way is open"
    for policy in documents:
        if policy["kind"] == "NetworkPolicy" and not any(policy in policies(documents, document) for document, _, _ in workloads(documents)):
            yield f"{name(policy)}: it selects no pod"


def hlm_06_only_ports_that_are_asked_are_open(documents):
    """gRPC to agents, webhooks to anybody (the API server has no label), figures; no port that no container has."""
    for document, component, spec in workloads(documents):
        declared = {port["name"] for container in spec["containers"] for port in container.get("ports", [])}
        asked = declared & ({"grpc"} | WEBHOOK | FIGURES)
        for policy in policies(documents, document):
            opened = ingress(policy)
            if set(opened) != asked:
                yield f"{name(policy)}: open are {sorted(map(str, opened))}, asked are {sorted(asked)}"
            for port in WEBHOOK & set(opened):
                if opened[port] != {ANY}:
                    yield f"{name(policy)}: the API server cannot reach {port}"


def hlm_06_agents_alone_ask_the_server(documents):
    """Where agents are pods with addresses of their own, they are named; on the node's network no selector finds them."""
    agents = [(document, spec) for document, component, spec in workloads(documents) if component == "spire-agent"]
    for document, component, _ in workloads(documents):
        for policy in policies(documents, document) if component == "spire-server" else []:
            who = ingress(policy).get("grpc", set())
            for agent, spec in agents:
                for peers in map(json.loads, who - {ANY}):
                    if not spec.get("hostNetwork") and not any(takes(peer, agent) for peer in peers):
                        yield f"{name(policy)}: {name(agent)} cannot ask the server"
                if ANY in who and not spec.get("hostNetwork"):
                    yield f"{name(policy)}: anybody may ask the server, not agents alone"


def takes(peer, document):
    if "ipBlock" in peer:
        return True
    namespace = {"kubernetes.io/metadata.name": document["metadata"]["namespace"]}
    pods = peer.get("podSelector")
    return matches(peer.get("namespaceSelector", {}), namespace) and (pods is None or matches(pods, of(document)[0]))


def hlm_06_figures_are_for(documents, peer):
    for policy in (document for document in documents if document["kind"] == "NetworkPolicy"):
        for port, who in ingress(policy).items():
            if port in FIGURES and who != {json.dumps([peer], sort_keys=True)}:
                yield f"{name(policy)}: {port} is open to {who}"


def hlm_06_pods_go_where_they_need_to(documents):
    """Names and the API server; agents also to the server, the kubelet and where their bundle is; the CSI driver nowhere."""
    agent = values_of(documents, "agent.conf")
    for document, component, _ in workloads(documents):
        for policy in policies(documents, document):
            ways = egress(policy)
            if component == "spiffe-csi-driver":
                if ways:
                    yield f"{name(policy)}: the driver asks nobody, and may ask {sorted(map(str, ways))}"
                continue
            missing = set(DNS)
            if component == "spire-agent":
                missing |= agent_ways(agent)
            if missing - ways or any(port == "every port" for port, _ in ways):
                yield f"{name(policy)}: its pods must reach {sorted(missing - ways)}, and may reach {sorted(map(str, ways))}"
            if component != "spire-agent" and not {port for port, protocol in ways if protocol == "TCP"} - {53}:
                yield f"{name(policy)}: its pods cannot reach the API server"


def agent_ways(conf):
    kubelet = conf["plugins"]["WorkloadAttestor"].get("k8s", {}).get("plugin_data", {}).get("kubelet_secure_port", 10250)
    found = {(conf["agent"]["server_port"], "TCP"), (kubelet, "TCP")}
    if url := conf["agent"].get("trust_bundle_url"):
        host = url.split("://", 1)[1].split("/")[0]
        found.add((int(host.rpartition(":")[2]) if ":" in host else 443, "TCP"))
    return found
