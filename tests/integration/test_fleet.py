"""A real fleet: Ray, the embedded server, and `kill -9` of everything in turn."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from deploy.dashboard.beside import RunPage
from deploy.head import Head
from system.redis_client import connect
from tests.fleet_for_tests import TINY, Fleet, Terminal, command
from tests.integration.listeners import listeners
from tests.waiting import DEADLINE_S


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), "fleet.dashboard=true").train()
    yield fleet
    fleet.end()


# The tests below are one story, told in order: starting a fleet takes ten seconds.


def test_it_trains_without_its_terminal_and_says_so(fleet):
    def in_full_swing():
        # All of it comes by heartbeats, and while Redis does not answer nobody is known to run.
        status = fleet.status()
        return status["updates"] > 5 and status["actors"]["running"] and status

    status = fleet.until(in_full_swing, "trained")
    assert status["alive"]
    assert (status["actors"]["desired"], status["actors"]["running"]) == (1, 1)
    assert status["policy_version"] >= 1
    assert status["replay"]["steps"] > 0
    said = json.loads(command(fleet.where, "status", "--run", "tiny", "--json").stdout)
    assert said.keys() == status.keys()
    assert said["updates"] >= status["updates"]


def test_nobody_listens_beyond_this_machine_and_the_token_is_private(fleet):
    fleet.until(lambda: RunPage(fleet.folder).url, "served its page")
    page = json.loads((fleet.folder.path / "dashboard.json").read_text())
    assert fleet.status()["page"] == page["url"]
    listening = listeners(fleet.folder.head_pid(), fleet.server_pid(), page["pid"])
    assert page["pid"] in {one.pid for one in listening}
    assert {one.kind for one in listening} == {"tcp", "unix"}
    assert [one for one in listening if not one.private] == []
    token = fleet.folder.path / "ray.token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_without_the_token_ray_answers_nobody(fleet, tmp_path):
    address = Head(fleet.folder).cluster.address
    script = "import ray._private.ray_constants as c; c.ENABLE_RAY_CLUSTER = False; import ray; "
    script += f"ray.init(address={address!r}); print('joined')"
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    answer = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(wrong)},
    )  # fmt: skip
    said = ""
    for line in answer.stdout:
        said += line
        if "oken" in line or "joined" in line:
            break
    answer.kill()
    answer.wait()
    assert "joined" not in said
    assert "oken" in said


def test_a_second_driver_is_refused(fleet):
    refused = command(fleet.where, "resume", "--run", "tiny", check=False)
    assert refused.returncode == 2
    assert "is running" in refused.stderr
    refused = command(fleet.where, "train", "--run", "tiny", *TINY, check=False)
    assert refused.returncode == 2
    assert "dreamfleet resume --run tiny" in refused.stderr


def test_scale_is_absolute_and_waits(fleet):
    said = command(fleet.where, "scale", "2", "--run", "tiny", "--wait", "--timeout", "300").stdout
    assert "desired 2, running 2" in said
    again = command(fleet.where, "scale", "2", "--run", "tiny").stdout
    assert again.split("generation")[1] == said.split("generation")[1]
    said = command(fleet.where, "scale", "-1", "--run", "tiny", "--wait", "--timeout", "300").stdout
    assert "desired 1, running 1" in said


def test_one_actor_is_restarted_drained_and_started_by_hand(fleet):
    def ask(action):
        command(fleet.where, "slot", "0", action, "--run", "tiny")

    before = fleet.held("actor").incarnation
    ask("restart")
    fleet.until(lambda: (lease := fleet.lease("actor")) and lease.incarnation > before, "restarted")
    ask("drain")
    both = ["actor 0: restarted by hand", "actor 0: drained by hand"]
    fleet.until(
        lambda: [one.text for one in fleet.events() if one.kind == "actor_drained"] == both,
        "was told so",
    )
    fleet.until(lambda: not fleet.lease("actor"), "drained")
    assert fleet.status()["actors"]["reasons"] == {"0": "drained by hand"}
    ask("start")
    fleet.train_on("trained on with the slot filled")


def test_a_slot_without_room_says_what_it_needs(fleet):
    command(fleet.where, "scale", "12", "--run", "tiny")
    fleet.until(
        lambda: any("more CPU" in text for text in fleet.status()["actors"]["reasons"].values()),
        "named the missing CPUs",
    )
    command(fleet.where, "scale", "1", "--run", "tiny", "--wait", "--timeout", "300")


def test_the_replay_ratio_holds_while_the_fleet_changes(fleet):
    command(fleet.where, "scale", "3", "--run", "tiny", "--wait", "--timeout", "300")
    fleet.train_on("trained with three actors")
    command(fleet.where, "scale", "1", "--run", "tiny", "--wait", "--timeout", "300")
    enough = fleet.latest("updates") + 400
    fleet.until(lambda: fleet.latest("updates") > enough, "trained on")
    windows = fleet.ratio_windows(per_update=4 * 8)
    assert len(windows) > 3
    assert windows == pytest.approx([16.0] * len(windows), rel=0.1)
    line = fleet.line()
    assert line["updates"] * 4 * 8 / (line["frames"] - 64) == pytest.approx(16, rel=0.05)


def test_a_wiped_server_costs_nothing(fleet):
    version = fleet.latest("learner/policy_version")
    connection = connect(fleet.url)
    connection.call("FLUSHALL")
    connection.close()
    fleet.train_on("trained on after FLUSHALL")
    fleet.until(lambda: fleet.status()["actors"]["desired"] == 1, "wished for an actor again")
    fleet.until(lambda: fleet.latest("learner/policy_version") > version, "published again")
    fleet.check_ledger()


def test_stop_drains_and_saves(fleet):
    assert "dreamfleet resume --run tiny" in fleet.stop()
    fleet.check_ledger()
    assert fleet.folder.end().how == "stopped"
    assert "Traceback" not in fleet.words()
    fleet.until(lambda: not RunPage(fleet.folder).url, "saw the page go")


def test_resume_goes_on_and_ends_at_its_frame_limit(fleet):
    limit = fleet.latest("frames") + 200
    terminal = Terminal(fleet.where, "resume", "--run", "tiny", "--frames", str(limit))
    try:
        assert terminal.process.wait(2 * DEADLINE_S) == 0, fleet.words()
    finally:
        terminal.process.kill()
    said = terminal.log.read_text()
    assert "next:" in said
    assert "page: http://127.0.0.1:" in said
    assert "Traceback" not in said
    fleet.check_ledger()
    status = fleet.status()
    assert not status["alive"]
    assert status["frames"] >= limit
    assert (fleet.folder.path / "curve.png").stat().st_size > 0


def test_evaluate_needs_no_fleet(fleet):
    said = command(fleet.where, "evaluate", "--run", "tiny", "--episodes", "2", "--json").stdout
    result = json.loads(said)
    assert set(result) == {"return_mean", "return_std", "episodes", "policy_version"}
    assert result["episodes"] == 2


def test_ctrl_c_stops_in_order_and_a_closed_terminal_does_not(fleet):
    assert fleet.terminal("resume", "--frames", "0").kill(signal.SIGHUP) == 0
    fleet.train_on("trained on without a terminal")
    assert fleet.terminal("train", "--env", "CartPole-v1", "--resume").kill(signal.SIGINT) == 0
    assert not fleet.folder.in_use()
    fleet.check_ledger()
