"""Heartbeats and faults of one actor."""

import pytest

from actors.report import FAULT_KINDS, Reporter
from system.clock import ManualClock
from system.control.memory import MemoryControl
from system.errors import EnvironmentFault, Unavailable


class Away(MemoryControl):
    """Control that cannot be reached."""

    def renew(self, lease, *, ttl_s):
        raise Unavailable("away")


@pytest.mark.parametrize("control_class", [MemoryControl, Away])
def test_a_sign_of_life_comes_with_every_heartbeat(control_class):
    clock, beats = ManualClock(), []
    control = control_class(clock)
    reporter = Reporter(
        control, clock, slot=0, who="x", heartbeat_s=1.0, on_heartbeat=lambda: beats.append(1)
    )
    for _ in range(35):
        reporter.tick("acting")
        clock.sleep(0.1)
    assert len(beats) == 4


def test_every_fault_is_counted_whatever_its_kind():
    clock = ManualClock()
    control = MemoryControl(clock)
    reporter = Reporter(control, clock, slot=0, who="x", heartbeat_s=1.0)
    for kind in (*FAULT_KINDS[:-1], "died", "a kind of its own"):
        reporter.on_fault(1, EnvironmentFault(kind, "why"))
    reporter.tick()
    values = control.metrics()[0].values
    assert values["actor/faults"] == 6
    assert {kind: values[f"actor/faults_{kind}"] for kind in FAULT_KINDS} == {
        "raised": 1, "hang": 1, "died": 2, "outside_space": 1, "other": 1,
    }  # fmt: skip
    last = list(control.events())[-1]
    assert last.kind == "environment_other"
    assert last.text == "copy 1 was rebuilt; a kind of its own: why"
