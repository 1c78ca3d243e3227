"""What every log must do: the same suite over memory and a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from deploy.redis_server import EmbeddedRedis
from system.errors import Fenced, Unavailable, UserError
from system.keys import Keys
from system.log.memory import MemoryLog
from system.log.protocol import AppendReply, Entry, LogReader, Notice, SlotLog, SlotNotice
from system.log.redis import RedisLog
from system.redis_client import as_bytes, as_list, connect, ping
from system.types import ZERO_ID, EntryId

ACKNOWLEDGED, REFUSED, MISSING = AppendReply
PATIENCE_S = 10_000.0


class Store:
    """One log, and how to open ends of it."""

    def __init__(self, log: MemoryLog | RedisLog, wipe: Callable[[], object]) -> None:
        self.log, self.wipe = log, wipe
        self._open: list[SlotLog | LogReader] = []

    def slot(self, slot: int = 0) -> SlotLog:
        self._open.append(self.log.slot_log(slot))
        return self._open[-1]

    def reader(self) -> LogReader:
        self._open.append(self.log.reader())
        return self._open[-1]

    def close(self) -> None:
        for end in self._open:
            end.close()


@pytest.fixture(params=["memory", "redis", "two servers"])
def store(request: pytest.FixtureRequest, run_name: str) -> Iterator[Store]:
    if request.param == "memory":
        memory = MemoryLog()
        opened = Store(memory, memory.wipe)
    else:
        control: EmbeddedRedis = request.getfixturevalue("redis_server")
        two = request.param == "two servers"
        data = request.getfixturevalue("data_server") if two else control
        connections = [connect(server.url) for server in (control, data)]
        keys = Keys(run_name)
        names = [keys.log(0), keys.log(1), keys.slots, keys.learner]
        opened = Store(
            RedisLog(url=data.url, run=run_name, control_url=control.url, timeout_s=PATIENCE_S),
            lambda: [connection.call("DEL", *names) for connection in connections],
        )
    with closing(opened):
        yield opened


def test_each_role_has_its_server(
    redis_server: EmbeddedRedis, data_server: EmbeddedRedis, run_name: str
) -> None:
    log = RedisLog(url=data_server.url, run=run_name, control_url=redis_server.url)
    end, reader, keys = log.slot_log(3), log.reader(), Keys(run_name)
    end.append(EntryId(1, 0), b"", create=True)
    reader.publish(Notice(epoch=reader.claim_epoch(), tick=1))
    for server, names in (
        (redis_server, {keys.learner}),
        (data_server, {keys.log(3), keys.slots}),
    ):
        found = as_list(connect(server.url).call("KEYS", f"dreamfleet:{run_name}:*"))
        assert {as_bytes(name).decode() for name in found} == names


def ids(entries: list[Entry]) -> list[tuple[int, str]]:
    return [(entry.slot, str(entry.entry_id)) for entry in entries]


def fill(end: SlotLog, incarnation: int, count: int) -> None:
    for sequence in range(count + 1):
        reply = end.append(EntryId(incarnation, sequence), b"x%d" % sequence, create=True)
        assert reply is ACKNOWLEDGED


def fill_up(end: SlotLog) -> None:
    for sequence in range(1, 40):
        end.append(EntryId(1, sequence), b"z" * 500_000, create=False)


def test_append_needs_a_stream_unless_it_creates_one(store: Store) -> None:
    end = store.slot()
    assert end.last_id() is None
    assert end.append(EntryId(1, 0), b"claim", create=False) is MISSING
    assert end.last_id() is None
    assert store.reader().slots() == []
    assert end.append(EntryId(1, 0), b"claim", create=True) is ACKNOWLEDGED
    assert end.append(EntryId(1, 1), b"chunk", create=False) is ACKNOWLEDGED
    assert end.last_id() == EntryId(1, 1)
    assert store.reader().slots() == [0]


@pytest.mark.parametrize("create", [True, False])
def test_append_refuses_what_is_not_greater(store: Store, create: bool) -> None:
    end = store.slot()
    fill(end, 2, 3)
    for refused in (EntryId(2, 3), EntryId(2, 1), EntryId(1, 99), EntryId(2, 0)):
        assert end.append(refused, b"", create=create) is REFUSED
    assert end.append(EntryId(2, 5), b"", create=create) is ACKNOWLEDGED
    assert end.append(EntryId(3, 0), b"", create=create) is ACKNOWLEDGED


def test_ids_are_ordered_as_numbers(store: Store) -> None:
    end = store.slot()
    assert end.append(EntryId(9, 9), b"", create=True) is ACKNOWLEDGED
    assert end.append(EntryId(9, 10), b"", create=False) is ACKNOWLEDGED
    assert end.append(EntryId(10, 1), b"", create=False) is ACKNOWLEDGED
    assert ids(store.reader().read({0: EntryId(9, 9)}, limit=9)) == [(0, "9-10"), (0, "10-1")]


def test_read_after_cursors_in_order_with_a_limit(store: Store) -> None:
    fill(store.slot(0), 1, 3)
    fill(store.slot(1), 4, 1)
    reader = store.reader()
    assert reader.slots() == [0, 1]
    everything = reader.read({0: ZERO_ID, 1: ZERO_ID}, limit=10)
    assert ids(everything) == [(0, f"1-{n}") for n in range(4)] + [(1, "4-0"), (1, "4-1")]
    assert [entry.payload for entry in everything[:4]] == [b"x0", b"x1", b"x2", b"x3"]
    assert ids(reader.read({0: EntryId(1, 1), 1: EntryId(4, 1)}, limit=1)) == [(0, "1-2")]
    assert reader.read({0: EntryId(1, 3), 1: EntryId(7, 0)}, limit=1) == []
    assert reader.read({5: ZERO_ID}, limit=1) == []
    assert reader.read({}, limit=1, wait_s=0.01) == []


def test_read_waits_for_the_first_entry(store: Store) -> None:
    end, reader = store.slot(), store.reader()
    fill(end, 1, 0)
    start_s = time.monotonic()
    assert reader.read({0: EntryId(1, 0)}, limit=1, wait_s=0.05) == []
    assert time.monotonic() - start_s >= 0.04
    later = threading.Timer(0.05, lambda: end.append(EntryId(1, 1), b"y", create=False))
    later.start()
    found = reader.read({0: EntryId(1, 0)}, limit=1, wait_s=PATIENCE_S)
    assert ids(found) == [(0, "1-1")], "not at the end of its patience: this test would not end"
    later.join()


def test_trim_drops_what_is_below_and_keeps_the_last_id(store: Store) -> None:
    end, reader = store.slot(), store.reader()
    fill(end, 1, 4)
    assert reader.trim(0, EntryId(1, 3)) == 3
    assert ids(reader.read({0: ZERO_ID}, limit=9)) == [(0, "1-3"), (0, "1-4")]
    assert reader.trim(0, EntryId(2, 0)) == 2
    assert reader.read({0: ZERO_ID}, limit=9) == []
    assert end.last_id() == EntryId(1, 4)
    assert end.append(EntryId(1, 4), b"", create=False) is REFUSED
    assert end.append(EntryId(1, 5), b"", create=False) is ACKNOWLEDGED
    assert reader.trim(7, EntryId(2, 0)) == 0


def test_num_bytes_grows_and_shrinks(store: Store) -> None:
    end, reader = store.slot(), store.reader()
    assert reader.num_bytes() == 0
    for sequence in range(4):
        end.append(EntryId(1, sequence), b"z" * 100_000, create=True)
    full = reader.num_bytes()
    assert 400_000 <= full < 800_000
    reader.trim(0, EntryId(1, 3))
    assert reader.num_bytes() < full / 2


def test_notice_is_the_newest_and_comes_back_whole(store: Store) -> None:
    end, reader = store.slot(), store.reader()
    assert end.notice() is None
    assert reader.claim_epoch() == 1
    assert end.notice() is None
    for tick in (1, 2):
        said = SlotNotice(durable=EntryId(1, tick), granted=EntryId(1, 9), holder="host:1")
        notice = Notice(epoch=1, tick=tick, slots={0: said, 3: SlotNotice()})
        reader.publish(notice)
        assert end.notice() == notice
    reader.publish(notice)  # its reply was lost, so it is said again
    assert end.notice() == notice


def test_a_newer_epoch_fences_the_older(store: Store) -> None:
    end, old, new = store.slot(), store.reader(), store.reader()
    assert old.claim_epoch() == 1
    old.publish(Notice(epoch=1, tick=1))
    assert new.claim_epoch() == 2
    assert end.notice() is None
    with pytest.raises(Fenced, match="epoch 1: epoch 2 has taken over"):
        old.publish(Notice(epoch=1, tick=2))
    new.publish(Notice(epoch=2, tick=1))
    with pytest.raises(Fenced):
        old.publish(Notice(epoch=1, tick=3))
    assert end.notice() == Notice(epoch=2, tick=1)


def test_after_a_wipe_the_learner_speaks_on_and_epochs_do_not_come_back(store: Store) -> None:
    end, reader = store.slot(), store.reader()
    fill(end, 1, 2)
    for epoch in (1, 2, 3):
        assert reader.claim_epoch() == epoch
    reader.publish(Notice(epoch=3, tick=8))
    store.wipe()
    assert end.notice() is None
    assert end.last_id() is None
    assert end.append(EntryId(1, 3), b"", create=False) is MISSING
    assert reader.slots() == []
    assert reader.num_bytes() == 0
    reader.publish(Notice(epoch=3, tick=9))
    assert end.notice() == Notice(epoch=3, tick=9)
    store.wipe()
    assert reader.claim_epoch(after=3) == 4
    assert reader.claim_epoch(after=3) == 5


def test_threads_appending_at_once_get_one_winner_an_id(store: Store) -> None:
    end = store.slot()
    fill(end, 1, 0)
    won: list[AppendReply] = []

    def append_all() -> None:
        own = store.log.slot_log(0)
        won.extend(own.append(EntryId(1, n), b"", create=False) for n in range(1, 51))
        own.close()

    threads = [threading.Thread(target=append_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = store.reader().read({0: ZERO_ID}, limit=1000)
    assert won.count(ACKNOWLEDGED) == len(entries) - 1
    assert [entry.entry_id for entry in entries] == sorted({entry.entry_id for entry in entries})


def test_memory_can_lose_one_role() -> None:
    memory = MemoryLog()
    end, reader = memory.slot_log(0), memory.reader()
    fill(end, 1, 3)
    said = Notice(epoch=reader.claim_epoch(), tick=1)
    reader.publish(said)
    memory.wipe(control=False)
    assert (end.last_id(), reader.slots(), end.notice()) == (None, [], said)
    fill(end, 1, 3)
    memory.wipe(data=False)
    assert (end.last_id(), reader.slots(), end.notice()) == (EntryId(1, 3), [0], None)


def test_memory_can_lose_its_tail_and_be_away() -> None:
    memory = MemoryLog()
    end = memory.slot_log(0)
    fill(end, 1, 3)
    assert memory.lose_tail(0, 2) == 2
    assert end.last_id() == EntryId(1, 1)
    assert memory.lose_tail(0, 9) == 2
    assert memory.lose_tail(4, 1) == 0
    memory.unavailable = True
    with pytest.raises(Unavailable):
        end.last_id()


def test_redis_that_is_away_or_refuses_is_named(redis_server: EmbeddedRedis) -> None:
    end = RedisLog(url="unix:///nowhere/redis.sock", run="r").slot_log(0)
    with pytest.raises(Unavailable, match=r"unix:///nowhere/redis\.sock"):
        end.last_id()
    with pytest.raises(UserError, match=r"cannot reach Redis at redis://\*\*\*@127.0.0.1:1/0"):
        ping("redis://me:secret@127.0.0.1:1/0")
    with pytest.raises(UserError, match="must start with redis://"):
        connect("http://localhost")
    ping(redis_server.url)


def test_a_full_server_is_unavailable_and_keeps_its_connection(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    small = EmbeddedRedis(tmp_path_factory.mktemp("small"), max_memory_bytes=8 * 1024**2)
    small.start()
    try:
        end = RedisLog(url=small.url, run="r").slot_log(0)
        end.append(EntryId(1, 0), b"", create=True)
        with pytest.raises(Unavailable, match="is full"):
            fill_up(end)
        last = end.last_id()
        assert last is not None
        assert 1 <= last.sequence < 39
        end.close()
    finally:
        small.stop()
