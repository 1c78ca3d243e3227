"""`status`, `scale`, `stop`, `evaluate`: on a real server, with nothing but its URL."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing, contextmanager

import pytest
from rich.console import Console

from deploy import operate
from deploy.parts import new_agent
from deploy.run_folder import RunFolder
from system.clock import SystemClock
from system.control.protocol import Event
from system.keys import Keys
from system.models.agent import acting_modules
from system.models.weights import to_bytes
from system.redis_client import connect
from system.types import Snapshot
from tests.deploy.configs_for_tests import SPEC, small
from tests.deploy.remote_for_tests import Remote, complaint, run
from tests.waiting import wait_until


@contextmanager
def meanwhile(work):
    """Runs `work` in a thread; waits for its end."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_status_by_the_url_alone(capsys, url, remote):
    remote.drive()
    code, out, err = run(capsys, "status", "--run", "small", "--redis", url, "--json")
    now = json.loads(out)
    assert (code, err) == (0, "")
    assert (now["alive"], now["frames"], now["updates"], now["return_mean"]) == (True, 120, 30, 6.5)
    assert (now["time_s"], now["policy_version"], now["replay"]["steps"]) == (9.0, 4, 120.0)
    assert now["actors"] == {
        "desired": 2, "running": 1, "starting": 1, "pending": 0, "reasons": {}, "held": 0,
        "own": 0,
    }  # fmt: skip


def test_status_after_the_end_and_of_a_lost_run(capsys, url, remote):
    remote.drive().end("failed", "env gone")
    with closing(connect(url)) as connection:
        connection.call("DEL", Keys(remote.run_id).metrics("learner", 0))
    code, out, _ = run(capsys, "status", "--run", "small", "--redis", url)
    assert code == 0
    assert "small (failed: env gone)" in out
    assert "frames   120 of 200" in out
    remote.registry.put(remote.entry)
    assert "small (lost)" in run(capsys, "status", "--run", "small", "--redis", url)[1]


def test_a_run_elsewhere_that_does_not_exist(capsys, url, remote):
    said = complaint(capsys, "status", "--run", "smal", "--redis", url)
    assert said.endswith("did you mean 'small'?")
    assert "does not answer" in run(capsys, "status", "--redis", "redis://127.0.0.1:1")[2]


def test_without_a_name_the_only_running_one_is_taken(capsys, tmp_path, url, remote):
    code, _, err = run(capsys, "status", "--redis", url)
    assert (code, err) == (0, f"run {remote.run_id}\n")
    other = Remote(tmp_path / "home", url, name="other")
    said = complaint(capsys, "status", "--redis", url)
    assert said.startswith("2 runs in ")
    assert said.endswith("name one with --run")
    other.drive()
    code, out, err = run(capsys, "status", "--redis", url)
    assert (code, err) == (0, f"run {other.run_id}\n")
    assert "other (running)" in out


def test_without_a_name_here(capsys, away):
    assert "start one with: dreamfleet train" in complaint(capsys, "status")
    RunFolder.create(away, small(run="one"), SPEC)
    code, out, err = run(capsys, "status")
    assert (code, err) == (0, "run one\n")
    assert "one (not running)" in out
    folder = RunFolder.create(away, small(run="two"), SPEC)
    assert "2 runs in" in complaint(capsys, "status")
    with folder.locked():
        assert run(capsys, "status")[2] == "run two\n"


@pytest.mark.parametrize(("word", "actors"), [("5", 5), ("+2", 4), ("-1", 1), ("-9", 0), ("+0", 2)])
def test_scale_to_and_by(capsys, url, remote, word, actors):
    remote.drive()
    code, out, err = run(capsys, "scale", word, "--run", "small", "--redis", url)
    assert (code, err) == (0, "")
    assert out.startswith(f"actors of small: desired {actors}, running 1, starting ")
    assert remote.control.desired().actors == actors


def test_scale_tells_why_and_counts_own_actors_apart(capsys, url, remote):
    remote.drive().lease("actor", 1000)
    remote.control.record(
        Event(time_s=0.0, role="actor", slot=1, kind="actor_pending", text="needs 4 CPU")
    )
    _, out, _ = run(capsys, "scale", "--redis", url, "--run", "small", "+1")
    assert out == (
        "actors of small: desired 3, running 1, starting 1, pending 1; 1 own (generation 2)\n"
        "  actor 1 pending: needs 4 CPU\n"
    )


