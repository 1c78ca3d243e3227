"""What every policy channel must do: the same suite over memory and a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from deploy.redis_server import EmbeddedRedis
from system.channel.memory import MemoryChannel
from system.channel.node_cache import NodeCache
from system.channel.protocol import (
    KEPT_BROADCASTS,
    KEPT_PROMOTIONS,
    POLICY,
    SAFE,
    PolicyChannel,
)
from system.channel.redis import RedisChannel
from system.codec import pack
from system.errors import Fenced, RejectedChunk
from system.keys import Keys
from system.redis_client import Reply, as_bytes, as_int, as_list, connect
from system.types import Snapshot

PIECE_BYTES = 1000


@pytest.fixture(params=["memory", "redis", "redis+cache"])
def new_channel(
    request: pytest.FixtureRequest, run_name: str, tmp_path: Path
) -> Iterator[Callable[[str], PolicyChannel]]:
    """Makes one of this run's channels by its name."""
    if request.param == "memory":
        yield lambda name: MemoryChannel(name=name)
        return
    server: EmbeddedRedis = request.getfixturevalue("redis_server")
    cache = NodeCache(tmp_path / "cache") if request.param == "redis+cache" else None
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(
            closing(
                RedisChannel(server.url, run_name, name=name, cache=cache, piece_bytes=PIECE_BYTES)
            )
        )


@pytest.fixture
def channel(new_channel: Callable[[str], PolicyChannel]) -> PolicyChannel:
    return new_channel(POLICY)


@pytest.fixture
def safe(new_channel: Callable[[str], PolicyChannel]) -> PolicyChannel:
    return new_channel(SAFE)


def snapshot(version: int, *, epoch: int = 1, num_bytes: int = 3500) -> Snapshot:
    return Snapshot(
        epoch=epoch,
        version=version,
        update=version * 10,
        agent_steps=version * 100,
        elapsed_s=1.5,
        model_digest="abc",
        time_s=12.25,
        weights=bytes([version]) * num_bytes,
    )


def test_nothing_published_is_nothing_new(channel: PolicyChannel) -> None:
    assert channel.newest_version() == (0, 0)
    assert channel.newer_than(0, 0) is None


@pytest.mark.parametrize("num_bytes", [0, 1, 1000, 1001, 3500])
def test_a_snapshot_arrives_whole(channel: PolicyChannel, num_bytes: int) -> None:
    sent = snapshot(1, num_bytes=num_bytes)
    channel.publish(sent)
    assert channel.newest_version() == (1, 1)
    assert channel.newer_than(0, 0) == sent
    assert channel.newer_than(1, 0) == sent
    assert channel.newer_than(1, 1) is None


def test_only_the_newest_counts(channel: PolicyChannel) -> None:
    for version in range(1, 9):
        channel.publish(snapshot(version))
    assert channel.newest_version() == (1, 8)
    assert channel.newer_than(1, 3) == snapshot(8)
    assert channel.newer_than(2, 0) is None


def test_publishing_the_same_again_is_harmless(channel: PolicyChannel) -> None:
    for _ in range(2):
        channel.publish(snapshot(2))
    channel.publish(snapshot(1))
    assert channel.newer_than(0, 0) == snapshot(2)


def test_a_newer_epoch_fences_and_counts_as_newer(channel: PolicyChannel) -> None:
    channel.publish(snapshot(7))
    channel.publish(snapshot(1, epoch=2))
    assert channel.newer_than(1, 7) == snapshot(1, epoch=2)
    with pytest.raises(Fenced, match="epoch 1: epoch 2 has published"):
        channel.publish(snapshot(8))
    assert channel.newer_than(0, 0) == snapshot(1, epoch=2)


def test_the_newest_few_are_kept(channel: PolicyChannel, safe: PolicyChannel) -> None:
    for version in range(1, 9):
        channel.publish(snapshot(version))
        safe.publish(snapshot(version), after=safe.newest_version())
    assert channel.kept() == [(1, version) for version in (8, 7, 6)][:KEPT_BROADCASTS]
    assert safe.kept() == [(1, version) for version in (8, 7, 6, 5, 4)][:KEPT_PROMOTIONS]
    assert safe.get(1, 4) == snapshot(4)
    assert channel.get(1, 4) is None


def test_the_two_channels_of_a_run_know_nothing_of_each_other(
    channel: PolicyChannel, safe: PolicyChannel
) -> None:
    channel.publish(snapshot(3))
    assert safe.newest_version() == (0, 0)
    assert safe.kept() == []
    safe.publish(snapshot(2, epoch=7), after=(0, 0))
    assert channel.newer_than(0, 0) == snapshot(3)
    assert safe.newer_than(0, 0) == snapshot(2, epoch=7)


def test_a_rollback_is_newer_than_what_it_takes_back(safe: PolicyChannel) -> None:
    safe.publish(snapshot(5, epoch=1), after=(0, 0))
    safe.publish(snapshot(9, epoch=2), after=(1, 5))
    safe.publish(snapshot(5, epoch=3), after=(2, 9))
    assert safe.newer_than(2, 9) == snapshot(5, epoch=3)
    assert safe.kept() == [(3, 5), (2, 9), (1, 5)]


@pytest.mark.parametrize("version", [4, 8])
def test_of_two_promoters_the_second_is_fenced(safe: PolicyChannel, version: int) -> None:
    safe.publish(snapshot(5, epoch=1), after=(0, 0))
    safe.publish(snapshot(6, epoch=2), after=(1, 5))
    with pytest.raises(Fenced, match="2-6 is the newest, not 1-5"):
        safe.publish(snapshot(version, epoch=2), after=(1, 5))
    assert safe.newer_than(0, 0) == snapshot(6, epoch=2)


