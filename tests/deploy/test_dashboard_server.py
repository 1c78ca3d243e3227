"""The page's server, for real: over a Redis, and over a folder alone."""

from __future__ import annotations

import base64
import csv
import io
import json
import time
from contextlib import closing, suppress

import numpy as np
import pytest
from PIL import Image

from actors.config import EnvConfig
from deploy.dashboard.folders import FolderRuns
from deploy.dashboard.remote import RemoteRuns
from deploy.dashboard.server import PageServer
from deploy.place import RedisUrls
from deploy.redis_server import EmbeddedRedis
from deploy.registry import Registry
from deploy.run_folder import End, RunFolder
from system.clock import SystemClock
from system.control.protocol import Event, Point, ProcessMetrics
from system.dream_codec import encode_dream
from system.errors import ConfigError, Unavailable
from system.redis_client import as_bytes, connect
from tests.deploy.configs_for_tests import SPEC, small
from tests.deploy.page_for_tests import Page
from tests.deploy.remote_for_tests import LEARNER, Remote
from tests.dreams_for_tests import dream_report
from tests.security import attack
from tests.waiting import wait_until

SCRIPT = "<script>alert(1)</script>"


def serving(runs, **more):
    return closing(PageServer(runs, SystemClock(), port=0, **more))


@pytest.fixture
def page(remote, url):
    """Of a Redis with one run that lives."""
    remote.drive()
    remote.lease("learner", doing="updated")
    with serving(RemoteRuns(RedisUrls(control=url), SystemClock())) as server:
        yield Page(server.url)


