"""What every control plane must keep for those who look: blobs, and the run's curve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from deploy.redis_server import EmbeddedRedis
from system.codec import pack
from system.control import redis as control_redis
from system.control.memory import MemoryControl
from system.control.protocol import MAX_BLOB_BYTES, MAX_POINTS, Control, Point
from system.control.redis import RedisControl
from system.errors import RejectedChunk
from system.keys import Keys
from system.redis_client import connect
from tests.waiting import wait_until

LONG_S = 600.0


@pytest.fixture(params=["memory", "redis"])
def control(request: pytest.FixtureRequest, run_name: str) -> Iterator[Control]:
    if request.param == "memory":
        yield MemoryControl()
        return
    server: EmbeddedRedis = request.getfixturevalue("redis_server")
    with closing(RedisControl(server.url, run_name)) as opened:
        yield opened


def point(number: int) -> Point:
    return Point(time_s=1.7e9 + number, values={"frames": float(number)})


def test_a_blob_is_replaced_whole(control: Control) -> None:
    assert control.blob("dream") is None
    control.put_blob("dream", b"\x00first, and longer", ttl_s=LONG_S)
    control.put_blob("other", b"x", ttl_s=LONG_S)
    control.put_blob("dream", b"second\xff", ttl_s=LONG_S)
    assert control.blob("dream") == b"second\xff"
    assert control.blob("other") == b"x"


def test_a_blob_expires(control: Control) -> None:
    control.put_blob("dream", b"short-lived", ttl_s=0.05)
    wait_until(lambda: control.blob("dream") is None)


def test_a_blob_has_a_size(control: Control) -> None:
    largest = bytes(MAX_BLOB_BYTES)
    control.put_blob("dream", largest, ttl_s=LONG_S)
    for data in (b"", largest + b"\0"):
        with pytest.raises(ValueError, match=f"1 to {MAX_BLOB_BYTES}"):
            control.put_blob("dream", data, ttl_s=LONG_S)
    assert control.blob("dream") == largest


def test_a_blob_that_nobody_of_ours_wrote_is_refused(
    redis_server: EmbeddedRedis, run_name: str
) -> None:
    connect(redis_server.url).call("SET", Keys(run_name).blob("dream"), bytes(MAX_BLOB_BYTES + 1))
    with (
        closing(RedisControl(redis_server.url, run_name)) as control,
        pytest.raises(RejectedChunk, match="oversize"),
    ):
        control.blob("dream")


def test_the_curve_comes_back_in_order_and_from_a_cursor(control: Control) -> None:
    assert control.history() == []
    values = {"frames": 1.0}
    control.remember(Point(time_s=1.7e9 + 1, values=values))
    values["frames"] = 99.0
    for number in (2, 3):
        control.remember(point(number))
    first, second, third = control.history()
    assert [one.point for one in (first, second, third)] == [point(1), point(2), point(3)]
    assert [one.point for one in control.history(first.cursor)] == [point(2), point(3)]
    assert control.history(third.cursor) == []
    control.remember(point(4))
    assert [one.point for one in control.history(third.cursor)] == [point(4)]


def test_a_long_curve_is_read_in_portions(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_redis, "_PORTION", 3)
    for number in range(7):
        control.remember(point(number))
    found = control.history()
    assert [one.point for one in found] == [point(number) for number in range(7)]
    assert [one.point for one in control.history(found[5].cursor)] == [point(6)]


def test_the_newest_points_are_kept(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_redis, "MAX_POINTS", 100)
    if isinstance(control, MemoryControl):
        for number in range(MAX_POINTS + 5):
            control.remember(point(number))
        assert control.history()[0].point == point(5)
        return
    for number in range(700):
        control.remember(point(number))
    kept = [one.point for one in control.history()]
    # Redis trims whole nodes of its tree: a few more stay.
    assert 100 <= len(kept) < 700
    assert kept == [point(number) for number in range(700 - len(kept), 700)]


def test_one_forged_point_hides_no_other(redis_server: EmbeddedRedis, run_name: str) -> None:
    with closing(RedisControl(redis_server.url, run_name)) as control:
        control.remember(point(1))
        for forged in (b"", b"\x80", pack({"time_s": float("nan"), "values": {}})):
            connect(redis_server.url).call("XADD", Keys(run_name).history, "*", "d", forged)
        control.remember(point(2))
        assert [one.point for one in control.history()] == [point(1), point(2)]
