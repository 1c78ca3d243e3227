"""deploy/ray/cluster.yaml against Ray's own schema and preparation; it is run in
tests/integration/test_cluster.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

PATH = Path(__file__).parents[2] / "deploy/ray/cluster.yaml"


@pytest.fixture(scope="module")
def cluster():
    return yaml.safe_load(PATH.read_text())


def test_ray_takes_it(cluster, tmp_path, monkeypatch):
    from ray.autoscaler._private.util import prepare_config, validate_config

    # A cluster on premises keeps a file of its own state there.
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    prepared = prepare_config(cluster)
    validate_config(prepared)
    assert prepared["max_workers"] == len(cluster["provider"]["worker_ips"])


def test_a_field_ray_does_not_know_is_refused(cluster):
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**cluster, "worker_ips": []}))


def test_every_node_wants_the_token_and_tells_nobody(cluster):
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    for role in ("head", "worker"):
        line = cluster[f"{role}_start_ray_commands"][-1]
        assert "RAY_AUTH_MODE=token" in line
        assert "RAY_USAGE_STATS_ENABLED=0" in line


def test_ray_leaves_the_port_of_redis_alone(cluster):
    head = cluster["head_start_ray_commands"][-1]
    worker = cluster["worker_start_ray_commands"][-1]
    [port] = re.findall(r"--port=(\d+)", head)
    assert port != "6379"
    assert f"--address=$RAY_HEAD_IP:{port}" in worker
    assert "--dashboard-host=127.0.0.1" in head


def test_secrets_and_runs_are_not_copied_to_every_node(cluster):
    assert {"secrets", "runs", ".venv", "fleet"} <= set(cluster["rsync_exclude"])
    assert not any("secrets" in path for path in cluster["file_mounts"])