def metrics_line(time_s, frames, **more):
    line = {"time_s": time_s, "frames": frames, "updates": frames // 4}
    return line | {name.replace("__", "/"): value for name, value in more.items()}


RETURNS = [20.0, 100.0, 300.0, 480.0, 490.0, 500.0]


def rested(where, name="done", env="CartPole-v1"):
    """The folder of a run that has finished."""
    folder = RunFolder.create(where, small(run=name, env=EnvConfig(name=env)), SPEC)
    with folder.metrics_path.open("w") as file:
        for number, mean in enumerate(RETURNS):
            lines = [
                metrics_line(10.0 * number, 100 * number, replay__ratio=8.0, loss__dynamics=1.5),
                metrics_line(10.0 * number, 100 * number, eval__return_mean=mean,
                             eval__return_std=2.0, eval__episodes=2.0),
            ]  # fmt: skip
            file.writelines(json.dumps(line) + "\n" for line in lines)
    folder.write_control("ray", "unix:///nowhere.sock", 0.0)
    folder.write_end(End(how="finished"))
    return folder


def test_a_run_of_a_redis_as_it_lives(page, remote):
    with page.stream() as stream:
        now = stream.until(lambda: stream.newest("now"))
        assert (now["run"]["id"], now["run"]["phase"]) == (remote.run_id, "running")
        assert now["progress"]["frames"] == 120
        assert (now["fleet"]["desired"], now["fleet"]["running"]) == (2, 1)
        assert [(row["role"], row["slot"], row["up"]) for row in now["fleet"]["rows"]] == [
            ("supervisor", 0, True), ("learner", 0, True), ("actor", 0, True), ("actor", 1, False),
        ]  # fmt: skip
        (listed,) = stream.newest("runs")
        assert (listed["id"], listed["name"], listed["alive"]) == (remote.run_id, "small", True)
        # Everything that happens arrives by itself.
        for number, mean in enumerate((5.0, 9.0)):
            values = {"frames": 100.0 * number, "updates": 1.0, "elapsed_s": 3.0,
                      "eval/return_mean": mean, "eval/return_std": 1.0}  # fmt: skip
            remote.control.remember(Point(time_s=1.7e9, values=values))
        event = Event(time_s=time.time(), role="actor", slot=1, kind="actor_pending", text=SCRIPT)
        remote.control.record(event)
        remote.control.put_blob("dream", encode_dream(dream_report()), ttl_s=60)
        stream.until(lambda: [point["mean"] for point in stream.points()] == [5.0, 9.0])
        stream.until(lambda: stream.newest("events"))
        assert stream.newest("events")[-1]["text"] == SCRIPT
        stream.until(lambda: stream.newest("dream"))
        assert stream.newest("dream") == {"update": 17, "frames": 400, "time_s": 1.7e9}
        health = stream.until(lambda: stream.newest("now")["health"]["gap_ratio"] and
                              stream.newest("now")["health"])  # fmt: skip
        assert (health["gap_ratio"], health["gap_alarm"]) == (0.75, True)
        rows = stream.newest("now")["fleet"]["rows"]
        assert rows[-1]["reason"] == SCRIPT
    # What was missed, and nothing else.
    with page.stream(remote.run_id, stream.last_id) as again:
        again.until(lambda: len(again.of("now")) > 1)
        assert not any(piece["reset"] for piece in again.of("curve"))
        assert again.points() == again.of("events") == []


def test_buttons(page, remote):
    run = remote.run_id
    assert page.post("/api/scale", run=run, delta=1) == (200, {"desired": 3})
    assert page.post("/api/scale", run=run, delta=-2) == (200, {"desired": 1})
    assert remote.control.desired().actors == 1
    assert page.post("/api/slot", run=run, slot=0, action="drain") == (200, {})
    assert remote.control.desired().held == [0]
    with page.stream(run) as stream:
        row = stream.until(
            lambda: stream.newest("now") and stream.newest("now")["fleet"]["rows"][-1]
        )
        assert (row["slot"], row["held"], row["restartable"]) == (0, True, True)
    status, answer = page.post("/api/slot", run=run, slot=7, action="drain")
    assert (status, "slot=7 is not one of" in answer["error"]) == (400, True)
    assert page.post("/api/slot", run=run, slot=0, action="explode")[0] == 400
    assert page.post("/api/slot", run=run, slot=-1, action="drain")[0] == 400
    assert page.post("/api/scale", run="nobody-1", delta=1)[0] == 404
    assert page.post("/api/scale", run=run, delta=0)[0] == 400
    assert page.post("/api/scale", delta=1)[0] == 404
    remote.end()
    status, answer = page.post("/api/scale", run=run, delta=1)
    assert (status, "is not running" in answer["error"]) == (409, True)
    assert remote.control.desired().actors == 1


def test_a_dream_and_its_pictures(page, remote):
    report = dream_report()
    remote.control.put_blob("dream", encode_dream(report), ttl_s=60)
    dream = page.ask("/api/dream", run=remote.run_id)
    assert (dream["update"], dream["parting_step"], dream["examples"]) == (17, 2, [0, 1])
    assert dream["error"]["earlier"]["update"] == 8
    np.testing.assert_allclose(dream["error"]["model"], report.model_error, rtol=1e-5)
    first, example = dream["vectors"][0], report.examples[0]
    assert first["name"] == "position[0]"
    np.testing.assert_allclose(first["real"], example.vectors[0].real, rtol=1e-5)
    np.testing.assert_allclose(first["high"], example.vectors[0].high, rtol=1e-5)
    (film,) = dream["images"]
    steps, height, width, _ = example.images[0].real.shape
    assert (film["frames"], film["width"], film["height"]) == (steps, width, height)
    strips = [_pixels(film[name]) for name in ("real", "dreamed", "error")]
    frames = [example.images[0].real, example.images[0].dreamed]
    for strip, expected in zip(strips, frames, strict=False):
        for step in range(steps):
            shown = strip[:, step * width : (step + 1) * width]
            np.testing.assert_array_equal(shown, expected[step])
    far = np.abs(frames[0].astype(int) - frames[1]).mean(-1)
    np.testing.assert_array_equal(strips[2][:, :width], far[0].astype(np.uint8))
    other = page.ask("/api/dream", run=remote.run_id, example=1)
    assert (other["example"], other["images"], len(other["reward"]["real"])) == (1, [], 4)
    assert page.ask("/api/dreams", run=remote.run_id) == [
        {"update": 17, "frames": None, "time_s": 1.7e9}
    ]
    assert page.ask("/api/dream", run=remote.run_id, update=17)["update"] == 17
    assert page.get("/api/dream", run=remote.run_id, update=18).status == 404
    assert page.get("/api/dream", run=remote.run_id, update="x").status == 400
    remote.control.put_blob("dream", b"not a dream", ttl_s=60)
    assert page.get("/api/dream", run=remote.run_id).status == 500


def _pixels(data_url):
    head, _, text = data_url.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_a_finished_run_from_its_folder_alone(tmp_path):
    folder = rested(tmp_path)
    rested(tmp_path, name="other", env=SCRIPT)
    (folder.path / "checkpoints" / "00001-000000100").mkdir(parents=True)
    run = folder.record().run_id
    with serving(FolderRuns(tmp_path)) as server:
        page = Page(server.url)
        newest = page.ask("/api/now", run=run)
        status, answer = page.post("/api/scale", run=run, delta=1)
        assert (status, "not running" in answer["error"]) == (409, True)
    assert [(one["name"], one["env"], one["phase"]) for one in newest["runs"]] == [
        ("done", "CartPole-v1", "finished"), ("other", SCRIPT, "finished"),
    ]  # fmt: skip
    now, points = newest["now"], newest["curve"]["points"]
    assert (now["run"]["alive"], now["run"]["ended"]) == (False, "finished")
    assert (now["verdict"]["learning"], now["verdict"]["healthy"]) == ("yes", "yes")
    assert (now["progress"]["frames"], now["progress"]["frames_per_s"]) == (500, None)
    assert (now["replay"]["ratio"], now["health"]["kl_nats"]) == (8.0, 1.5)
    assert now["fleet"]["rows"] == []
    assert [one["mean"] for one in points if one["kind"] == "evaluation"] == RETURNS
    saved = [(one["updates"], one["frames"]) for one in points if one["kind"] == "checkpoint"]
    assert saved == [(100, 400)]


def test_what_can_be_taken_away(tmp_path):
    folder = rested(tmp_path)
    (folder.path / "dreams").mkdir()
    for update in (5, 17):
        report = dream_report(update=update, earlier_update=None, earlier_error=None)
        path = folder.path / "dreams" / f"{update:09d}.dream"
        path.write_bytes(encode_dream(report))
    run = folder.record().run_id
    with serving(FolderRuns(tmp_path)) as server:
        page = Page(server.url)
        assert page.ask("/api/now", run=run)["dream"]["update"] == 17
        assert [one["update"] for one in page.ask("/api/dreams", run=run)] == [5, 17]
        assert page.ask("/api/dream", run=run, update=5)["update"] == 5
        told = page.get("/download/curve.csv", run=run)
        assert told.headers["content-disposition"] == 'attachment; filename="done-curve.csv"'
        rows = list(csv.DictReader(io.StringIO(told.body.decode())))
        assert [float(row["mean"]) for row in rows] == RETURNS
        film = page.get("/download/film.gif", run=run, update=17)
        assert film.headers["content-type"] == "image/gif"
        assert Image.open(io.BytesIO(film.body)).n_frames > 1
        assert page.get("/download/policy.safetensors", run=run).status == 404


def test_a_tab_without_a_wish_sees_the_run_that_goes_on(tmp_path):
    rested(tmp_path, name="older")
    alive = RunFolder.create(tmp_path, small(run="alive"), SPEC)
    with serving(FolderRuns(tmp_path)) as server, alive.locked():
        page = Page(server.url)
        assert page.ask("/api/now")["now"]["run"]["name"] == "alive"
        with page.stream() as stream:
            stream.until(lambda: stream.newest("now"))
            assert stream.newest("now")["run"]["name"] == "alive"
    with serving(FolderRuns(tmp_path), first_run="older") as server:
        assert Page(server.url).ask("/api/now")["now"]["run"]["name"] == "older"
    with serving(FolderRuns(tmp_path / "empty")) as server, Page(server.url).stream() as stream:
        stream.until(lambda: stream.newest("runs") == [])


def test_redis_is_asked_only_while_somebody_looks(page, remote, url):
    with closing(connect(url)) as connection:

        def asked():
            info = as_bytes(connection.call("INFO", "commandstats")).decode()
            (calls,) = [line for line in info.splitlines() if line.startswith("cmdstat_scan:")]
            return int(calls.partition("calls=")[2].partition(",")[0])

        def quiet():
            before, until_s = asked(), time.monotonic() + 2.5
            while time.monotonic() < until_s:
                if asked() != before:
                    return False
                time.sleep(0.1)
            return True

        with page.stream() as one, page.stream() as two:
            one.until(lambda: len(one.of("now")) > 2 and len(two.of("now")) > 2)
            wait_until(lambda: not quiet(), "asked")
        wait_until(quiet, "fell quiet")


def test_redis_goes_away_and_comes_back(tmp_path):
    server = EmbeddedRedis(tmp_path / "redis", max_memory_bytes=64 * 1024**2)
    server.start()
    try:
        remote = Remote(tmp_path / "home", server.url).drive()
        runs = RemoteRuns(RedisUrls(control=server.url), SystemClock())
        with serving(runs) as web, Page(web.url).stream() as stream:
            page = Page(web.url)
            seen = stream.until(lambda: stream.newest("now"))
            server.stop()
            gone = stream.until(lambda: "old" in stream.newest("now")["verdict"]["healthy_text"]
                                and stream.newest("now"))  # fmt: skip
            assert gone["verdict"]["healthy"] == "warn"
            assert gone["progress"] == seen["progress"] | {"frames_per_s": None}
            assert len(gone["fleet"]["rows"]) == len(seen["fleet"]["rows"])
            status, answer = page.post("/api/scale", run=remote.run_id, delta=1)
            assert (status, answer["error"].count("\n")) == (503, 0)
            server.start()
            with closing(Registry(server.url)) as registry:
                registry.put(remote.entry)
            with suppress(Unavailable):  # its connection is told of the loss once
                remote.drive()
            remote.drive()
            stream.until(lambda: stream.newest("now")["time_s"] > gone["time_s"])
    finally:
        server.stop()


def test_figures_that_cannot_be_are_left_out(page, remote):
    values = LEARNER | {"learner/frames": float("nan"), "replay/fill": float("inf")}
    remote.control.put_metrics(
        ProcessMetrics(role="learner", slot=0, time_s=0.0, values=values), ttl_s=60
    )
    now = page.ask("/api/now", run=remote.run_id)["now"]
    assert (now["progress"]["frames"], now["replay"]["fill"]) == (None, None)


def test_the_attack(tmp_path):
    """Everything `tests/security/attack.py` tries is refused."""
    rested(tmp_path, env=SCRIPT)
    with serving(FolderRuns(tmp_path)) as server:
        target, count = attack.Target(server.url), 0
        assert target.entered.status == 303
        assert target.entered.headers["location"] == "/"
        cookie = target.entered.headers["set-cookie"].lower()
        assert {"httponly", "path=/", "samesite=strict"} <= set(cookie.split("; "))
        assert server.token not in cookie
        for attempt in attack.attempts(target):
            answer = target.ask(attempt)
            assert attack.wrong_with(attempt, answer) == "", (attempt, answer)
            count += 1
        assert count > 150
        page = Page(server.url)
        assert b"<" not in page.get("/api/now").body
        assert page.get("/").headers["content-type"] == "text/html; charset=utf-8"
        injected = page.get("/", token=server.token, run="x\r\nX-Injected: 1")
        assert (injected.status, "x-injected" in injected.headers) == (303, False)


def test_the_attack_would_notice(tmp_path, monkeypatch):
    rested(tmp_path)
    with serving(FolderRuns(tmp_path)) as server:
        target = attack.Target(server.url)
        monkeypatch.setattr("deploy.dashboard.access.Access.refusal", lambda *_: None)
        monkeypatch.setattr("deploy.dashboard.guard.HEADERS", {})
        open_door = [attack.wrong_with(one, target.ask(one)) for one in attack.attempts(target)
                     if one.what in ("no cookie", "wrong Host", "foreign Origin")
                     and one.path != "/stream"]  # fmt: skip
        assert len(open_door) > 20
        assert all(open_door)


def test_a_public_page_needs_a_token_and_a_taken_port_is_named(tmp_path):
    runs = FolderRuns(tmp_path)
    with pytest.raises(ConfigError, match="--token-file"):
        PageServer(runs, SystemClock(), host="0.0.0.0", port=0)
    with serving(runs) as server, pytest.raises(ConfigError, match="cannot listen on"):
        PageServer(runs, SystemClock(), port=server.port)
    token = "a-secret-of-many-letters"
    with serving(runs, token=token) as server:
        assert server.url.endswith(f"?token={token}")
        assert Page(server.url).get("/").status == 200


def test_two_pages_take_two_ports(tmp_path):
    def new():
        return closing(PageServer(FolderRuns(tmp_path), SystemClock()))

    with new() as one, new() as two:
        assert two.port > one.port >= 8700
        assert Page(one.url).get("/").status == Page(two.url).get("/").status == 200


def test_a_config_of_another_version_is_shown_too(tmp_path):
    folder = rested(tmp_path)
    path = folder.path / "config.json"
    data = json.loads(path.read_text())
    data["config"] = {"env": {"name": "Old-v0", "unknown": 1}, "frames": "many"}
    path.write_text(json.dumps(data))
    with serving(FolderRuns(tmp_path)) as server:
        now = Page(server.url).ask("/api/now")["now"]
    assert (now["run"]["env"], now["progress"]["frames_limit"]) == ("Old-v0", None)
