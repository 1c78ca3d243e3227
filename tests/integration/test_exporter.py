"""`dreamfleet exporter` as a process, over a server with roles and a tiny fleet that acts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, closing
from itertools import pairwise

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.cli import main
from deploy.parts import build_actor, build_evaluator, build_learner
from deploy.place import RedisUrls, redis_place
from deploy.redis_server import find_server
from deploy.registry import Registry
from deploy.run_entry import RunEntry
from deploy.run_folder import RunFolder
from deploy.secrets import role_urls
from system.control.protocol import Event
from system.errors import Unavailable
from system.keys import Keys
from system.metrics import CATALOGUE, COUNTED, LEFT_OUT, MEASURED
from system.redis_client import connect
from tests.deploy.configs_for_tests import SPEC, small
from tests.fleet_for_tests import ENVIRONMENT
from tests.servers_for_tests import serving
from tests.waiting import DEADLINE_S, wait_until

STEPS = "dreamfleet_agent_steps_total"
SERIES = {name for metric in CATALOGUE for name in metric.series}
RISING = {
    name
    for metric in CATALOGUE
    if metric.kind in ("counter", "histogram")
    for name in metric.series
}


class Server:
    """A server whose files outlive it."""

    def __init__(self, where):
        self.where, self.secrets = where, where / "secrets"
        assert main(["secrets", str(self.secrets)]) == 0
        self.urls = RedisUrls(control=f"unix://{where}/redis.sock")
        self._stack, self.pid = ExitStack(), 0

    def url(self, role):
        return role_urls(self.urls, role, self.secrets).control

    def start(self):
        words = [str(self.secrets / "redis.conf"), "--port", "0"]
        words += ["--unixsocket", str(self.where / "redis.sock")]
        running = serving(find_server(), self.where / "data", *words, url=self.url("actor"))
        self.pid = self._stack.enter_context(running)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self._stack.close()


class Fleet:
    """The parts of a run, ticked by hand; each with the rights of its role."""

    def __init__(self, server, where):
        self.folder = RunFolder.create(where, small(frames=0), SPEC)
        self.record = self.folder.record()
        self.server = server
        self.register()
        place = self.place("learner")
        self.control = place.control
        self.control.change_desired(actors=1)
        self.learner = build_learner(self.record, self.folder.path, place)
        self.evaluator = build_evaluator(self.record, self.folder.path, place)
        self.actor = self.new_actor()
        self.taken = 0

    def place(self, role):
        return redis_place(role_urls(self.server.urls, role, self.server.secrets), self.run_id)

    def register(self):
        """As its supervisor does now and then."""
        with closing(Registry(self.server.url("learner"))) as registry:
            registry.put(RunEntry.of(self.folder))

    @property
    def run_id(self):
        return self.record.run_id

    def new_actor(self):
        return build_actor(self.record, 0, self.place("actor"))

    def until(self, condition, timeout_s=DEADLINE_S, words=str):
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, words()
            for part in (self.learner, self.actor, self.evaluator):
                part.tick()

    def told(self):
        return {one.role: one.values for one in self.control.metrics()}

    def stay(self):
        """Nobody ticks it while it is looked at: what it told last holds on."""
        for lease in self.control.leases():
            self.control.renew(lease, ttl_s=600)
        for metrics in self.control.metrics():
            self.control.put_metrics(metrics, ttl_s=600)

    def for_a_while(self, seconds):
        until_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > until_s)


class Exporter:
    """The command, and what it answers."""

    def __init__(self, server, *more):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "exporter", "--redis", server.urls.control,
             "--secrets", str(server.secrets), "--port", "0", *more],
            env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        said = self.process.stderr.readline()
        assert " at http://127.0.0.1:" in said, said + self.process.stderr.read()
        self.url = said.rpartition(" at ")[2].strip()

    def ask(self, **headers):
        request = urllib.request.Request(self.url, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def scrape(self):
        """(name, labels) -> value."""
        found = {}
        for family in text_string_to_metric_families(self.ask()):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in found
                found[key] = sample.value
        return found

    def until(self, condition, timeout_s=DEADLINE_S):
        deadline_s = time.monotonic() + timeout_s
        while not condition(found := self.scrape()):
            assert time.monotonic() < deadline_s, sorted(map(str, found.items()))
            time.sleep(0.1)
        return found

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        self.process.stderr.close()
        return code


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("exported"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def fleet(server, tmp_path_factory):
    fleet = Fleet(server, tmp_path_factory.mktemp("run"))

    def all_is_told():
        told = fleet.told()
        known = all(key in told.get(role, {}) for role, key in SHOWN.values())
        return known and told["learner"]["learner/updates"] > 3

    fleet.until(all_is_told)
    fleet.stay()
    return fleet


@pytest.fixture(scope="module")
def exporter(server):
    exporter = Exporter(server)
    yield exporter
    assert exporter.end() == 0


def value(found, name, /, **labels):
    """Of the only series that has these labels."""
    wanted = labels.items()
    (one,) = [v for (n, series), v in found.items() if n == name and wanted <= set(series)]
    return one


def total(found, name):
    return sum(value for (series, _), value in found.items() if series == name)


def lives(found):
    return any(name == "dreamfleet_up" for name, _ in found)


SHOWN = {
    STEPS: ("actor", "actor/agent_steps"),
    "dreamfleet_spool_fill_ratio": ("actor", "actor/spool_fill"),
    "dreamfleet_chunks_received_total": ("actor", "actor/chunks_received"),
    "dreamfleet_updates_total": ("learner", "learner/updates"),
    "dreamfleet_replay_steps": ("learner", "replay/steps"),
    "dreamfleet_evaluation_return_mean": ("evaluator", "eval/return_mean"),
}


def test_a_scrape_shows_what_the_fleet_told(exporter, fleet):
    told = fleet.told()
    expected = {name: told[role][key] for name, (role, key) in SHOWN.items()}
    assert expected["dreamfleet_updates_total"] > 3
    found = exporter.until(lambda found: {name: total(found, name) for name in SHOWN} == expected)
    run = {"run": fleet.run_id}
    assert value(found, STEPS, **run, role="actor", slot="0") == expected[STEPS]
    assert value(found, "dreamfleet_loss", **run, loss="reward") == told["learner"]["loss/reward"]
    for role in ("actor", "learner", "evaluator"):
        assert value(found, "dreamfleet_up", **run, role=role, slot="0") == 1
        assert value(found, "dreamfleet_starts_total", role=role) == 1
        seen_s = value(found, "dreamfleet_last_seen_timestamp_seconds", role=role)
        assert abs(time.time() - seen_s) < 600
    assert value(found, "dreamfleet_run_info", **run, env="CartPole-v1", name="small") == 1
    assert value(found, "dreamfleet_desired_actors", **run) == 1
    assert value(found, "dreamfleet_events_total", **run, kind="actor_claimed") == 1
    assert value(found, "dreamfleet_chunks_rejected_total", **run, reason="digest") == 0
    assert value(found, "dreamfleet_redis_up", server="control") == 1
    assert value(found, "dreamfleet_redis_memory_bytes", server="control") > 1e5
    steps = value(found, "dreamfleet_env_step_seconds_count", **run, role="actor")
    assert expected[STEPS] / 2 <= steps <= expected[STEPS], "two copies at once, or one resets"
    assert {name for name, _ in found} <= SERIES


def test_every_number_of_every_process_is_shown_or_left_out_on_purpose(fleet):
    # What is shown is told, but for what never happened here: a pole that falls soon ends dreams.
    rare = re.compile(
        r"actor/(chunks_(thinned|damaged)|share_(starting|wait))|replay/chunks_(rejected_.*|gaps)"
        r"|.*/le_.*|dream/error_(15|45)"
    )
    shown = {
        (source.role, source.key)
        for metric in CATALOGUE
        for source in metric.sources
        if not rare.fullmatch(source.key)
    }

    def untold():
        told = fleet.told()
        return {(role, key) for role, key in shown if key not in told.get(role, {})}

    fleet.until(lambda: not untold(), words=untold)
    fleet.stay()
    # And the other way round.
    told = {role: set(values) for role, values in fleet.told().items()}
    assert sorted(told) == ["actor", "evaluator", "learner"]
    known = COUNTED | MEASURED
    assert set.union(*told.values()) - set(known) == set(LEFT_OUT) - {"supervisor/started_s"}


def test_only_loopback_names_are_answered(exporter):
    for host in ("evil.example", "evil.example:9464", "127.0.0.1.evil.example", ""):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            exporter.ask(Host=host)
    assert "dreamfleet_redis_up" in exporter.ask(Host="localhost:1")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(exporter.url.replace("metrics", "other"))


def test_elsewhere_a_token_is_asked_for(server, tmp_path, capsys):
    line = ["exporter", "--redis", server.urls.control, "--secrets", str(server.secrets)]
    assert main([*line, "--host", "0.0.0.0"]) == 2
    assert "--token-file" in capsys.readouterr().err
    token = tmp_path / "token"
    for text in (None, "", "short", "x" * 20 + "\n\x00" + "y"):
        if text is not None:
            token.write_text(text)
        assert main([*line, "--token-file", str(token)]) == 2
        assert "--token-file" in capsys.readouterr().err
    token.write_text("a-long-enough-secret\n")
    exporter = Exporter(server, "--token-file", str(token))
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "a-long-enough-secret"}):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            exporter.ask(**given)
    answer = exporter.ask(Authorization="Bearer a-long-enough-secret", Host="anything")
    assert "dreamfleet_redis_up" in answer
    assert exporter.end() == 0


def test_mistakes_are_told_at_once(server, exporter, capsys):
    refused = f"unix://exporter:wrong@{server.urls.control.removeprefix('unix://')}"
    port = exporter.url.rpartition(":")[2].partition("/")[0]
    known = ["--redis", server.urls.control, "--secrets", str(server.secrets)]
    for line, said in (
        (["--redis", refused], "put user and password"),
        ([*known, "--port", port], "cannot listen on"),
        ([*known, "--port", "70000"], "cannot listen on"),
        (["--redis", "http://x"], "must start with redis"),
    ):
        assert main(["exporter", *line]) == 2
        assert said in capsys.readouterr().err


class Scraper:
    """Scrapes all the time."""

    def __init__(self, exporter):
        self.seen, self.failed = [], []
        self._exporter, self._over = exporter, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._over.is_set():
            try:
                self.seen.append(self._exporter.scrape())
            except Exception as error:  # noqa: BLE001
                self.failed.append(error)
            self._over.wait(0.05)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def test_scrapes_go_on_and_totals_never_decrease_whatever_dies(exporter, fleet, server):
    """kill -9 of Redis, then a new life of the actor; another exporter begins where this one is."""
    exporter.until(lives)
    with Scraper(exporter) as scraper:
        server.kill()
        exporter.until(lambda found: value(found, "dreamfleet_redis_up", server="control") == 0)
        fleet.for_a_while(0.5)
        server.start()
        exporter.until(lambda found: value(found, "dreamfleet_redis_up", server="control") == 1)
        fleet.for_a_while(1.2)
        before = told_steps(fleet)
        # What a life told between the exporter's last look and its end is lost to it.
        exporter.until(lambda found: total(found, STEPS) >= before)
        fleet.actor = fleet.new_actor()  # the old one is never ticked again: it is dead to all
        fleet.until(lambda: 0 < told_steps(fleet) < before)
        exporter.until(lambda found: total(found, STEPS) > before)
        exporter.until(lambda found: value(found, "dreamfleet_starts_total", role="actor") == 2)
        wait_until(lambda: len(scraper.seen) > 20, "scraped often")
    assert scraper.failed == []
    rises(scraper.seen)
    fleet.actor.close()
    connect(server.url("actor")).call("DEL", Keys(fleet.run_id).metrics("actor", 0))
    successor = Exporter(server)
    rises([scraper.seen[-1], successor.until(lives)])
    successor.end()


def told_steps(fleet):
    (one,) = [one.values for one in fleet.control.metrics() if one.role == "actor"]
    return one["actor/agent_steps"]


def rises(scrapes):
    for before, after in pairwise(scrapes):
        for (name, labels), count in before.items():
            if name in RISING and "reads" not in name and "saves" not in name:
                assert after[name, labels] >= count, (name, labels)


def test_a_wiped_redis_costs_no_totals_and_a_removed_run_leaves_nothing(exporter, fleet, server):
    before = exporter.until(lives)
    admin = connect(server.url("admin"))
    with closing(Registry(server.url("admin"))) as registry:
        registry.remove(fleet.run_id)
        after = exporter.until(lambda found: value(found, "dreamfleet_up", role="actor") == 0)
        assert total(after, STEPS) >= total(before, STEPS)
        assert admin.call("GET", Keys(fleet.run_id).totals) is None
    # Its supervisor speaks again: the store was only wiped.
    fleet.register()
    fleet.control.record(Event(time_s=1.0, role="learner", slot=0, kind="gap", text="x"))
    again = exporter.until(lambda found: value(found, "dreamfleet_events_total", kind="gap") > 0)
    rises([before, after, again])
    exporter.until(lambda _: admin.call("GET", Keys(fleet.run_id).totals) is not None)


@pytest.mark.slow
def test_it_waits_for_a_redis_that_is_not_there_yet(tmp_path):
    nowhere = Server(tmp_path)
    exporter = Exporter(nowhere)
    try:
        found = exporter.scrape()
        assert value(found, "dreamfleet_reads_total", outcome="ok") == 0
        with pytest.raises(Unavailable):
            connect(nowhere.url("admin")).call("PING")
        nowhere.start()
        exporter.until(lambda found: value(found, "dreamfleet_reads_total", outcome="ok") > 0)
        assert re.search(r"Error|connect", exporter.process.stderr.readline())
    finally:
        exporter.end()
        nowhere.kill()
