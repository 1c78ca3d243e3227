"""The compose file: no engine runs it here; its promises can be checked, and its commands run
(tests/integration/test_entry_points.py)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy import robot
from deploy.cli import main
from deploy.compose_config import config_of
from deploy.options import build_parser
from tests.deploy import manifests

ROOT = Path(__file__).parents[2]
SEEN = {
    "valkey": {"redis.conf", "users.acl"},
    "learner": {"learner.password", "actor.password"},
    "actors": {"actor.password"},
}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


def parsed(service):
    assert all(isinstance(word, str) for word in service["command"])
    return build_parser().parse_all(service["command"])


def test_compose_itself_takes_the_file():
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("no docker-compose; make system-packages")
    answer = subprocess.run(
        [program, "-f", "docker-compose.yml", "config", "-q"], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (answer.returncode, answer.stderr) == (0, "")


def test_no_container_may_do_more_than_it_must(services):
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].startswith("${DREAMFLEET_USER:-1000:"), name
        assert not {"cap_add", "privileged", "network_mode", "pid", "devices"} & set(service), name


def test_ports_are_published_on_loopback_only(services):
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_images_are_pinned(services):
    [stateful] = manifests.one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert services["valkey"]["image"] == stateful["image"]
    ours = {service["image"] for name, service in services.items() if name != "valkey"}
    assert ours == {"dreamfleet:${DREAMFLEET_TARGET:-cuda}"}


def test_each_service_sees_the_secrets_of_its_role_and_no_others(compose, services, tmp_path):
    assert main(["secrets", str(tmp_path)]) == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert set(compose["secrets"]) == written
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"./fleet/secrets/{name}"}
    for name, seen in SEEN.items():
        assert set(services[name]["secrets"]) == seen
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"(?i)(password|token|secret)\w*\s*[:=]\s*[\"']?\w{8,}", text)
    for service in services.values():
        assert set(service.get("environment", {})) <= {"HOME"}


def test_what_is_kept_lies_in_one_folder_that_is_made_and_not_committed(services):
    assert "fleet/" in (ROOT / ".gitignore").read_text().split()
    made = (ROOT / "Makefile").read_text()
    for service in services.values():
        for volume in service.get("volumes", []):
            folder = volume.split(":")[0]
            assert folder.startswith("./fleet/")
            assert folder[2:] in made.replace("$(FLEET)", "fleet")


def test_redis_never_evicts(services, tmp_path):
    main(["secrets", str(tmp_path / "secrets")])
    assert "maxmemory-policy noeviction" in (tmp_path / "secrets/redis.conf").read_text()
    words = services["valkey"]["command"]
    assert "--maxmemory" in words
    assert "--maxmemory-policy" not in words


def test_the_commands_are_those_that_dreamfleet_takes(services, tmp_path):
    options = parsed(services["learner"])
    config = config_of(options, tmp_path)
    assert (config.fleet.actors, options.resume) == (0, True)
    actor = parsed(services["actors"])
    assert (actor.redis, actor.run) == (config.fleet.redis, config.run)
    assert config.fleet.redis == "redis://valkey:6379"
    assert {options.secrets, actor.secrets} == {"/run/secrets"}
    assert parsed(services["tools"]).command == "doctor"


def test_what_serves_is_watched_restarted_and_given_time_to_drain(services, tmp_path):
    for name in ("valkey", "learner", "actors"):
        service = services[name]
        assert service["restart"] in ("unless-stopped", "on-failure")
        assert service["healthcheck"]["test"][0] == "CMD"
        if name != "valkey":
            assert {"condition": "service_healthy"} in service["depends_on"].values()
            assert service["init"] is True
    grace_s = config_of(parsed(services["learner"]), tmp_path).fleet.grace_s
    assert seconds(services["learner"]) > 3 * grace_s
    assert seconds(services["actors"]) > robot.DRAIN_S + robot.SETTLE_S


def seconds(service):
    return int(service["stop_grace_period"].removesuffix("s"))
