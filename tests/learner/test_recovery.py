"""What a learner makes of a damaged, moved, truncated or full run folder, and of strange clocks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.checkpoint import Checkpoint, list_checkpoints, load, save
from learner.epochs import Epochs
from learner.learner import Learner
from learner.segment_format import Record, SegmentHeader, scan
from learner.segments import read_ledger
from system.chunk_check import expected_columns
from system.clock import ManualClock
from system.errors import CheckpointError, DiskFull, Fenced
from system.log.memory import MemoryLog
from system.tick import Wait
from system.types import EntryId
from tests.learner.bench_for_tests import Bench, run, weights
from tests.learner.disk_for_tests import no_file_larger_than, small_disk
from tests.learner.fleets_for_tests import SPEC, FrontHalf


class JumpingClock(ManualClock):
    """Its wall can be set like the machine's."""

    def __init__(self) -> None:
        super().__init__()
        self.offset_s = 1.7e9

    def wall(self) -> float:
        return self.now() + self.offset_s


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_weights(one: Learner, other: Learner) -> None:
    expected, found = weights(one), weights(other)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def assert_ledger_is_the_arena(learner: Learner, folder: Path) -> None:
    """Each Chunk once, in order, and every Step in the arena the one its ordinal names."""
    ledger, arena = read_ledger(folder / "replay"), learner.arena
    for slot in range(2):
        sequences = [entry_id.sequence for s, entry_id in ledger if s == slot]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    position = arena.storage.read("observation/position", np.arange(arena.capacity))
    for index, (slot, entry_id) in enumerate(reversed(ledger)):
        ordinals = arena.end - 4 * (index + 1) + np.arange(4)
        if ordinals[0] < arena.oldest:
            break
        rows = position[ordinals % arena.capacity]
        assert (rows[:, 0] == 100 * slot).all()
        assert (rows[:, 1] == 4 * (entry_id.sequence - 1) + np.arange(4)).all()


def forget_what_is_stored(store: MemoryLog, folder: Path) -> None:
    """As after a wipe: actors send again only what was not durable."""
    ledger = read_ledger(folder / "replay")
    for slot in range(2):
        durable = max(entry_id for s, entry_id in ledger if s == slot)
        for entry_id in [e for e in store.streams[slot].entries if e <= durable]:
            del store.streams[slot].entries[entry_id]


def test_a_copied_folder_resumes_bitwise_elsewhere_on_a_wiped_store(tmp_path: Path) -> None:
    here = tmp_path / "here"
    first = Bench(here).learner()
    for updates in (21, 22, 24):  # wherever the turns of the slots stand
        run(first, updates)
        first.save()
        shutil.copytree(here, tmp_path / "other" / f"machine{updates}")
    run(first, 30)
    shutil.rmtree(here)
    for updates in (21, 22, 24):
        there = tmp_path / "other" / f"machine{updates}"
        other = Bench(there)
        forget_what_is_stored(other.store, there)
        second = other.learner()
        assert second.updates == updates
        run(second, 30)
        assert_same_weights(first, second)
        second.close()
        assert_ledger_is_the_arena(second, there)


def cut_at_a_commit(folder: Path, records: int) -> int:
    """Cuts the newest segment behind so many records; returns the ordinal that is free now."""
    path = sorted((folder / "replay").glob("*.segment"))[-1]
    header, *rest = scan(path, None)
    assert isinstance(header, SegmentHeader)
    kept = [item for item in rest if isinstance(item, Record)][: records + 1]
    length = header.num_bytes + sum(record.num_bytes for record in kept[:-1])
    path.write_bytes(path.read_bytes()[:length])
    return kept[-1].ordinal


