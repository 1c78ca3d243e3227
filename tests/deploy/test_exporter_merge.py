"""Counts of processes that die, begin anew, hang and come back: totals never go backwards."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.exporter import saved
from deploy.exporter.merge import FORGET_S, MAX_PROCESSES, Look, Place, RunMerge
from deploy.exporter.totals import KEPT_LIVES, Totals, counts_of
from system.control.protocol import Desired, Event, Lease, ProcessMetrics, Recorded
from system.errors import RejectedChunk
from system.message import MAX_INTEGER, pack, unpack

STEPS, UPDATES = "actor/agent_steps", "learner/updates"
ACTOR, LEARNER = Place("actor", 3), Place("learner", 0)


def said(place, life, count, key=STEPS, **more):
    values = {key: float(count), f"{place.role}/started_s": float(life), **more}
    return ProcessMetrics(role=place.role, slot=place.slot, time_s=1.0, values=values)


def lease(place, time_s=1.0):
    return Lease(role=place.role, slot=place.slot, incarnation=1, who="h:1:a", doing="acting",
                 time_s=time_s)  # fmt: skip


def shown(merge, key=STEPS, place=ACTOR):
    found = {process.place: process for process in merge.view().processes}
    return found[place].counts.get(key, 0) if place in found else 0


def test_a_life_adds_to_those_before():
    merge = RunMerge()
    for life, count, total in ((1, 70, 70), (1, 95, 95), (2, 0, 95), (2, 12, 107), (3, 5, 112)):
        merge.take(Look(metrics=[said(ACTOR, life, count)]), 1.0)
        assert shown(merge) == total
    assert merge.view().processes[0].starts == 3


def test_a_zombie_beside_its_successor_adds_to_its_own_count():
    merge = RunMerge()
    for life, count, total in ((1, 90, 90), (2, 10, 100), (1, 91, 101), (2, 11, 102), (1, 80, 102)):
        merge.take(Look(metrics=[said(ACTOR, life, count)]), 1.0)
        assert shown(merge) == total
    assert merge.view().processes[0].starts == 2


def test_a_life_with_a_clock_behind_is_a_new_life():
    totals = Totals()
    totals.see(1000.0, {STEPS: 5})
    totals.see(10.0, {STEPS: 2})
    assert totals.values() == {STEPS: 7}


def test_what_a_restart_resumes_is_counted_once():
    merge, total = RunMerge(), []
    for life, count in ((1, 100), (1, 180), (2, 150), (2, 175), (2, 200), (3, 190)):
        merge.take(Look(metrics=[said(LEARNER, life, count, UPDATES)]), 1.0)
        total.append(shown(merge, UPDATES, LEARNER))
    assert total == [100, 180, 180, 180, 200, 200]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 2.0**63, 1e300])
def test_what_cannot_be_a_count_is_left_out(value):
    assert counts_of({STEPS: value, "actor/frames": 3.0, "x": 4.0}) == {"actor/frames": 3}


def test_totals_are_bounded():
    totals = Totals()
    for life in range(2 * KEPT_LIVES):
        totals.see(float(life), {STEPS: MAX_INTEGER // 2})
    assert totals.values() == {STEPS: MAX_INTEGER}
    assert len(totals.lives) == KEPT_LIVES


class Store:
    """What Redis has of one actor, and the truth about it."""

    def __init__(self):
        self.life, self.counts, self.lives = 0, [0], []
        self.snapshot = self.saved = None
        self.merge, self.before = RunMerge(), 0

    def restart(self, _):
        self.life += 1
        self.counts.append(0)

    def act(self, count):
        self.counts[self.life] += count

    def tell(self, back):
        """The newest life mostly; a stopped one that goes on writes to the same key."""
        life = max(0, self.life - back)
        self.snapshot = said(ACTOR, life, self.counts[life])

    def expire(self, _):
        self.snapshot = None

    def wipe(self, _):
        self.snapshot = self.saved = None

    def look(self, _):
        self.merge.take(Look(metrics=[self.snapshot] if self.snapshot else []), 1.0)
        self.saved = saved.encode(self.merge)
        total = shown(self.merge)
        assert self.before <= total <= sum(self.counts)
        self.before = total

    def new_exporter(self, _):
        if self.saved is not None:  # the one thing that loses totals: both gone at once
            self.merge = saved.decode(self.saved)


OPERATIONS = ("restart", "act", "act", "tell", "tell", "expire", "wipe", "look", "look",
              "new_exporter")  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3)), max_size=60))
def test_totals_are_monotone_and_never_more_than_the_truth(script):
    store = Store()
    for name, number in script:
        getattr(store, name)(number)
    before = store.before
    store.tell(0)
    store.look(0)
    assert store.before >= before


def test_a_process_is_down_for_a_while_then_left_out_but_its_counts_stay():
    merge = RunMerge()
    snapshot = said(ACTOR, 1, 9, **{"actor/spool_fill": 0.5})
    merge.take(Look(leases=[lease(ACTOR)], metrics=[snapshot]), 100.0)
    (process,) = merge.view().processes
    assert (process.lease is not None, process.last_seen_s) == (True, 100.0)
    assert process.gauges == {"actor/spool_fill": 0.5}
    merge.take(Look(), 100.0 + FORGET_S)
    (process,) = merge.view().processes
    assert (process.lease, process.last_seen_s, process.gauges) == (None, 100.0, {})
    assert not merge.at_rest
    merge.take(Look(), 101.0 + FORGET_S)
    (process,) = merge.view().processes
    assert (process.last_seen_s, process.counts) == (None, {STEPS: 9})
    assert merge.at_rest


def test_a_lease_that_does_not_move_is_no_sign_of_life():
    merge = RunMerge()
    for now_s, renewed_s, seen_s in ((50.0, 7.0, 50.0), (55.0, 7.0, 50.0), (56.0, 8.0, 56.0)):
        merge.take(Look(leases=[lease(ACTOR, renewed_s)]), now_s)
        assert merge.view().processes[0].last_seen_s == seen_s


def test_nobody_alive_wishes_for_nothing():
    merge = RunMerge()
    merge.take(Look(desired=Desired(generation=1, actors=4), leases=[lease(LEARNER)]), 1.0)
    assert merge.view().desired == 4
    merge.take(Look(desired=Desired(generation=1, actors=4)), 2.0)
    assert merge.view().desired is None


def test_invented_slots_and_roles_are_bounded():
    merge = RunMerge()
    many = [said(Place("actor", slot), 1, 1) for slot in range(MAX_PROCESSES + 5)]
    odd = [said(Place("<script>", 0), 1, 1), said(ACTOR, 1, 1, "no/such")]
    for _ in range(2):
        merge.take(Look(metrics=odd + many), 1.0)
    view = merge.view()
    assert len(view.processes) == MAX_PROCESSES
    assert view.left_out == 5
    assert {process.place.role for process in view.processes} == {"actor"}


def test_events_are_counted_once_and_strange_ones_as_other():
    merge = RunMerge()
    events = [
        Recorded(cursor=f"{n}-0", event=Event(time_s=1.0, role="r", slot=0, kind=kind, text=""))
        for n, kind in enumerate(("gap", "gap", "x" * 50))
    ]
    merge.take(Look(events=events), 1.0)
    counts = merge.view().events
    assert (counts["gap"], counts["other"], counts["not_finite"]) == (2, 1, 0)
    assert "x" * 50 not in counts
    assert merge.cursor == "2-0"


def test_what_is_saved_is_what_is_restored():
    merge = RunMerge()
    event = Event(time_s=1.0, role="r", slot=0, kind="gap", text="")
    merge.take(Look(events=[Recorded(cursor="7-1", event=event)]), 1.0)
    for life in range(2 * KEPT_LIVES):
        merge.take(Look(metrics=[said(ACTOR, life + 0.1, life), said(LEARNER, 1, 5, UPDATES)]), 1.0)
    data = saved.encode(merge)
    again = saved.decode(data)
    assert saved.encode(again) == data
    assert (again.cursor, again.events["gap"]) == ("7-1", 1)
    assert shown(again) == shown(merge) == sum(range(2 * KEPT_LIVES))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("events"),
        lambda m: m.update(more=1),
        lambda m: m.update(cursor=3),
        lambda m: m.update(cursor="now"),
        lambda m: m.update(processes=[1]),
        lambda m: m["events"].update(gap=-1),
        lambda m: m["events"].update(gap=1.5),
        lambda m: m["processes"].update({"actor:x": {}}),
        lambda m: m["processes"].update({"king:3": m["processes"]["actor:3"]}),
        lambda m: m["processes"]["actor:3"].update(starts=-1),
        lambda m: m["processes"]["actor:3"].update(starts=True),
        lambda m: m["processes"]["actor:3"].update(lives={"nan": {}}),
        lambda m: m["processes"]["actor:3"].update(lives={str(n): {} for n in range(9)}),
        lambda m: m["processes"]["actor:3"]["base"].update({STEPS: "1"}),
    ],
)  # fmt: skip
def test_damaged_totals_are_rejected(change):
    merge = RunMerge()
    merge.take(Look(metrics=[said(ACTOR, 1, 9)]), 1.0)
    message = unpack(saved.encode(merge))
    assert shown(saved.decode(pack(message))) == 9
    change(message)
    with pytest.raises(RejectedChunk):
        saved.decode(pack(message))
