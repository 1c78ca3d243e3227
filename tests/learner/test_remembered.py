"""The learner's points of the run's curve: few, and never in the way."""

from __future__ import annotations

from learner.publisher import Standing
from learner.report import REMEMBER_S, REMEMBER_SHARE, LearnerReporter
from system.clock import ManualClock
from system.control.memory import MemoryControl
from system.errors import Unavailable


class Away(MemoryControl):
    def remember(self, point):
        raise Unavailable("not now")


def told(folder, control, elapsed_s):
    """A line of metrics at each of these times."""
    clock = ManualClock()
    report = LearnerReporter(
        control, clock, folder=folder, who="learner:1", metrics_s=1.0, check=lambda: None
    )
    for now_s in elapsed_s:
        clock.sleep(now_s - clock.now())
        standing = Standing(epoch=1, update=int(now_s), agent_steps=5, elapsed_s=now_s)
        report.tick(
            standing, frames=20, doing="testing", numbers=lambda: {"replay/ratio": 2.0}, losses={}
        )
    return [one.point for one in control.history()]


def test_points_are_lines_of_metrics_ever_further_apart(tmp_path):
    times = [*range(0, 60, 2), *range(100_000, 101_000, 2)]
    points = told(tmp_path, MemoryControl(), times)
    kept = [point.values["elapsed_s"] for point in points]
    assert kept[:6] == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    late = [time_s for time_s in kept if time_s >= 100_000]
    assert late[1] - late[0] == REMEMBER_SHARE * 100_000
    assert len(late) == 10
    assert REMEMBER_S == 10.0
    values = points[1].values
    assert points[1].time_s == 10.0
    assert (values["frames"], values["updates"], values["replay/ratio"]) == (20.0, 10.0, 2.0)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(times)


def test_nobody_who_remembers_stops_nothing(tmp_path):
    assert told(tmp_path, Away(), range(0, 60, 2)) == []
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 30
