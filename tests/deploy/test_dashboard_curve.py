"""The curve: every evaluation, acting thinned, checkpoints where they belong."""

from __future__ import annotations

import csv
import io
import math

from deploy.dashboard.curve import PAUSE_S, PAUSE_SHARE, Curve, to_csv


def line(time_s, frames, updates=0, **more):
    values = {name.replace("__", "/"): value for name, value in more.items()}
    return {"time_s": time_s, "frames": frames, "updates": updates, **values}


def evaluation(time_s, frames, mean, std=1.0, episodes=5.0):
    return line(time_s, frames, eval__return_mean=mean, eval__return_std=std,
                eval__episodes=episodes)  # fmt: skip


def test_lines_become_points_and_what_is_no_return_does_not():
    curve = Curve()
    curve.take([line(1.0, 100, 3, loss__reward=1.0), evaluation(2.0, 200, 7.5)])
    curve.take([evaluation(3.0, 300, -2.0)], time_s=1700.0)
    first, second = curve.points
    assert (first.kind, first.mean, first.std, first.episodes) == ("evaluation", 7.5, 1.0, 5)
    assert (first.time_s, first.elapsed_s, first.frames) == (None, 2.0, 200)
    assert second.time_s == 1700.0


def test_evaluations_are_sorted_by_frames_and_none_is_thinned():
    curve = Curve()
    curve.take([evaluation(0.1 * n, 1000 - n, float(n)) for n in range(500)])
    assert len(curve.points) == 500
    assert [one.frames for one in curve.evaluations] == sorted(1000 - n for n in range(500))


def test_acting_points_are_as_far_apart_as_the_run_is_long():
    curve = Curve()
    for tenth in range(100_000):
        curve.take_acting(1.0, line(tenth / 10, tenth))
    times = [point.elapsed_s for point in curve.points]
    # The same rule, said again.
    expected, last = [], -math.inf
    for tenth in range(100_000):
        if tenth / 10 - last >= max(PAUSE_S, PAUSE_SHARE * tenth / 10):
            expected.append(tenth / 10)
            last = tenth / 10
    assert times == expected
    assert len(times) < 3000
    before = len(times)
    curve.take_acting(2.0, line(9_990.0, 5))  # resumed: it went back a little
    curve.take_acting(math.nan, line(20_000.0, 5))
    assert len(curve.points) == before + 1


def test_a_line_may_tell_what_acting_brings():
    curve = Curve()
    curve.take([line(5.0, 50, actor__return_mean=3.0)])
    assert [(point.kind, point.mean) for point in curve.points] == [("acting", 3.0)]


def test_a_checkpoint_lies_where_the_run_had_as_many_updates_and_counts_once():
    curve = Curve()
    curve.take_checkpoint(7, time_s=1.0)  # nothing is known of where
    curve.take([line(1.0, 100, 10), line(2.0, 200, 20), line(2.5, 150, 15), line(3.0, 300, 30)])
    for updates in (12, 20, 99, 20):
        curve.take_checkpoint(updates, time_s=1700.0)
    found = [(point.updates, point.frames, point.elapsed_s) for point in curve.points]
    assert found == [(12, 200, 2.0), (20, 200, 2.0), (99, 300, 3.0)]


def test_lines_of_others_do_no_harm():
    curve = Curve()
    curve.take([{}, {"eval/return_mean": "x"}, {"eval/return_mean": math.nan}, {"frames": [1]},
                {"eval/return_mean": 10**400}, {"eval/return_mean": True},
                {"eval/return_mean": 4.0, "frames": None, "time_s": "soon"}])  # fmt: skip
    (point,) = curve.points
    assert (point.mean, point.frames, point.elapsed_s, point.std) == (4.0, 0, 0.0, None)


def test_as_csv():
    curve = Curve()
    curve.take([evaluation(2.0, 200, 7.5)])
    curve.take_acting(3.0, line(9.0, 900, 4), time_s=1700.0)
    rows = list(csv.DictReader(io.StringIO(to_csv(curve.points))))
    assert [row["kind"] for row in rows] == ["evaluation", "acting"]
    assert (rows[0]["mean"], rows[0]["time_s"], rows[1]["time_s"]) == ("7.5", "", "1700.0")
