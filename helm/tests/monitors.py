"""Monitors: every program is asked for its figures, once, at a port that is there."""

from pods import name, of, workloads

FIGURES = {"metrics", "ctl-metrics"}


def endpoints(monitor):
    return monitor["spec"]["endpoints" if monitor["kind"] == "ServiceMonitor" else "podMetricsEndpoints"]


def selected(document, monitor):
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    labels = of(document)[0] if monitor["kind"] == "PodMonitor" else document["metadata"]["labels"]
    return document["metadata"]["namespace"] in monitor["spec"]["namespaceSelector"]["matchNames"] and wanted <= labels.items()


def ports(document):
    """The names of the ports of a Service or of a workload's pods."""
    if document["kind"] == "Service":
        return [port["name"] for port in document["spec"]["ports"]]
    return [port["name"] for container in of(document)[1]["containers"] for port in container.get("ports", [])]


def hlm_08_monitors_ask_every_program_once(documents):
    for kind in ("ServiceMonitor", "PodMonitor"):
        monitors = [document for document in documents if document["kind"] == kind]
        asked = {}
        for monitor in monitors:
            targets = [one for one in documents if one["kind"] == "Service"] if kind == "ServiceMonitor" else [one for one, _, _ in workloads(documents)]
            for endpoint in endpoints(monitor):
                found = [target for target in targets if selected(target, monitor) and endpoint["port"] in ports(target)]
                if len(found) != 1:
                    yield f"{name(monitor)}: port {endpoint['port']} is that of {[name(one) for one in found]}"
                for target in found:
                    pods = [one for one, _, _ in workloads(documents) if kind == "PodMonitor" and one is target or kind == "ServiceMonitor" and serves(target, one)]
                    for one in pods:
                        asked.setdefault((name(one), endpoint["port"]), []).append(name(monitor))
        there = {(name(one), port) for one, _, _ in workloads(documents) for port in FIGURES & set(ports(one))}
        if monitors and {key: 1 for key in there} != {key: len(value) for key, value in asked.items()}:
            yield f"{kind}s ask {asked}, figures are at {sorted(there)}"


def serves(service, document):
    same = service["metadata"]["namespace"] == document["metadata"]["namespace"]
    return same and service["spec"]["selector"].items() <= of(document)[0].items()