def test_scale_waits_for_the_fleet(capsys, url, remote):
    remote.drive()

    def supervise():
        wait_until(lambda: remote.control.desired().actors == 3)
        for slot in (1, 2):
            remote.lease("actor", slot)

    with meanwhile(supervise):
        code, out, err = run(capsys, "scale", "+1", "--redis", url, "--run", "small", "--wait")
    assert (code, err) == (0, "")
    assert out == "actors of small: desired 3, running 3, starting 0, pending 0 (generation 2)\n"


def test_scale_that_is_not_fulfilled_or_overruled(capsys, url, remote):
    remote.drive()
    words = ("--redis", url, "--run", "small", "--wait", "--timeout")
    code, out, err = run(capsys, "scale", "4", *words, "0.3")
    assert (code, err) == (2, "dreamfleet: 1 of 4 actors run after 0.3 s\n")
    assert "desired 4" in out

    def overrule():
        wait_until(lambda: remote.control.desired().actors == 7)
        remote.control.change_desired(actors=1, stopping=True)

    with meanwhile(overrule):
        code, _, err = run(capsys, "scale", "7", *words, "180")
    assert code == 2
    assert "somebody else changed the wish meanwhile: 1 actors, and to stop" in err


def test_a_slot_is_drained_and_started_by_hand(capsys, url, remote):
    remote.drive()
    words = ("--redis", url, "--run", "small")
    code, out, err = run(capsys, "slot", "1", "drain", *words)
    assert (code, err) == (0, "")
    assert out == (
        "actors of small: desired 2, running 1, starting 0, pending 0; 1 drained by hand "
        "(generation 2)\n  actor 1 pending: drained by hand\n"
    )
    assert run(capsys, "slot", "1", "start", *words)[1].endswith("pending 0 (generation 3)\n")
    assert remote.control.desired().held == []
    code, _, err = run(capsys, "slot", "2", "restart", *words)
    assert (code, err) == (
        2,
        "dreamfleet: slot=2 is not one of the 2 slots of the fleet; more are there after: "
        "dreamfleet scale 3\n",
    )


@pytest.mark.parametrize("verb", ["scale 2", "stop"])
def test_of_a_run_that_does_not_run(capsys, url, remote, verb):
    code, out, err = run(capsys, *verb.split(), "--run", "small", "--redis", url)
    if verb == "stop":
        assert (code, out, err) == (0, "run small is not running\n", "")
    else:
        assert "is not running, so there is nothing to scale" in err
        assert str(remote.folder.path) in err
    assert remote.control.desired().generation == 1


def test_stop_returns_when_the_run_has_ended(capsys, url, remote):
    remote.drive()

    def supervise():
        wait_until(lambda: remote.control.desired().stopping)
        time.sleep(0.3)
        remote.end()

    with meanwhile(supervise):
        code, out, err = run(capsys, "stop", "--run", "small", "--redis", url)
    assert (code, err) == (0, "")
    assert out.startswith("run small is stopped; go on with")
    assert remote.registry.find("small").ended == "stopped"


def test_resume_of_a_folder_elsewhere_says_where_it_is(capsys, url, remote):
    remote.end()
    code, _, err = run(capsys, "resume", "--run", "small", "--redis", url)
    assert code == 2
    assert f"is {remote.folder.path} on {remote.entry.host}: resume it there" in err
    assert "add --address URL" in err


def test_evaluate_by_the_url_alone(capsys, url, remote):
    said = complaint(capsys, "evaluate", "--run", "small", "--redis", url)
    assert "has broadcast no policy that is still in" in said
    agent = new_agent(remote.entry.record().config)(SPEC)
    remote.place.channel.publish(
        Snapshot(
            epoch=1, version=3, update=30, agent_steps=120, elapsed_s=9.0,
            model_digest=agent.digest, time_s=0.0,
            weights=to_bytes(acting_modules(agent.world_model, agent.policy)),
        )
    )  # fmt: skip
    words = ("evaluate", "--run", "small", "--redis", url, "--episodes", "2", "--json")
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["episodes"], result["policy_version"]) == (2, 3)
    assert result["return_mean"] > 0


def test_watch_draws_until_ctrl_c(capsys, url, remote, monkeypatch):
    remote.drive()
    turns = []

    class Interrupted(SystemClock):
        def sleep(self, seconds):
            turns.append(seconds)
            if len(turns) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(operate, "SystemClock", Interrupted)
    monkeypatch.setattr(operate, "Console", lambda: Console(width=100, force_terminal=True))
    code, out, err = run(capsys, "status", "--watch", "--run", "small", "--redis", url)
    assert (code, err, turns) == (0, "", [1.0] * 3)
    assert "dreamfleet · small" in out
    assert "120 of 200" in out
    assert "1 running of 2, 1 starting" in out
