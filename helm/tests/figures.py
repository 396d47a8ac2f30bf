"""Alerts and dashboard: rules and expressions as Prometheus reads them, over figures that the programs really have."""

import json
import re
import subprocess

import yaml

OURS = re.compile(r"(?:spire_server|spire_agent|signet_injector|signet_controller)_(.+)")
# Figures of Prometheus itself and of any process.
COMMON = {"up", "process_resident_memory_bytes"}


def panels(root):
    board = json.loads((root / "helm" / "signet" / "files" / "dashboard.json").read_text())
    return {f"panel {panel['title']} {target['refId']}": target["expr"] for panel in board["panels"] for target in panel["targets"]}


def asked(promcheck, rules, expressions):
    question = json.dumps({"rules": rules, "expressions": expressions})
    return json.loads(subprocess.run([promcheck], input=question, capture_output=True, text=True, timeout=60, check=True).stdout)


def hlm_08_rules_and_panels_are_promql_over_figures_that_there_are(root, promcheck, rules=None, expressions=None):
    rules = rules or (root / "helm" / "signet" / "files" / "alerts.yaml").read_text()
    expressions = panels(root) if expressions is None else expressions
    answer = asked(promcheck, rules, expressions)
    yield from answer["problems"]
    if answer["problems"]:
        return
    recorded = {rule["record"] for group in yaml.safe_load(rules)["groups"] for rule in group["rules"] if "record" in rule}
    source = "\n".join(path.read_text() for path in root.glob("crates/*/src/**/*.rs"))
    for where, names in answer["series"].items():
        for name in names:
            if name not in recorded | COMMON and not known(name, source):
                yield f"{where}: no program has {name}"


def known(name, source):
    found = OURS.fullmatch(name)
    if not found:
        return False
    bare = re.sub(r"_elapsed_time$|_bucket$", "", found[1])
    # Figures of gRPC methods are named by the method's path.
    return bare.startswith("rpc_") or f'"{bare}"' in source


def hlm_08_the_least_alerts_are_there(rules):
    """On the authority's end, late entries, errors of webhooks, agents without a server."""
    text = json.dumps(yaml.safe_load(rules))
    for what, figure in {
        "the authority's end": "x509_ca_rotate_expiration", "late entries": "signet_controller_time_to_entry",
        "errors of the webhook": "signet_injector_admission_requests", "agents without a server": "spire_agent_manager_sync_fetch_entries_updates",
    }.items():
        if figure not in text:
            yield f"no alert on {what}"
