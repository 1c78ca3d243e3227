"""Every command line of the compose file, the image and the manifests, as a plain process.

No container engine runs here: addresses and folders are put in place of the containers', nothing
else of a line is changed, and settings are added that make the run tiny. The lines of
deploy/ray/cluster.yaml are run in test_cluster.py.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml

from deploy.cli import main
from deploy.head import Head
from deploy.redis_server import find_server
from deploy.run_folder import RunFolder
from tests.deploy import manifests
from tests.fleet_for_tests import ENVIRONMENT, ROOT, TINY
from tests.servers_for_tests import free_port
from tests.waiting import DEADLINE_S, wait_until

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
ENTRYPOINT = json.loads(re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE).group(1))
TO_TINY = [*TINY, "--actors", "0"]
PROGRAMS = {
    "dreamfleet": [sys.executable, "-m", "deploy.cli"],
    "python": [sys.executable],
    "valkey-server": [find_server()],
    "valkey-cli": [shutil.which("valkey-cli") or shutil.which("redis-cli") or "no-valkey-cli"],
    "prometheus": ["prometheus"],
    "wget": ["wget"],
}
# What is not durable waits in the spool folder, which outlives the container.
LAST_WORD = r"slot 100\d: (nothing is left to send|\d+ chunks .* are left in)"


class Host:
    """What stands for a container: its folders, its network, and the processes in it."""

    def __init__(self, where):
        self.where, self.port = where, free_port()
        self.metrics_port, self.prometheus_port = free_port(), free_port()
        self.data = where / "data"
        self.data.mkdir()
        assert main(["secrets", str(where / "secrets")]) == 0
        (where / "secrets/metrics.token").write_text("a-long-enough-secret")
        self.folder = RunFolder(self.data / "runs/demo")
        self.processes = []

    def words(self, line):
        """The line with this machine's programs, addresses and folders."""
        words = PROGRAMS[line[0]] + [self._here(word) for word in line[1:]]
        if line[0].startswith("valkey"):
            words[1:1] = ["-p", str(self.port)] if line[0] == "valkey-cli" else []
            words += ["--port", str(self.port)] if line[0] == "valkey-server" else []
        if line[:2] == ["dreamfleet", "exporter"]:
            words += ["--port", str(self.metrics_port)]
        return words

    def start(self, line, name):
        """A process that serves; what it says is in `NAME.log`."""
        log = self.where / f"{name}.log"
        process = subprocess.Popen(
            self.words(line), cwd=self.data, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
            stdout=log.open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        process.said = log.read_text
        self.processes.append(process)
        return process

    def run(self, line):
        """A command to its end."""
        return subprocess.run(
            self.words(line), cwd=self.data, env=ENVIRONMENT, capture_output=True, text=True,
            timeout=DEADLINE_S, check=False,
        )  # fmt: skip

    def healthy(self, service):
        """What the engine's health check of this service says."""
        kind, *line = COMPOSE[service]["healthcheck"]["test"]
        assert kind == "CMD"
        if PROGRAMS.get(line[0]) == ["no-valkey-cli"]:
            pytest.skip("no valkey-cli or redis-cli; make system-packages")
        return self.run(line).returncode == 0

    def until(self, condition, what):
        def found():
            with contextlib.suppress(OSError):  # nobody listens there yet
                return condition()

        return wait_until(
            found, what, words=lambda: [each.said()[-2000:] for each in self.processes]
        )

    def updates(self):
        lines = list(self.folder.metrics()) if self.folder.exists() else []
        return max((line["updates"] for line in lines), default=0)

    def train_on(self):
        before = self.updates()
        self.until(lambda: self.updates() > before + 3, "trained on")

    def stop(self, process, service):
        """As the engine stops a container."""
        process.send_signal(signal.SIGTERM)
        self.ended(process, service)

    def ended(self, process, service):
        """The engine gives it so long; a busy machine may need more."""
        allowed_s = int(COMPOSE[service]["stop_grace_period"].removesuffix("s"))
        assert process.wait(allowed_s + DEADLINE_S) == 0, process.said()

    def end(self):
        if self.folder.exists():
            Head(self.folder).stop()
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def _here(self, word):
        for there, here in {
            "/run/secrets/dreamfleet": str(self.where / "secrets"),
            "/run/secrets": str(self.where / "secrets"),
            "/data": str(self.data),
            "redis://valkey:6379": f"redis://127.0.0.1:{self.port}",
            "0.0.0.0": "127.0.0.1",
            "exporter:9464": f"127.0.0.1:{self.metrics_port}",
            ", 9464": f", {self.metrics_port}",
            ":9090": f":{self.prometheus_port}",
            "/etc/prometheus": str(self.where / "scrape"),
            "path=/prometheus": f"path={self.where / 'series'}",
        }.items():
            word = word.replace(there, here)
        return "127.0.0.1" if word == "*" else word


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    host.end()


def service(name):
    """What the engine starts for it."""
    line = COMPOSE[name]["command"]
    own = {"valkey": [], "prometheus": ["prometheus"]}  # and what their images put before it
    return own.get(name, ENTRYPOINT) + line


with_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("wget")),
    reason="no prometheus or wget: make system-packages",
)

# The tests below are one story, told in order.


