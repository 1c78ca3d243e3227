"""The compose file cannot be run here (no engine); its promises can be checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from deploy.compose_config import config_of
from deploy.options import build_parser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def services():
    data = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert set(data) == {"name", "services", "volumes"}
    for service in data["services"].values():
        for volume in service["volumes"]:
            assert volume.split(":")[0] in data["volumes"]
    return data["services"]


def test_ports_are_published_on_loopback_only(services):
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_redis_never_evicts_and_says_when_it_is_ready(services):
    words = services["redis"]["command"]
    assert all(isinstance(word, str) for word in words)
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
    assert "--maxmemory" in words
    assert services["redis"]["healthcheck"]["test"] == ["CMD", "valkey-cli", "ping"]
    assert services["train"]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_the_command_is_one_that_dreamfleet_takes(services, tmp_path):
    words = services["train"]["command"]
    assert all(isinstance(word, str) for word in words)
    config = config_of(build_parser().parse_all(words), tmp_path)
    assert config.fleet.redis == "redis://redis:6379"
    assert config.run == "demo"


def test_a_stop_leaves_time_to_drain(services, tmp_path):
    words = services["train"]["command"]
    grace_s = config_of(build_parser().parse_all(words), tmp_path).fleet.grace_s
    allowed = services["train"]["stop_grace_period"]
    assert services["train"]["stop_signal"] == "SIGTERM"
    assert int(allowed.removesuffix("s")) > 2 * grace_s


def test_images_are_pinned(services):
    for name, service in services.items():
        if "build" not in service:
            assert re.search(r":\d", service["image"]), name


def test_the_dockerfile_copies_what_exists_and_drops_root():
    lines = (ROOT / "deploy/docker/Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER dreamfleet"]
    assert re.match(r"FROM python:3\.11-", next(line for line in lines if line.startswith("FROM")))
