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
