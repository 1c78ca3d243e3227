"""What deploy/k8s/ says, and the command lines in it."""

from __future__ import annotations

from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[2] / "deploy/k8s"


def kustomization():
    return yaml.safe_load((FOLDER / "kustomization.yaml").read_text())


def manifests():
    """Every object, with anchors resolved."""
    found = []
    for name in kustomization()["resources"]:
        found += [one for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]
    return found


def one(kind, name=None):
    """The only object of a kind, or the one of this name."""
    found = [
        each for each in manifests()
        if each["kind"] == kind and name in (None, each["metadata"]["name"])
    ]  # fmt: skip
    assert len(found) == 1, (kind, name)
    return found[0]


def templates():
    """Owner -> pod template, of everything that makes pods."""
    ray, job = one("RayCluster")["spec"], one("RayJob")["spec"]
    return {
        "valkey": one("StatefulSet")["spec"]["template"],
        "head": ray["headGroupSpec"]["template"],
        **{group["groupName"]: group["template"] for group in ray["workerGroupSpecs"]},
        "submitter": job["submitterPodTemplate"],
        "exporter": one("Deployment")["spec"]["template"],
    }


def containers():
    """(owner, pod spec, container) of every container."""
    return [
        (owner, template["spec"], container)
        for owner, template in templates().items()
        for container in template["spec"]["containers"]
    ]
