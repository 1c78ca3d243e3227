"""What every policy channel must do: the same suite over memory and a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from deploy.redis_server import EmbeddedRedis
from system.channel.memory import MemoryChannel
from system.channel.protocol import PolicyChannel
from system.channel.redis import KEPT_BROADCASTS, RedisChannel
from system.codec import pack
from system.errors import Fenced, RejectedChunk
from system.keys import Keys
from system.redis_client import as_bytes, as_int, as_list, connect
from system.types import Snapshot

PIECE_BYTES = 1000


@pytest.fixture(params=["memory", "redis"])
def channel(request: pytest.FixtureRequest, run_name: str) -> Iterator[PolicyChannel]:
    if request.param == "memory":
        yield MemoryChannel()
        return
    server: EmbeddedRedis = request.getfixturevalue("redis_server")
    with closing(RedisChannel(server.url, run_name, piece_bytes=PIECE_BYTES)) as opened:
        yield opened


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
        connect(redis_server.url).call("DEL", keys.policy_piece(1, 1, 2))
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
        connect(redis_server.url).call("SET", keys.policy_piece(1, 1, 3), piece)
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
        connect(redis_server.url).call("XADD", keys.policy, "1-1", "d", manifest)
        with pytest.raises(RejectedChunk):
            channel.newer_than(0, 0)

    def test_old_pieces_go_and_the_rest_expires(
        self, redis_server: EmbeddedRedis, redis_channel: tuple[RedisChannel, Keys]
    ) -> None:
        channel, keys = redis_channel
        for version in range(1, 7):
            channel.publish(snapshot(version))
        connection = connect(redis_server.url)
        pieces = as_list(connection.call("KEYS", f"{keys.policy}:*"))
        assert len(pieces) == KEPT_BROADCASTS * 4
        assert connection.call("XLEN", keys.policy) == KEPT_BROADCASTS
        assert all(as_int(connection.call("TTL", as_bytes(key))) > 0 for key in pieces)
