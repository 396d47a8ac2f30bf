"""Kubernetes' own schemas, strict, for several versions; and those of the custom resource definitions."""

import functools
import json
import pathlib

import jsonschema
import kubernetes_validate
from referencing import Registry, Resource

VERSIONS = ["1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
FOLDER = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def at_least(version, least):
    return VERSIONS.index(version) >= VERSIONS.index(least)


@functools.cache
def folder(version):
    found = sorted(FOLDER.glob(f"v{version}*-local-strict"))
    if not found:
        raise SystemExit(f"kubernetes-validate has no strict schemas of Kubernetes {version}")
    return found[-1]


@functools.cache
def definitions(version):
    return Resource.from_contents(json.loads((folder(version) / "_definitions.json").read_text()))


@functools.cache
def validator(version, kind, api_version):
    group, _, rest = api_version.partition("/")
    name = f"{group.split('.')[0]}-{rest}" if rest else group
    path = folder(version) / f"{kind.lower()}-{name}.json"
    if not path.exists():
        return None
    schema = json.loads(path.read_text())
    registry = definitions(version) @ (Resource.from_contents(schema) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def closed(schema):
    """The schema of a custom resource as the API server holds it with strict field validation: no unknown fields."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items() if key != "format"}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        schema["additionalProperties"] = False
    return schema


def custom(crds):
    """(kind, apiVersion) -> validator, of custom resource definitions."""
    found = {}
    for crd in crds:
        spec = crd["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"] = {**schema["properties"], "apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
            found[spec["names"]["kind"], f"{spec['group']}/{version['name']}"] = jsonschema.Draft202012Validator(schema)
    return found


def problems(document, customs, versions=VERSIONS):
    """What is wrong with a document, for each version that finds something."""
    kind, api_version = document["kind"], document["apiVersion"]
    if (kind, api_version) in customs:
        return [f"{error.json_path}: {error.message[:200]}" for error in customs[kind, api_version].iter_errors(document)]
    found = []
    for version in versions:
        one = validator(version, kind, api_version)
        if one is None:
            found.append(f"Kubernetes {version} has no {api_version} {kind}")
            continue
        found += [f"Kubernetes {version}: {error.json_path}: {error.message[:200]}" for error in one.iter_errors(document)]
    return found