def test_promoting_the_same_again_is_harmless(safe: PolicyChannel) -> None:
    for _ in range(2):
        safe.publish(snapshot(5), after=(0, 0))
    assert safe.kept() == [(1, 5)]
    assert safe.newer_than(0, 0) == snapshot(5)


class TestOnRedis:
    @pytest.fixture
    def redis_channel(
        self, redis_server: EmbeddedRedis, run_name: str
    ) -> Iterator[tuple[RedisChannel, Keys]]:
        opened = RedisChannel(redis_server.url, run_name, piece_bytes=PIECE_BYTES)
        with closing(opened):
            yield opened, Keys(run_name)

    def test_lost_pieces_are_nothing_new_until_published_again(
        self, redis_server: EmbeddedRedis, redis_channel: tuple[RedisChannel, Keys]
    ) -> None:
        channel, keys = redis_channel
        channel.publish(snapshot(1))
        connect(redis_server.url).call("DEL", keys.policy_piece("policy", 1, 1, 2))
        assert channel.newest_version() == (1, 1)
        assert channel.newer_than(0, 0) is None
        channel.publish(snapshot(1))
        assert channel.newer_than(0, 0) == snapshot(1)

    @pytest.mark.parametrize("piece", [b"\x01" * 499 + b"\x02", b"\x01" * 501, b"\x01" * 499])
    def test_wrong_bytes_are_rejected(
        self, redis_server: EmbeddedRedis, redis_channel: tuple[RedisChannel, Keys], piece: bytes
    ) -> None:
        channel, keys = redis_channel
        channel.publish(snapshot(1))
        connect(redis_server.url).call("SET", keys.policy_piece("policy", 1, 1, 3), piece)
        with pytest.raises(RejectedChunk, match="checksum"):
            channel.newer_than(0, 0)

    def test_too_large_is_refused_before_it_is_fetched(
        self, redis_server: EmbeddedRedis, run_name: str
    ) -> None:
        channel = RedisChannel(redis_server.url, run_name, max_bytes=3499)
        channel.publish(snapshot(1))
        with pytest.raises(RejectedChunk, match="oversize"):
            channel.newer_than(0, 0)

    @pytest.mark.parametrize(
        "manifest",
        [
            b"nonsense",
            pack({"a": 1}),
            pack({"num_pieces": 9, "num_bytes": 1, "sha256": "", "facts": {}}),
            pack(
                {
                    "num_pieces": 9,
                    "num_bytes": 1,
                    "sha256": "",
                    "facts": {
                        "update": 1,
                        "agent_steps": 1,
                        "elapsed_s": 1.0,
                        "model_digest": "",
                        "time_s": 1.0,
                    },
                }
            ),
        ],
    )
    def test_a_forged_manifest_is_rejected(
        self, redis_server: EmbeddedRedis, redis_channel: tuple[RedisChannel, Keys], manifest: bytes
    ) -> None:
        channel, keys = redis_channel
        connect(redis_server.url).call("XADD", keys.policy(), "1-1", "d", manifest)
        with pytest.raises(RejectedChunk):
            channel.newer_than(0, 0)

    def test_old_pieces_go_and_the_rest_expires(
        self, redis_server: EmbeddedRedis, redis_channel: tuple[RedisChannel, Keys]
    ) -> None:
        channel, keys = redis_channel
        for version in range(1, 7):
            channel.publish(snapshot(version))
        connection = connect(redis_server.url)
        pieces = as_list(connection.call("KEYS", f"{keys.policy()}:*"))
        assert len(pieces) == KEPT_BROADCASTS * 4
        assert connection.call("XLEN", keys.policy()) == KEPT_BROADCASTS
        assert all(as_int(connection.call("TTL", as_bytes(key))) > 0 for key in pieces)

    def test_safe_pieces_stay_and_those_of_a_fenced_promotion_go(
        self, redis_server: EmbeddedRedis, run_name: str
    ) -> None:
        safe = RedisChannel(redis_server.url, run_name, name=SAFE, piece_bytes=PIECE_BYTES)
        safe.publish(snapshot(5, epoch=1), after=(0, 0))
        with pytest.raises(Fenced):
            safe.publish(snapshot(9, epoch=1), after=(0, 0))
        safe.publish(snapshot(5, epoch=1), after=(0, 0))
        safe.publish(snapshot(6, epoch=2), after=(1, 5))
        with pytest.raises(Fenced):
            safe.publish(snapshot(5, epoch=1), after=(0, 0))
        connection, keys = connect(redis_server.url), Keys(run_name)
        pieces = sorted(map(as_bytes, as_list(connection.call("KEYS", f"{keys.policy()}*:*-*:*"))))
        wanted = [keys.policy_piece(SAFE, *each, i) for each in ((1, 5), (2, 6)) for i in range(4)]
        assert pieces == [key.encode() for key in wanted]
        assert all(connection.call("TTL", key) == -1 for key in pieces)
        safe.close()

    def test_somebody_who_is_faster_wins(
        self, redis_server: EmbeddedRedis, run_name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between looking and writing, where only the server can tell."""
        slow, quick = (RedisChannel(redis_server.url, run_name, name=SAFE) for _ in range(2))
        call = slow._redis.call

        def late(*command: str | bytes | int) -> Reply:
            if command[0] == "MULTI":
                quick.publish(snapshot(5, epoch=1), after=(0, 0))
            return call(*command)

        with monkeypatch.context() as patch:
            patch.setattr(slow._redis, "call", late)
            with pytest.raises(Fenced, match="somebody else"):
                slow.publish(snapshot(9, epoch=1), after=(0, 0))
        assert slow.newer_than(0, 0) == snapshot(5)
        slow.publish(snapshot(9, epoch=2), after=(1, 5))
        assert quick.newer_than(1, 5) == snapshot(9, epoch=2)
