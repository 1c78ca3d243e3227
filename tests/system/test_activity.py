"""Shares of time."""

import pytest

from system.activity import Activity
from system.clock import ManualClock


def test_shares_of_each_window():
    clock = ManualClock()
    activity = Activity(clock, "actor")
    activity.switch("env")
    clock.sleep(3)
    activity.switch("wait")
    clock.sleep(1)
    assert activity.metrics() == {
        "actor/share_starting": 0.0, "actor/share_env": 0.75, "actor/share_wait": 0.25
    }  # fmt: skip
    clock.sleep(2)
    shares = activity.metrics()
    assert shares["actor/share_env"] == 0
    assert shares["actor/share_wait"] == 1
    assert sum(activity.metrics().values()) == pytest.approx(0)


def test_a_stretch_is_as_long_as_it_is_though_shares_are_asked_meanwhile():
    clock = ManualClock()
    activity = Activity(clock, "learner")
    activity.switch("env")
    clock.sleep(3)
    activity.metrics()
    clock.sleep(2)
    assert activity.switch("other") == 5


def test_what_went_on_before_goes_on_after():
    clock = ManualClock()
    activity = Activity(clock, "learner")
    activity.switch("sample")
    clock.sleep(1)
    with activity.during("publish"):
        clock.sleep(2)
    assert activity.current == "sample"
    clock.sleep(1)
    assert activity.metrics() == {
        "learner/share_starting": 0.0, "learner/share_sample": 0.5, "learner/share_publish": 0.5
    }  # fmt: skip
