"""A process as others see it, while control comes and goes."""

from __future__ import annotations

import pytest

from system.clock import ManualClock
from system.control.memory import MemoryControl
from system.errors import Unavailable
from system.presence import KEPT_EVENTS, Presence


class Wavering(MemoryControl):
    """Cannot be reached while `away`."""

    away = False

    def renew(self, lease, *, ttl_s):
        self._here()
        super().renew(lease, ttl_s=ttl_s)

    def record(self, event):
        self._here()
        super().record(event)

    def _here(self):
        if self.away:
            raise Unavailable("away")


@pytest.fixture
def control():
    return Wavering(ManualClock(100.0))


def presence(control):
    return Presence(control, control._clock, role="learner", slot=0, who="h:1", lease_ttl_s=10.0)


def test_a_heartbeat_is_a_lease_numbers_and_the_life_they_are_of(control):
    one = presence(control)
    control._clock.sleep(5.0)
    one.incarnation = 3
    one.beat("updated", {"a": 1.0})
    (lease,), (metrics,) = control.leases(), control.metrics()
    assert (lease.role, lease.incarnation, lease.doing, lease.time_s) == (
        "learner", 3, "updated", 105.0
    )  # fmt: skip
    assert metrics.values == {"a": 1.0, "learner/started_s": 100.0}


def test_what_happened_while_control_was_away_is_told_in_order_and_once(control):
    one = presence(control)
    control.away = True
    one.tell("a", "first")
    one.beat("x", {})
    one.tell("b", "second", role="actor", slot=4)
    with pytest.raises(Unavailable):
        one.flush()
    control.away = False
    one.beat("x", {})
    one.beat("x", {})
    told = [(event.kind, event.role, event.slot) for event in control.events()]
    assert told == [("a", "learner", 0), ("b", "actor", 4)]


def test_of_too_much_that_happened_the_newest_is_told(control):
    one = presence(control)
    for number in range(KEPT_EVENTS + 5):
        one.tell("k", str(number))
    one.flush()
    assert control.events(last=5000)[0].text == "5"


def test_the_last_word_is_told_before_the_lease_is_given_back(control):
    one = presence(control)
    one.beat("x", {})
    one.tell("k", "last")
    one.release()
    assert [event.text for event in control.events()] == ["last"]
    assert control.leases() == []
    control.away = True
    one.tell("k", "nobody hears it")
    one.release()
