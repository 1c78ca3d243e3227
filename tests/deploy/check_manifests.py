"""Holds the manifests against the schemas of CRDs; unknown fields are refused.

One command, with the CRDs of a checkout of KubeRay (`ray-operator/config/crd/bases`) and of one of
the Prometheus operator (`example/prometheus-operator-crd`)::

    python -m tests.deploy.check_manifests --crds PATH PATH

Pods, claims and network rules of Kubernetes' own kinds are held against the copies of their schemas
that lie inside RayCluster's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jsonschema
import yaml

from tests.deploy.manifests import manifests

POD = "RayCluster.spec.workerGroupSpecs.[].template"
VOLUME = f"{POD}.spec.volumes.[].ephemeral.volumeClaimTemplate.spec"
INNER = {
    ("StatefulSet", "spec.template"): POD,
    ("Deployment", "spec.template"): POD,
    ("StatefulSet", "spec.volumeClaimTemplates.[].spec"): VOLUME,
    ("PersistentVolumeClaim", "spec"): VOLUME,
    ("NetworkPolicy", "spec.ingress.[]"): "RayCluster.spec.networkPolicy.head.ingressRules.[]",
}


def schemas(*folders):
    """Kind -> its schema, closed, of every CRD in the folders."""
    found = {}
    for path in sorted(path for folder in folders for path in Path(folder).glob("*.yaml")):
        for crd in yaml.safe_load_all(path.read_text()):
            if crd and crd["kind"] == "CustomResourceDefinition":
                for version in crd["spec"]["versions"]:
                    if version["name"] == "v1":
                        kind = crd["spec"]["names"]["kind"]
                        found[kind] = closed(version["schema"]["openAPIV3Schema"])
    return found


def closed(schema):
    """The schema as the API server applies it with strict field validation."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: closed(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        out["properties"] = {key: closed(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            out.setdefault("additionalProperties", False)
    return out


def complaints(documents, known):
    """What is wrong, one line each."""
    found = []
    for document in documents:
        kind = document["kind"]
        name = f"{kind}/{document['metadata']['name']}"
        if kind in known:
            found += _complaints(name, document, known[kind])
        for (inner_kind, path), source in INNER.items():
            if inner_kind == kind:
                schema = _inside(known, source)
                for part in _parts(document, path.split(".")):
                    found += _complaints(f"{name} {path}", part, schema)
    return found


def _complaints(name, document, schema):
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{name}: {error.json_path}: {error.message}" for error in errors]


def _inside(known, source):
    kind, *path = source.split(".")
    schema = known[kind]
    for word in path:
        schema = schema["items"] if word == "[]" else schema["properties"][word]
    return schema


def _parts(value, path):
    if not path:
        return [value]
    if path[0] == "[]":
        return [part for one in value for part in _parts(one, path[1:])]
    return _parts(value[path[0]], path[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crds", required=True, nargs="+", metavar="PATH", help="their folders")
    known = schemas(*parser.parse_args().crds)
    missing = {"RayCluster", "RayJob", "PodMonitor"} - set(known)
    if missing:
        sys.exit(f"no CRD of {', '.join(sorted(missing))} in those folders")
    found = complaints(manifests(), known)
    for line in found:
        print(line)
    print(f"{len(manifests())} manifests, {len(found)} complaints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
