"""Alerts and dashboard: expressions that are well formed, over figures that the programs really have."""

import json
import re

import yaml

PREFIXES = ("spire_server_", "spire_agent_")
CLOSING = {")": "(", "]": "[", "}": "{"}


def expressions(root):
    files = root / "helm" / "signet" / "files"
    recorded = set()
    found = []
    for group in yaml.safe_load((files / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            found.append((rule.get("alert") or rule["record"], rule["expr"]))
            if "record" in rule:
                recorded.add(rule["record"])
    for panel in json.loads((files / "dashboard.json").read_text())["panels"]:
        found += [(panel["title"], target["expr"]) for target in panel["targets"]]
    return found, recorded


def balanced(expression):
    text = re.sub(r'"[^"]*"', '""', expression)
    stack = []
    for character in text:
        if character in "([{":
            stack.append(character)
        elif character in CLOSING and (not stack or stack.pop() != CLOSING[character]):
            return False
    return not stack and text.count('"') % 2 == 0


def problems(root):
    source = "\n".join(path.read_text() for path in root.glob("crates/*/src/**/*.rs"))
    found, recorded = expressions(root)
    for where, expression in found:
        if not balanced(expression):
            yield f"{where}: not balanced: {expression}"
        for name in re.findall(r"\b(?:spire_server|spire_agent|signet_injector|signet_controller)_[a-z0-9_]+", expression):
            if name in recorded or name in PREFIXES:
                continue
            bare = re.sub(r"_elapsed_time$|_bucket$", "", re.sub(r"^[a-z]+_[a-z]+_", "", name))
            # Figures of gRPC methods are named by the method's path.
            if not bare.startswith("rpc_") and f'"{bare}"' not in source:
                yield f"{where}: no program has {name}"
