"""What every control plane must do: the same suite over memory and a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from deploy.redis_server import EmbeddedRedis
from system.codec import pack
from system.control.memory import MAX_EVENTS, MemoryControl
from system.control.protocol import Control, Desired, Event, Lease, ProcessMetrics
from system.control.redis import RedisControl
from system.errors import ConfigError, RejectedChunk, Unavailable
from system.keys import Keys
from system.redis_client import as_bytes, as_list, connect
from tests.waiting import wait_until

OpenControl = Callable[[], Control]


@pytest.fixture(params=["memory", "redis"])
def open_control(request: pytest.FixtureRequest, run_name: str) -> OpenControl:
    if request.param == "memory":
        memory = MemoryControl()
        return lambda: memory
    server: EmbeddedRedis = request.getfixturevalue("redis_server")
    return lambda: RedisControl(server.url, run_name)


@pytest.fixture
def control(open_control: OpenControl) -> Iterator[Control]:
    with closing(open_control()) as opened:
        yield opened


def lease(role: str = "actor", slot: int = 0, doing: str = "acting") -> Lease:
    return Lease(role=role, slot=slot, incarnation=2, who="host:1", doing=doing, time_s=1.5)


def test_desired_counts_real_changes(control: Control) -> None:
    assert control.desired() == Desired()
    assert control.change_desired(actors=3) == Desired(generation=1, actors=3)
    assert control.change_desired(actors=3) == Desired(generation=1, actors=3)
    assert control.change_desired() == Desired(generation=1, actors=3)
    assert control.change_desired(stopping=True) == Desired(generation=2, actors=3, stopping=True)
    wish = control.change_desired(actors=0, stopping=False)
    assert wish == control.desired() == Desired(generation=3)


def test_a_delta_counts_from_what_is_wished_and_ends_at_nothing(control: Control) -> None:
    assert control.change_desired(delta=2) == Desired(generation=1, actors=2)
    assert control.change_desired(delta=-1) == Desired(generation=2, actors=1)
    assert control.change_desired(actors=5, delta=-1) == Desired(generation=3, actors=4)
    assert control.change_desired(delta=-9) == Desired(generation=4, actors=0)
    assert control.change_desired(delta=-1) == Desired(generation=4, actors=0)


def test_no_delta_is_lost_to_a_race(open_control: OpenControl) -> None:
    def add_often() -> None:
        with closing(open_control()) as own:
            for _ in range(20):
                own.change_desired(delta=1)

    threads = [threading.Thread(target=add_often) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(open_control()) as own:
        assert own.desired() == Desired(generation=60, actors=60)


def test_desired_loses_no_change_to_a_race(open_control: OpenControl) -> None:
    def change_often(first: int) -> None:
        with closing(open_control()) as own:
            for number in range(20):
                own.change_desired(actors=first + number)

    threads = [threading.Thread(target=change_often, args=(start,)) for start in (100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(open_control()) as own:
        assert own.desired().generation == 60


def test_a_slot_is_held_until_it_is_wanted_again(control: Control) -> None:
    control.change_desired(actors=3)
    assert control.ask_slot(1, "drain").held == [1]
    assert control.ask_slot(0, "drain") == Desired(generation=3, actors=3, held=[0, 1])
    assert control.ask_slot(0, "drain").generation == 3, "nothing changed"
    assert control.ask_slot(1, "start").held == control.desired().held == [0]
    assert control.ask_slot(0, "restart").held == []
    control.ask_slot(2, "drain")
    control.change_desired(actors=1)
    assert control.change_desired(actors=3).held == [], "what is gone is not remembered"


def test_a_whole_wish_is_one_change(control: Control) -> None:
    wish = control.change_desired(actors=3, held=[2, 0, 5])
    assert wish == control.desired() == Desired(generation=1, actors=3, held=[0, 2])
    assert control.change_desired(actors=4).held == [0, 2]
    assert control.change_desired(held=[]).held == []


def test_a_restart_retires_the_life_that_is_there_and_no_later_one(control: Control) -> None:
    control.change_desired(actors=3)
    assert control.ask_slot(0, "restart") == Desired(generation=2, actors=3, retired={"0": 0})
    control.renew(replace(lease(slot=0), incarnation=4), ttl_s=60)
    assert control.ask_slot(0, "restart").retired == {"0": 4}
    assert control.ask_slot(0, "restart").generation == 3, "asked twice, restarted once"
    control.renew(replace(lease(slot=0), incarnation=5), ttl_s=60)
    assert control.ask_slot(0, "restart").retired == control.desired().retired == {"0": 5}
    assert control.change_desired(stopping=True).retired == {"0": 5}


@pytest.mark.parametrize("slot", [-1, 2, 1000])
def test_only_slots_of_the_wished_fleet_can_be_asked(control: Control, slot: int) -> None:
    control.change_desired(actors=2)
    with pytest.raises(ConfigError, match=rf"slot={slot} is not one of the 2 slots"):
        control.ask_slot(slot, "drain")
    assert control.desired() == Desired(generation=1, actors=2)


def test_no_wish_about_a_slot_is_lost_to_a_race(open_control: OpenControl) -> None:
    def hold(slots: range) -> None:
        with closing(open_control()) as own:
            for slot in slots:
                own.ask_slot(slot, "drain")

    with closing(open_control()) as own:
        own.change_desired(actors=30)
        threads = [threading.Thread(target=hold, args=(range(n, 30, 3),)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert own.desired().held == list(range(30))


def test_leases_come_back_ordered_and_whole(control: Control) -> None:
    assert control.leases() == []
    for one in (lease(slot=10), lease(slot=2), lease("learner"), lease(slot=2, doing="waiting")):
        control.renew(one, ttl_s=60)
    assert control.leases() == [lease(slot=2, doing="waiting"), lease(slot=10), lease("learner")]
    control.release("actor", 2)
    control.release("actor", 77)
    assert control.leases() == [lease(slot=10), lease("learner")]


def test_one_of_those_who_ask_at_once_takes_a_lease(open_control: OpenControl) -> None:
    taken: list[str] = []
    together = threading.Barrier(8)

    def ask(who: str) -> None:
        with closing(open_control()) as own:
            together.wait()
            if own.take(replace(lease(slot=1000), who=who), ttl_s=60):
                taken.append(who)

    threads = [threading.Thread(target=ask, args=(f"host:{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    with closing(open_control()) as own:
        assert [held.who for held in own.leases()] == taken


def test_a_lease_is_taken_by_its_holder_again_and_by_others_when_it_ends(control: Control) -> None:
    mine, other = lease(doing="starting"), replace(lease(), who="host:2")
    assert control.take(mine, ttl_s=60)
    assert not control.take(other, ttl_s=60)
    assert control.take(mine, ttl_s=60), "its reply may have been lost"
    assert control.leases() == [mine]
    assert control.take(mine, ttl_s=0.2)
    wait_until(lambda: control.take(other, ttl_s=60), "was free")
    assert not control.take(mine, ttl_s=60)
    control.release("actor", 0)
    assert control.take(mine, ttl_s=60)


def test_leases_and_metrics_expire(control: Control) -> None:
    control.renew(lease(), ttl_s=0.05)
    control.renew(lease(slot=1), ttl_s=60)
    control.put_metrics(ProcessMetrics(role="actor", slot=0, time_s=1.0), ttl_s=0.05)
    wait_until(lambda: control.leases() == [lease(slot=1)], "expired")
    wait_until(lambda: control.metrics() == [], "expired")


def test_metrics_replace_each_other(control: Control) -> None:
    for slot, value in ((1, 1.0), (0, 2.5), (1, float("inf"))):
        metrics = ProcessMetrics(role="actor", slot=slot, time_s=0.0, values={"fps": value})
        control.put_metrics(metrics, ttl_s=60)
    control.renew(lease(), ttl_s=60)
    assert [(found.slot, found.values) for found in control.metrics()] == [
        (0, {"fps": 2.5}),
        (1, {"fps": float("inf")}),
    ]


def test_metrics_may_hold_numpy_and_whole_numbers(control: Control) -> None:
    values = {"a": np.float32(0.5), "b": 3, "c": np.int64(4)}
    metrics = ProcessMetrics(role="learner", slot=0, time_s=7, values=values)  # type: ignore[arg-type]
    control.put_metrics(metrics, ttl_s=60)
    assert control.metrics()[0].values == {"a": 0.5, "b": 3.0, "c": 4.0}


def test_events_keep_the_newest_in_order(control: Control) -> None:
    assert control.events() == []
    for number in range(MAX_EVENTS + 5):
        control.record(Event(time_s=number, role="actor", slot=0, kind="tested", text=f"{number}"))
    newest = MAX_EVENTS + 4
    assert [event.text for event in control.events(last=2)] == [f"{newest - 1}", f"{newest}"]
    assert len(control.events(last=5000)) == MAX_EVENTS


def test_a_refused_change_leaves_a_connection_that_works(
    redis_server: EmbeddedRedis, run_name: str
) -> None:
    admin, control = connect(redis_server.url), RedisControl(redis_server.url, run_name)
    before = control.change_desired(actors=1)
    most = as_list(admin.call("CONFIG", "GET", "maxmemory"))[1]
    admin.call("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(Unavailable):
            control.change_desired(actors=2)
        assert control.desired() == before
    finally:
        admin.call("CONFIG", "SET", "maxmemory", as_bytes(most))
    assert control.change_desired(actors=2).actors == 2


def test_events_after_a_cursor_are_those_not_seen_yet(control: Control) -> None:
    def record(*texts: str) -> None:
        for text in texts:
            control.record(Event(time_s=1.0, role="actor", slot=0, kind="k", text=text))

    def unseen(cursor: str) -> list[str]:
        return [one.event.text for one in control.events_after(cursor)]

    assert control.events_after("") == []
    record("a", "b", "c")
    first, second, third = control.events_after("")
    assert [one.event.text for one in (first, second, third)] == ["a", "b", "c"]
    assert unseen(second.cursor) == ["c"]
    assert unseen(third.cursor) == []
    record("d")
    assert unseen(third.cursor) == ["d"]
    record(*map(str, range(MAX_EVENTS + 2)))
    assert unseen(third.cursor) == [str(n) for n in range(2, MAX_EVENTS + 2)]


def test_runs_do_not_see_each_other_even_with_wildcards_in_their_names(
    redis_server: EmbeddedRedis,
) -> None:
    one, other = RedisControl(redis_server.url, "a*[b]"), RedisControl(redis_server.url, "aXXb")
    for number, control in enumerate((one, other)):
        control.renew(lease(slot=number), ttl_s=60)
    assert one.leases() == [lease(slot=0)]
    assert other.leases() == [lease(slot=1)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        pack({}),
        pack({"generation": "1"}),
        pack({"generation": 1, "actors": 1, "stopping": False, "held": [], "retired": {"x": 1}}),
    ],
)
def test_a_forged_record_is_rejected(
    redis_server: EmbeddedRedis, run_name: str, data: bytes
) -> None:
    connect(redis_server.url).call("SET", Keys(run_name).desired, data)
    with pytest.raises(RejectedChunk):
        RedisControl(redis_server.url, run_name).desired()