def test_redis_answers_its_health_check_and_nobody_without_a_password(host):
    assert not host.healthy("valkey")
    host.start(service("valkey"), "valkey")
    host.until(lambda: host.healthy("valkey"), "became healthy")
    [other] = manifests.one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    said = host.run(other["livenessProbe"]["exec"]["command"])
    assert "NOAUTH" in said.stdout + said.stderr


@with_prometheus
def test_prometheus_is_healthy_before_there_is_an_exporter(host):
    (host.where / "scrape").mkdir()
    for path in (ROOT / "deploy/prometheus").glob("*.yml"):
        text = host._here(path.read_text()).replace("5s", "1s")
        (host.where / "scrape" / path.name).write_text(text)
    host.prometheus = host.start(service("prometheus"), "prometheus")
    host.until(lambda: host.healthy("prometheus"), "became healthy")


def test_two_actors_feed_a_learner_that_has_none(host):
    host.learner = host.start(service("learner") + TO_TINY, "learner")
    assert not host.healthy("learner")
    host.until(lambda: host.healthy("learner"), "saw the learner live")
    assert not host.healthy("actors")
    host.actors = [host.start(service("actors"), f"actor{number}") for number in (0, 1)]
    host.until(lambda: host.updates() > 3, "trained")
    host.until(lambda: host.healthy("actors"), "saw the actors live")
    image = json.loads(re.search(r"^HEALTHCHECK .*\n *CMD (.*)$", DOCKERFILE, re.M).group(1))
    assert host.run(image).returncode == 0
    said = [host.until(lambda a=actor: re.search(r"slot (\d+)", a.said()), "took a slot")
            for actor in host.actors]  # fmt: skip
    assert {one.group(1) for one in said} == {"1000", "1001"}


def test_the_tools_see_the_run(host):
    url = next(word for word in service("tools") if word.startswith("redis://"))
    line = [*ENTRYPOINT, "status", "--json", "--redis", url, "--secrets", "/run/secrets"]
    host.until(lambda: json.loads(host.run(line).stdout)["actors"]["own"] == 2, "saw both actors")


def test_the_exporter_shows_the_fleet_to_whoever_has_the_token(host):
    assert not host.healthy("exporter")
    host.exporter = host.start(service("exporter"), "exporter")
    host.until(lambda: host.healthy("exporter"), "listened")
    url = f"http://127.0.0.1:{host.metrics_port}/metrics"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=60)

    def actors():
        asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return set(re.findall(r'dreamfleet_up{.*slot="(100\d)"} 1.0', answer.read().decode()))

    token = (host.where / "secrets/metrics.token").read_text()
    host.until(lambda: actors() == {"1000", "1001"}, "saw both actors")


@with_prometheus
def test_prometheus_scrapes_the_exporter(host):
    asked = urllib.parse.urlencode({"query": 'sum(dreamfleet_up{role="actor"})'})
    url = f"http://127.0.0.1:{host.prometheus_port}/api/v1/query?{asked}"

    def scraped():
        with urllib.request.urlopen(url, timeout=60) as answer:
            found = json.load(answer)["data"]["result"]
        return [float(one["value"][1]) for one in found]

    host.until(lambda: scraped() == [2.0], "scraped")
    host.stop(host.prometheus, "prometheus")
    host.stop(host.exporter, "exporter")


def test_the_exporter_of_the_manifest_is_that_of_the_compose_file(host):
    [container] = manifests.templates()["exporter"]["spec"]["containers"]
    assert host.words(ENTRYPOINT + container["args"]) == host.words(service("exporter"))


def test_a_stop_drains_and_the_same_line_goes_on(host):
    leaver, stayer = host.actors
    leaver.send_signal(signal.SIGTERM)
    host.stop(host.learner, "learner")
    assert host.folder.end().how == "stopped"
    assert not host.healthy("learner")
    before = host.updates()
    host.start(service("learner") + TO_TINY, "learner-again")
    host.until(lambda: host.updates() > before + 3, "went on")
    assert stayer.poll() is None
    host.ended(leaver, "actors")
    assert re.search(LAST_WORD, leaver.said())


def test_the_job_of_the_manifest_is_one_that_dreamfleet_takes(host):
    entrypoint = manifests.one("RayJob")["spec"]["entrypoint"]
    line = host._here(f"{entrypoint} --print-config").replace(
        "exec dreamfleet", f"exec {shlex.join(PROGRAMS['dreamfleet'])}"
    )
    answer = subprocess.run(
        ["bash", "-c", line], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    config = json.loads(answer.stdout)
    assert config["fleet"]["actors"] == 8
    assert config["fleet"]["secrets"] == str(host.where / "secrets")


def test_the_redis_of_the_manifest_is_that_of_the_compose_file(host):
    [container] = manifests.one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    both = [host.words(container["command"]), host.words(service("valkey"))]
    for words in both:
        del words[words.index("--maxmemory") + 1]
    assert both[0] == both[1]


def test_the_lines_of_the_cluster_are_ones_that_ray_takes():
    from ray.scripts.scripts import start

    cluster = yaml.safe_load((ROOT / "deploy/ray/cluster.yaml").read_text())
    for role in ("head", "worker"):
        line = cluster[f"{role}_start_ray_commands"][-1]
        words = shlex.split(line)
        context = start.make_context("start", words[words.index("start") + 1 :])
        assert context.params["head"] is (role == "head")


def test_the_image_says_what_it_can_do(host):
    command = json.loads(re.search(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE).group(1))
    assert "usage: dreamfleet" in host.run(ENTRYPOINT + command).stdout
