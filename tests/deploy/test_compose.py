"""The compose file: no engine runs it here; its promises can be checked, and its commands run
(tests/integration/test_entry_points.py)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy import robot
from deploy.compose_config import config_of
from deploy.exporter.http import read_token
from deploy.options import build_parser
from tests.deploy import manifests

ROOT = Path(__file__).parents[2]
SEEN = {
    "valkey": {"redis.conf", "users.acl"},
    "learner": {"learner.password", "actor.password"},
    "actors": {"actor.password"},
    "exporter": {"exporter.password", "metrics.token"},
    "prometheus": {"metrics.token"},
    "grafana": {"grafana.password"},
}
OURS = {"learner", "actors", "tools", "exporter"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `make fleet-folder` makes, where no environment has to be installed."""
    where = tmp_path_factory.mktemp("checkout")
    line = ["make", "-f", ROOT / "Makefile", "-o", ".venv/installed", "fleet-folder"]
    for _ in range(2):  # the second time nothing is made anew
        subprocess.run(
            [*line, f"BIN={Path(sys.executable).parent}"], cwd=where, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return where / "fleet"


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
    assert {services[name]["image"] for name in OURS} == {"dreamfleet:${DREAMFLEET_TARGET:-cuda}"}
    for name in set(services) - OURS:
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", services[name]["image"]), name


def test_each_service_sees_the_secrets_of_its_role_and_no_others(compose, services, folder):
    made = {path.name: path for path in (folder / "secrets").iterdir() if path.is_file()}
    assert set(compose["secrets"]) == set(made)
    assert {path.stat().st_mode & 0o077 for path in [folder, *made.values()]} == {0}
    for name in ("metrics.token", "grafana.password"):
        # Prometheus and Grafana take them as they are, an end of line too.
        assert read_token(str(made[name])) == made[name].read_text()
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"./fleet/secrets/{name}"}
    for name, seen in SEEN.items():
        assert set(services[name]["secrets"]) == seen
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"(?i)(password|token|secret)\w*\s*[:=]\s*[\"']?\w{8,}", text)
    for name in set(services) - {"grafana"}:
        assert set(services[name].get("environment", {})) <= {"HOME"}


def test_what_is_kept_lies_in_one_folder_that_is_made_and_not_committed(services, folder):
    assert "fleet/" in (ROOT / ".gitignore").read_text().split()
    for service in services.values():
        for volume in service.get("volumes", []):
            source, _, how = volume.partition(":")
            if source.startswith("./fleet/"):
                assert (folder.parent / source).is_dir(), source
            else:
                assert (ROOT / source).is_dir(), source
                assert how.endswith(":ro"), source


def test_redis_never_evicts(services, folder):
    assert "maxmemory-policy noeviction" in (folder / "secrets/redis.conf").read_text()
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


def test_prometheus_asks_the_exporter_with_its_token_and_grafana_asks_prometheus(services):
    plain, with_token = (
        yaml.safe_load((ROOT / "deploy/prometheus" / name).read_text())
        for name in ("prometheus.yml", "with-token.yml")
    )
    exporter = parsed(services["exporter"])
    [scrape] = with_token["scrape_configs"]
    assert scrape.pop("authorization") == {"credentials_file": exporter.token_file}
    assert scrape["static_configs"] == [{"targets": [f"exporter:{exporter.port}"]}]
    scrape["static_configs"] = plain["scrape_configs"][0]["static_configs"]
    assert with_token == plain
    assert "--config.file=/etc/prometheus/with-token.yml" in services["prometheus"]["command"]

    said = services["grafana"]["environment"]
    [source] = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text()
    )["datasources"]
    assert said[source["url"].removeprefix("$")] == "http://prometheus:9090"
    assert "--web.listen-address=0.0.0.0:9090" in services["prometheus"]["command"]
    [provider] = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/dashboards/dreamfleet.yaml").read_text()
    )["providers"]
    volumes = services["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in volumes
    assert said["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana.password"


def test_what_serves_is_watched_restarted_and_given_time_to_drain(services, tmp_path):
    for name in set(services) - {"tools"}:
        service = services[name]
        assert service["restart"] in ("unless-stopped", "on-failure")
        assert service["healthcheck"]["test"][0] == "CMD"
        if name in OURS:
            assert {"condition": "service_healthy"} in service["depends_on"].values()
            assert service["init"] is True
    grace_s = config_of(parsed(services["learner"]), tmp_path).fleet.grace_s
    assert seconds(services["learner"]) > 3 * grace_s
    assert seconds(services["actors"]) > robot.DRAIN_S + robot.SETTLE_S


def seconds(service):
    return int(service["stop_grace_period"].removesuffix("s"))
