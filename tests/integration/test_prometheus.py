"""A real Prometheus (Debian's package) with our files, over a real exporter: all can be asked."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from deploy.exporter.collector import FleetCollector
from deploy.exporter.http import MetricsServer
from deploy.exporter.reader import Reader
from deploy.place import RedisUrls
from deploy.registry import Registry
from deploy.run_entry import RunEntry
from system.clock import SystemClock
from system.control.protocol import Event, Lease, ProcessMetrics
from system.control.redis import RedisControl
from system.metrics import CATALOGUE
from tests.servers_for_tests import free_port
from tests.waiting import DEADLINE_S, wait_until

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy/prometheus"
RULES = yaml.safe_load((FILES / "rules.yml").read_text())
BOARD = json.loads((ROOT / "deploy/grafana/dashboards/dreamfleet.json").read_text())
GAPS = re.compile(r"> 0$")
"""Expressions that show only what is wrong: nothing to see of a healthy fleet."""

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="no prometheus and promtool: make system-packages",
)


def promtool(*arguments):
    return subprocess.run(
        ["promtool", *arguments], cwd=FILES, capture_output=True, text=True, timeout=DEADLINE_S,
        check=False,
    )  # fmt: skip


def test_config_and_rules_are_valid():
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lint" not in done.stdout + done.stderr


def test_every_alert_fires_where_it_should_and_nowhere_else():
    done = promtool("test", "rules", "tests.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = {
        rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule
    }
    cases = yaml.safe_load((FILES / "tests.yml").read_text())["tests"]
    assert alerts == {case["name"] for case in cases} - {"rates"}
    for case in cases:
        samples = [test["exp_samples"] for test in case["promql_expr_test"]]
        assert samples[-1], f"{case['name']} never fires"
        assert case["name"] == "rates" or samples[0] == [], f"{case['name']} always fires"


@pytest.mark.slow
def test_the_test_of_the_alerts_can_fail(tmp_path):
    for path in FILES.glob("*.yml"):
        text = path.read_text().replace("> 0.85 *", "> 0.95 *")
        (tmp_path / path.name).write_text(text)
    done = promtool("test", "rules", str(tmp_path / "tests.yml"))
    assert done.returncode != 0
    assert "DreamfleetRedisFull" in done.stdout + done.stderr


class Fleet:
    """Snapshots with every number of the catalogue, as if a fleet wrote them."""

    def __init__(self, url, run_id):
        self.control, self.count = RedisControl(url, run_id), 0
        with_registry = Registry(url)
        with_registry.put(
            RunEntry(run_id=run_id, name="r", created_s=1.0, host="h", folder="/r",
                     config={"env": {"name": "CartPole-v1"}}, spec={})
        )  # fmt: skip
        with_registry.close()
        self.control.change_desired(actors=1)

    def tell(self):
        self.count += 1
        now_s = time.time()
        for role in ("actor", "learner", "evaluator"):
            values = {
                source.key: float(self.count)
                for metric in CATALOGUE
                for source in metric.sources
                if source.role == role
            }
            if self.count > 5:  # the second life of each
                values[f"{role}/started_s"] = 2.0
            lease = Lease(role=role, slot=0, incarnation=1, who="h:1:a", doing="x", time_s=now_s)
            self.control.renew(lease, ttl_s=10)
            self.control.put_metrics(
                ProcessMetrics(role=role, slot=0, time_s=now_s, values=values), ttl_s=60
            )
        self.control.record(Event(time_s=now_s, role="actor", slot=0, kind="gap", text=""))


class Prometheus:
    """The server on loopback, asked over its own interface."""

    def __init__(self, where, target):
        config = (FILES / "prometheus.yml").read_text()
        assert "127.0.0.1:9464" in config
        config = config.replace("127.0.0.1:9464", target).replace("5s", "300ms")
        (where / "prometheus.yml").write_text(config)
        shutil.copy(FILES / "rules.yml", where)
        self.url = f"http://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            ["prometheus", "--config.file", str(where / "prometheus.yml"),
             "--storage.tsdb.path", str(where / "data"), "--log.level", "error",
             "--web.listen-address", self.url.removeprefix("http://")],
            stdin=subprocess.DEVNULL, stdout=(where / "said").open("wb"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def ask(self, path, **query):
        words = urllib.parse.urlencode(query)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{words}", timeout=60) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def samples(self, expression):
        return self.ask("query", query=expression)["result"]


@pytest.fixture(scope="module")
def prometheus(redis_server, tmp_path_factory):
    clock = SystemClock()
    reader = Reader(RedisUrls(control=redis_server.url), "prometheus-1", clock)
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: reader.reading, clock))
    server = MetricsServer(registry, host="127.0.0.1", port=0, token="")
    fleet = Fleet(redis_server.url, "prometheus-1")
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{server.port}")
    over = threading.Event()

    def live():
        while not over.wait(0.3):
            fleet.tell()
            reader.read()

    def looked_often():
        with contextlib.suppress(OSError):
            return prometheus.samples(
                "count_over_time(dreamfleet_read_timestamp_seconds[5m]) > 8 "
                "and on() dreamfleet_starts_total{role='actor'} == 2"
            )

    living = threading.Thread(target=live)
    living.start()
    try:
        wait_until(looked_often, "scraped")
        yield prometheus
    finally:
        over.set()
        living.join()
        prometheus.process.terminate()
        prometheus.process.wait()
        server.close()
        reader.close()


def test_the_exporter_is_scraped_whole(prometheus):
    def healthy():  # one scrape may be late on a busy machine
        (target,) = prometheus.ask("targets")["activeTargets"]
        return (target["health"], target["lastError"]) == ("up", "")

    wait_until(healthy, "was scraped in time")
    names = set(prometheus.ask("label/__name__/values"))
    assert {name for name in names if name.startswith("dreamfleet_")} == {
        name for metric in CATALOGUE for name in metric.series
    }
    assert prometheus.samples('sum(dreamfleet_starts_total{role="actor"})')[0]["value"][1] == "2"


def panels():
    for panel in BOARD["panels"]:
        for target in panel.get("targets", []):
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")


@pytest.mark.parametrize("expression", panels())
def test_every_panel_can_be_asked_and_shows_something(prometheus, expression):
    asked = re.sub(r"\$(run|role|slot)\b", ".*", expression.replace("$__rate_interval", "1m"))
    assert "$" not in asked
    if not (GAPS.search(asked) or "ALERTS" in asked):
        wait_until(lambda: prometheus.samples(asked), "showed something")
    prometheus.samples(asked)


def test_every_rule_is_evaluated_without_an_error(prometheus):
    def rules():
        return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), "evaluated")
    assert len(rules()) == sum(len(group["rules"]) for group in RULES["groups"])
    for rule in rules():
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule["name"]
    for group in RULES["groups"]:
        for rule in group["rules"]:
            if "alert" not in rule:
                wait_until(lambda rule=rule: prometheus.samples(rule["expr"]), "gave something")
            prometheus.samples(rule["expr"])


def test_variables_of_the_dashboard_have_values(prometheus):
    for variable in BOARD["templating"]["list"]:
        series, label = re.fullmatch(
            r"label_values\((.*), (\w+)\)", variable["definition"]
        ).groups()
        found = wait_until(lambda of=series: prometheus.samples(of.replace("$run", ".*")))
        assert {one["metric"][label] for one in found}
