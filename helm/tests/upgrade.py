"""What an upgrade may not change: fields that the API server holds fast, and objects that others rely on.

released/VERSION.json holds these of a released chart. `check.py --released VERSION` writes it, on the day of the release.
"""

import json
import pathlib

RELEASED = pathlib.Path(__file__).with_name("released")
# Values files whose rendering is kept of every release.
KEPT = ("default", "recommended", "server-store-pvc", "injector-five", "seed-server-guide", "seed-agent-guide")
WORKLOAD = (("spec", "selector"),)
BINDING = (("roleRef",),)
# Fields that cannot be changed once an object is there.
FIXED = {
    "Deployment": WORKLOAD,
    "DaemonSet": WORKLOAD,
    "StatefulSet": (*WORKLOAD, ("spec", "serviceName"), ("spec", "volumeClaimTemplates"), ("spec", "podManagementPolicy")),
    "Service": (("spec", "clusterIP"),),
    "ClusterRoleBinding": BINDING,
    "RoleBinding": BINDING,
    "CSIDriver": (("spec", "attachRequired"), ("spec", "volumeLifecycleModes")),
    "CustomResourceDefinition": (("spec", "group"), ("spec", "scope"), ("spec", "names")),
    # Without them what is there loses its name, its data or its account.
    "PersistentVolumeClaim": (("spec",),),
    "Namespace": (),
    "ServiceAccount": (),
}
# Objects that a newer chart leaves out on purpose, with the reason: "Kind namespace/name".
GONE = {}


def at(document, path):
    for key in path:
        document = (document or {}).get(key)
    return document


def fixed(documents):
    """Every such object with its fields, as JSON would give them back."""
    found = {}
    for document in documents:
        if document["kind"] in FIXED:
            metadata = document["metadata"]
            name = f"{document['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
            found[name] = {".".join(path): at(document, path) for path in FIXED[document["kind"]]}
    return json.loads(json.dumps(found))


def problems(old, new):
    for name, fields in old.items():
        if name not in new:
            if name not in GONE:
                yield f"{name}: an upgrade would remove it"
            continue
        for field, value in fields.items():
            if new[name].get(field) != value:
                yield f"{name}: {field} cannot be changed by an upgrade: {value} → {new[name].get(field)}"


def released():
    for path in sorted(RELEASED.glob("*.json")):
        yield path.stem, json.loads(path.read_text())


def write(version, renderings):
    RELEASED.mkdir(exist_ok=True)
    text = json.dumps({case: fixed(documents) for case, documents in renderings.items()}, indent=1, sort_keys=True)
    (RELEASED / f"{version}.json").write_text(text + "\n")