def test_segments_that_lost_their_last_seconds_are_read_again_from_the_store(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    first = bench.learner()
    run(first, 24)
    first.close()
    free = cut_at_a_commit(tmp_path, records=4)
    assert free < first.agent_steps
    second = bench.learner()
    assert (second.updates, second.agent_steps) == (24, free)
    assert all(track.fresh < free for track in second.arena.tracks.values())
    while second.agent_steps < first.agent_steps + 40:
        assert second._ingest.insert_next()
    second._ingest.commit()
    assert_ledger_is_the_arena(second, tmp_path)
    # The second is killed before it saves. The ordinals beyond the cut name other Steps by now.
    third = bench.learner()
    assert (third.updates, third.agent_steps) == (24, second.agent_steps)
    again = np.arange(free, third.agent_steps)
    known = third.arena.columns.known[again % third.arena.capacity]
    assert known.sum() == len(again) // 4  # what the actors said, nothing that the first learned
    run(third, 34)
    third.close()
    assert_ledger_is_the_arena(third, tmp_path)


def test_damage_inside_a_segment_costs_its_chunk_and_is_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.learner()
    run(first, 24)
    first.close()
    path = sorted((tmp_path / "replay").glob("*.segment"))[-2]
    header, *rest = scan(path, None)
    assert isinstance(header, SegmentHeader)
    lost = rest[2]
    assert isinstance(lost, Record)
    offset = header.num_bytes + sum(item.num_bytes for item in rest[:2])
    data = bytearray(path.read_bytes())
    data[offset + 60] ^= 4
    path.write_bytes(data)
    second = bench.learner()
    assert bench.texts("segment_damaged") == [
        f"{path}: {lost.num_bytes} bytes from {offset} on are damaged; left out"
    ]
    (text,) = bench.texts("steps_lost")
    assert text.startswith("4 Steps before slot")
    assert (second.updates, second.agent_steps) == (24, first.agent_steps)
    kept = np.arange(second.arena.oldest, second.arena.end)
    kept = kept[(kept < lost.ordinal) | (kept >= lost.ordinal + 4)]
    for name in expected_columns(SPEC):
        everywhere = np.arange(second.arena.capacity)
        column, before = (
            learner.arena.storage.read(name, everywhere) for learner in (second, first)
        )
        rows = kept % second.arena.capacity
        assert (column[rows] == before[rows]).all(), name
    gone = np.arange(lost.ordinal, lost.ordinal + 4)
    assert not second.arena.can_be_context(gone).any()
    run(second, 30)
    assert not bench.texts("gap")


def turns_without_room(bench: Bench, learner: Learner) -> list[str]:
    """What it was doing in each turn; nothing is called durable that is not on the disk."""
    doing = []
    for _ in range(200):
        bench.clock.sleep(0.3)
        turn = learner.tick()
        doing.append(turn.reason if isinstance(turn, Wait) else turn.what)
        if len(doing) % 20 == 0:
            ledger = read_ledger(bench.folder / "replay")
            for slot, durable in durable_ids(bench).items():
                assert durable.sequence == 0 or (slot, durable) in ledger
    return doing


def durable_ids(bench: Bench) -> dict[int, EntryId]:
    notice = bench.store.slot_log(0).notice()
    return {slot: said.durable for slot, said in notice.slots.items()} if notice else {}


def test_a_full_disk_is_waited_for_and_nothing_is_called_durable_meanwhile(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    learner = bench.learner()
    run(learner, 8)
    learner.save()
    bench.clock.sleep(1.0)
    learner.tick()
    before, saved = learner.updates, list_checkpoints(tmp_path / "checkpoints")
    durable = durable_ids(bench)
    with no_file_larger_than(64):
        doing = turns_without_room(bench, learner)
        assert list_checkpoints(tmp_path / "checkpoints") == saved
        assert durable_ids(bench) == durable
        with pytest.raises(DiskFull):
            learner.save()
    assert doing.count("inserted") <= 8  # until the next sync finds out
    assert doing[-100:].count("disk") > 50
    assert [lease.doing for lease in bench.control.leases()] == ["waiting for disk"]
    (text,) = bench.texts("disk_full")
    assert str(tmp_path) in text
    assert "bytes free" in text
    assert learner.updates >= before
    bench.clock.sleep(70.0)
    run(learner, before + 8)
    assert len(bench.texts("disk_has_room")) == 1
    learner.close()
    assert_ledger_is_the_arena(learner, tmp_path)
    assert durable_ids(bench)[0] > durable[0]
    assert bench.learner().updates == before + 8


def fill(ballast: FileIO) -> None:
    while True:
        ballast.write(bytes(1000))


def test_a_small_disk_fills_up_and_is_given_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", num_bytes=1 << 20) as folder:
        bench = Bench(folder)
        learner = bench.learner()
        run(learner, 5)
        with (folder / "ballast").open("wb", buffering=0) as ballast:
            with pytest.raises(OSError, match="No space left"):
                fill(ballast)
            doing = turns_without_room(bench, learner)
        assert doing[-1] in ("disk", "granted")
        (folder / "ballast").unlink()
        bench.clock.sleep(70.0)
        run(learner, learner.updates + 8)
        learner.close()
        assert_ledger_is_the_arena(learner, folder)
        assert bench.learner().updates == learner.updates


def test_a_start_on_a_full_disk_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    waited: list[str] = []

    class Room(ManualClock):
        def sleep(self, seconds: float) -> None:
            waited.append(bench.control.leases()[0].doing)
            super().sleep(seconds)
            if len(waited) == 3:
                raise TimeoutError

    bench.clock = Room()
    with no_file_larger_than(10), pytest.raises(TimeoutError):
        bench.learner()
    assert waited == ["waiting for disk"] * 3
    assert len(bench.texts("disk_full")) == 1
    bench.clock = ManualClock()
    run(bench.learner(), 3)


def test_a_zombie_changes_nothing_in_folder_store_or_channel(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    old = bench.learner()
    run(old, 8)
    new = bench.learner()
    run(new, 12)
    bench.clock.sleep(2.0)
    new.tick()
    for wiped in (False, True):
        if wiped:  # nothing in it remembers the successor
            bench.store.wipe()
            bench.channel.wipe()
        folder, leases, metrics = files(tmp_path), bench.control.leases(), bench.control.metrics()
        notice, version = bench.store.notice, bench.channel.newest_version()
        for write in (old.tick, old.close, old.save, old._after_update):
            bench.clock.sleep(61.0)
            with pytest.raises(Fenced):
                turn(old, write)
        assert files(tmp_path) == folder
        assert (bench.store.notice, bench.channel.newest_version()) == (notice, version)
        bench.clock.sleep(-4 * 61.0)
        assert bench.control.leases() == leases
        assert bench.control.metrics() == metrics


def test_a_zombie_that_spoke_in_an_empty_store_is_overruled(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    run(bench.learner(), 8)
    said = bench.channel.newer_than(0, 0)
    assert said is not None
    new = bench.learner()
    bench.channel.wipe()
    bench.channel.publish(said)  # it was stopped between its last look and this word
    new._publisher.repeat(new.standing())
    assert bench.channel.newest_version()[0] == new.standing().epoch > said.epoch


def turn(learner: Learner, write: Callable[[], object]) -> None:
    for _ in range(1 if write != learner.tick else 1000):
        write()


def test_a_learner_whose_chunks_all_are_rejected_says_so_once_in_ten_seconds(
    tmp_path: Path,
) -> None:
    clock, store = ManualClock(), MemoryLog()
    half = FrontHalf(store.reader(), tmp_path, clock)
    log = store.slot_log(0)
    for sequence in range(1, 301):
        log.append(EntryId(1, sequence), b"\x01 nonsense", create=True)
        clock.sleep(0.1)
        assert not half.ingest.insert_next()
        half.ingest.commit()
    clock.sleep(10.0)
    half.ingest.repeat_notice()
    half.ingest.commit()
    texts = [text for kind, text in half.events if kind == "chunk_rejected"]
    assert 4 <= len(texts) <= 5
    counted = [int(text.split()[2]) for text in texts[1:]]
    assert sum(counted) == 299
    assert "the first: 1-2:" in texts[1]
    assert sum(half.ingest.counts.values()) == 300


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
def test_a_jump_of_the_wall_clock_changes_no_duration(tmp_path: Path, jump_s: float) -> None:
    clock = JumpingClock()
    bench = Bench(tmp_path, clock)
    learner = bench.learner()
    for update in range(1, 15):
        if update == 5:
            clock.offset_s += jump_s
        clock.sleep(2.5)
        run(learner, update)
        assert learner.standing().elapsed_s == pytest.approx(2.5 * update)
        assert [lease.time_s for lease in bench.control.leases()] == [clock.wall()]
    learner.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    times = [line["time_s"] for line in lines]
    assert times == sorted(times)
    assert len(set(times)) >= 13
    assert all(0 <= line["learner/updates_per_s"] <= 2 for line in lines)
    clock.offset_s -= 2 * jump_s
    second = bench.learner()
    assert second.standing().elapsed_s == pytest.approx(2.5 * 14)
    run(second, 17)


def test_a_line_of_metrics_cut_off_by_a_crash_stays_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    run(bench.learner(), 3)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    bench.clock.sleep(5.0)
    run(bench.learner(), 3)
    lines = path.read_text().splitlines()
    assert len(lines) >= 2
    assert all(json.loads(line) for line in lines[1:])


def doctored(saved: Checkpoint, part: str, name: str, value: Any) -> Checkpoint:
    if part == "bookmark":
        return replace(saved, bookmark=replace(saved.bookmark, **{name: value}))
    tensors = {**saved.tensors, part: {**saved.tensors[part], name: value}}
    return replace(saved, tensors=tensors)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("bookmark", "torch_generator", b"short"),
        ("bookmark", "torch_generator", bytes(5056)),
        ("bookmark", "sampler_generator", {}),
        ("bookmark", "sampler_generator", {"bit_generator": "PCG64", "state": {"state": -1}}),
        ("bookmark", "replayed", 1 << 50),
        ("optimizer", "rms", torch.zeros(3)),
        ("weights", "more", torch.zeros(3)),
        ("latents", "oldest", torch.zeros(3)),
        ("latents", "deter", torch.zeros(3)),
        ("latents", "known", torch.zeros(3, dtype=torch.bool)),
        ("latents", "stoch", torch.full((1, 4), 255, dtype=torch.uint8)),
    ],
)
def test_a_whole_checkpoint_that_does_not_fit_is_refused_without_a_traceback(
    tmp_path: Path, part: str, name: str, value: Any
) -> None:
    bench = Bench(tmp_path)
    learner = bench.learner()
    run(learner, 3)
    learner.close()
    folder = tmp_path / "checkpoints"
    path = list_checkpoints(folder)[-1]
    saved = load(path)
    shutil.rmtree(folder)
    save(folder, doctored(saved, part, name, value), Epochs(tmp_path / "elsewhere"), keep=2)
    with pytest.raises(CheckpointError, match="checkpoint"):
        bench.learner()
