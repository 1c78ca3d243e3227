"""What people see: view, status, curve."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from deploy.actors_status import ActorsStatus, actors_of
from deploy.curve import Point, points, save_png, text_plot
from deploy.run_folder import RunFolder
from deploy.status import MetricsTail, status_of
from deploy.terminal import Eta, View, clock_time, panel, pending_lines, plain_line
from system.clock import ManualClock
from system.control.memory import MemoryControl
from system.control.protocol import Event, Lease, ProcessMetrics
from tests.deploy.configs_for_tests import SPEC, small

VALUES = {
    "time_s": 125.0, "frames": 1500, "updates": 300, "learner/updates_per_s": 11.2,
    "learner/policy_version": 7.0, "eval/return_mean": 77.5, "replay/steps": 1500.0,
    "replay/fill": 0.25, "replay/bytes": 1e6, "replay/ratio": 63.9, "replay/ratio_target": 64.0,
}  # fmt: skip


@pytest.fixture
def record(tmp_path):
    return RunFolder.create(tmp_path, small(), SPEC).record()


@pytest.fixture
def control():
    clock = ManualClock()
    control = MemoryControl(clock)
    control.change_desired(actors=2)
    control.renew(
        Lease(role="actor", slot=0, incarnation=1, who="a", doing="acting", time_s=0.0), ttl_s=10
    )
    control.put_metrics(
        ProcessMetrics(
            role="actor", slot=0, time_s=0.0,
            values={"actor/return_mean": 60.0, "actor/policy_age_s": 1.5},
        ),
        ttl_s=10,
    )  # fmt: skip
    control.record(
        Event(time_s=0.0, role="actor", slot=1, kind="actor_pending", text="needs 0.25 CPU")
    )
    return control


def test_status_has_the_promised_shape(record, control):
    data = json.loads(json.dumps(status_of(record, VALUES, control, alive=True).to_json()))
    promised = {"frames", "updates", "actors", "return_mean", "policy_version", "replay"}
    assert promised <= set(data)
    assert data["actors"] == {
        "desired": 2, "running": 1, "starting": 0, "pending": 1,
        "reasons": {"1": "needs 0.25 CPU"}, "held": 0, "own": 0,
    }  # fmt: skip
    assert (data["return_mean"], data["policy_version"], data["policy_age_s"]) == (77.5, 7, 1.5)


def test_the_line_and_the_panel_tell_all(record, control):
    status = status_of(record, VALUES, control, alive=True)
    line = plain_line(status, 3700.0)
    assert line == (
        "2:05 | frames 1,500/200 | updates 300 (11.2/s) | return 77.5 | acting 60.0 | replay 25.0% "
        "| ratio 63.9 | policy 7 | age 1.5 s | actors 1/2 | ETA 1:01:40"
    )
    console = Console(file=io.StringIO(), width=100)
    console.print(panel(status, 3700.0, "stopping"))
    drawn = console.file.getvalue()
    for text in ("1,500 of 200", "77.5", "63.9 of 64", "7, 1.5 s old", "1 running of 2, 1 pending",
                 "1:01:40", "actor 1 pending: needs 0.25 CPU", "stopping", "25.0%"):  # fmt: skip
        assert text in drawn


def test_slots_with_one_reason_share_a_line():
    reasons = {str(slot): "needs 0.25 CPU" for slot in range(20)} | {"20": "died"}
    assert pending_lines(ActorsStatus(reasons=reasons)) == [
        "20 actors (0, 1, 2, 3, 4, 5, 6, 7, ...) pending: needs 0.25 CPU",
        "actor 20 pending: died",
    ]


def test_actors_starting_and_own_are_told_apart(control):
    for slot, doing in ((1, "starting"), (1000, "acting"), (1001, "waiting")):
        control.renew(
            Lease(role="actor", slot=slot, incarnation=1, who="a", doing=doing, time_s=0.0),
            ttl_s=10,
        )
    actors = actors_of(control, control.leases())
    assert str(actors) == "desired 2, running 1, starting 1, pending 0; 2 own"
    assert not actors.settled


def test_a_slot_that_was_started_again_is_starting(control):
    control.record(
        Event(time_s=1.0, role="actor", slot=1, kind="actor_restarted", text="actor 1 restarted")
    )
    assert (actors_of(control, control.leases()).starting, actors_of(control, []).pending) == (1, 0)


def test_a_note_is_told_once_without_a_terminal():
    console = Console(file=io.StringIO(), width=300)
    with View(console, ManualClock()) as view:
        for note in ("", "away", "away", "", "away"):
            view.note(note)
    assert console.file.getvalue().splitlines() == ["away", "away"]


def test_before_the_first_numbers(record):
    status = status_of(record, {}, None, alive=False)
    assert "return - " in plain_line(status, None)
    assert status.policy_version is None


def test_a_view_without_a_terminal_prints_lines_now_and_then(record):
    clock, console = ManualClock(), Console(file=io.StringIO(), width=300)
    status = status_of(record, VALUES, None, alive=True)
    with View(console, clock) as view:
        for _ in range(25):
            if view.due:
                view.show(status)
            clock.sleep(1.0)
        view.tell(Event(time_s=0, role="actor", slot=0, kind="actor_died", text="actor 0: [x]"))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[-1] == "actor_died: actor 0: [x]"


def test_a_view_on_a_terminal_draws(record):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with View(console, ManualClock()) as view:
        view.show(status_of(record, VALUES, None, alive=True))
        view.note("stopping")
    assert "dreamfleet · small" in console.file.getvalue()


def test_eta_follows_the_last_minute():
    eta = Eta()
    assert eta(0.0, 0, 1000) is None
    assert eta(10.0, 100, 1000) == pytest.approx(90.0)
    assert eta(100.0, 200, 1000) is None  # what was before the last minute is forgotten
    assert eta(110.0, 300, 1000) == pytest.approx(70.0)
    assert eta(110.0, 300, 0) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")]
)
def test_clock_time(seconds, text):
    assert clock_time(seconds) == text


def test_the_tail_reads_whole_lines_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert tail.read() == {}
    path.write_text('{"frames": 10, "updates": 1, "time_s": 1}\n{"frames": 20, "upd')
    assert tail.read()["frames"] == 10
    with path.open("a") as file:
        file.write('ates": 2, "time_s": 2}\nnonsense\n')
        file.write('{"frames": 15, "updates": 1, "time_s": 1.5, "eval/return_mean": 3.0}\n')
    values = tail.read()
    assert (values["frames"], values["updates"], values["eval/return_mean"]) == (20, 2, 3.0)


def curve(*returns):
    return [
        Point(frames=1000 * i, time_s=float(i), return_mean=value, return_std=1.0)
        for i, value in enumerate(returns)
    ]


def test_the_curve_as_text_rises_with_the_return():
    drawn = text_plot(curve(0.0, 50.0, 100.0), width=30, height=4).splitlines()
    assert len(drawn) == 5
    assert drawn[0].strip().startswith("100.0")
    assert drawn[3].strip().startswith("0.0")
    assert drawn[4].split() == ["0", "2,000", "frames"]
    filled = [sum(line[11 + column] == "█" for line in drawn[:4]) for column in range(30)]
    assert filled == sorted(filled)
    assert filled[0] == 0
    assert filled[-1] == 4


@pytest.mark.parametrize("returns", [[5.0], [5.0, 5.0], [-3.0, -7.0, -5.0]])
def test_odd_curves_can_be_drawn(returns, tmp_path):
    assert "frames" in text_plot(curve(*returns))
    save_png(tmp_path / "curve.png", curve(*returns), "odd")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_points_are_the_evaluations_in_order():
    lines = [
        {"frames": 5, "time_s": 1, "updates": 1},
        {"frames": 9, "time_s": 3, "updates": 2, "eval/return_mean": 2.0},
        {"frames": 7, "time_s": 2, "updates": 2, "eval/return_mean": 1.0, "eval/return_std": 0.5},
    ]
    assert [(point.frames, point.return_std) for point in points(lines)] == [(7, 0.5), (9, 0.0)]
