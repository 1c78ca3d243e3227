"""Returns of acted episodes against a slow twin; each once, over gaps and restarts."""

from __future__ import annotations

import errno
import json
from dataclasses import replace

import numpy as np
import pytest

from learner.acted import ActedEpisodes, EpisodeLog
from system.clock import ManualClock
from system.codec import encode_chunk
from system.errors import Fenced
from system.log.memory import MemoryLog
from system.log.messages import encode_claim
from system.log.protocol import Claim
from system.types import EntryId
from tests.learner.disk_for_tests import no_file_larger_than
from tests.learner.fleets_for_tests import SPEC, FrontHalf, chunk_of


def track(dice, num_steps):
    """Flags and rewards of one endless Track; some episodes are cut without a last Step."""
    is_first, is_last = np.zeros(num_steps, bool), np.zeros(num_steps, bool)
    step = 0
    while step < num_steps:
        is_first[step] = True
        step += int(dice.integers(2, 12))
        if step <= num_steps and dice.random() < 0.8:
            is_last[step - 1] = True
    return is_first, is_last, dice.normal(size=num_steps).astype(np.float32) * ~is_first


def chunks(dice, num_steps, columns):
    is_first, is_last, reward = columns
    start, sequence = 0, 0
    while start < num_steps:
        length = min(int(dice.integers(1, 5)), num_steps - start)
        sequence += 1
        at = slice(start, start + length)
        chunk = chunk_of(slot=0, incarnation=1, sequence=sequence, first_step=start, length=length)
        flags = {"is_first": is_first[at], "is_last": is_last[at], "is_terminal": is_last[at]}
        yield replace(chunk, fields={**chunk.fields, "reward": reward[at], **flags})
        start += length


def literal(num_steps, columns):
    """(last Step, return, actions) of every whole episode, Step by Step."""
    is_first, is_last, reward = columns
    found, total, length = [], None, 0
    for step in range(num_steps):
        if is_first[step]:
            total, length = 0.0, 0
        else:
            total, length = total + float(reward[step]), length + 1
        if is_last[step]:
            found.append((step + 1, total, length))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_returns_and_lengths(seed):
    dice = np.random.default_rng(seed)
    columns = track(dice, 200)
    acted, end = ActedEpisodes(), 0
    for chunk in chunks(dice, 200, columns):
        end += chunk.num_steps
        acted.take(chunk, end=end)
    assert acted.pop() == []  # nothing is told before it is durable
    acted.make_durable()
    found = [(one.end, pytest.approx(one.episode_return, abs=1e-5), one.length)
             for one in acted.pop()]  # fmt: skip
    assert found == literal(200, columns)
    assert acted.pop() == []


def test_an_episode_with_a_gap_is_left_out():
    acted = ActedEpisodes()
    for end, start in ((3, 0), (6, 6), (9, 9)):  # Steps 3 to 5 never come
        steps = start + np.arange(3)
        chunk = chunk_of(slot=0, incarnation=1, sequence=1 + start, first_step=start, length=3)
        flags = {"is_first": steps % 6 == 0, "is_last": steps % 6 == 5}
        acted.take(replace(chunk, fields={**chunk.fields, **flags}), end=end)
    acted.make_durable()
    assert [(one.end, one.length) for one in acted.pop()] == [(9, 5)]


def told(folder):
    text = (folder / "episodes.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_restart_tells_each_once_and_misses_none(tmp_path):
    """The learner dies between the segments and the file, in the middle of an episode."""
    dice = np.random.default_rng(3)
    columns = track(dice, 60)
    pieces = list(chunks(dice, 60, columns))
    store, clock = MemoryLog(), ManualClock()
    log = store.slot_log(0)
    log.append(
        EntryId(1, 0),
        encode_claim(Claim(who="a", spec_digest=SPEC.digest, num_copies=1)),
        create=True,
    )

    def live(until, *, telling):
        half = FrontHalf(store.reader(), tmp_path, clock)
        episodes = EpisodeLog(tmp_path, action_repeat=2)
        for piece in pieces[len(half_taken) : until]:
            log.append(piece.entry_id, encode_chunk(piece), create=False)
            assert half.ingest.insert_next()
            half_taken.append(piece)
            half.ingest.commit()
            if telling:
                episodes.write(half.ingest.acted.pop(), elapsed_s=1.0)
        half.ingest.commit()
        if telling:
            episodes.write(half.ingest.acted.pop(), elapsed_s=2.0)

    half_taken = []
    live(len(pieces) // 3, telling=True)
    live(2 * len(pieces) // 3, telling=False)
    live(len(pieces), telling=True)
    ends = [end for end, _, _ in literal(60, columns)]
    assert [line["frames"] for line in told(tmp_path)] == [2 * end for end in ends]


def test_a_full_disk_loses_none(tmp_path, monkeypatch):
    dice = np.random.default_rng(1)
    columns = track(dice, 40)
    log, acted, end = EpisodeLog(tmp_path, action_repeat=1), ActedEpisodes(), 0
    import learner.acted as module

    def full(path, line):
        raise OSError(errno.ENOSPC, "no room")

    for number, chunk in enumerate(chunks(dice, 40, columns)):
        end += chunk.num_steps
        acted.take(chunk, end=end)
        acted.make_durable()
        with monkeypatch.context() as patch:
            if number % 2:
                patch.setattr(module, "append_line", full)
            log.write(acted.pop(), elapsed_s=0.0)
    log.write([], elapsed_s=0.0)
    assert [line["frames"] for line in told(tmp_path)] == [e for e, _, _ in literal(40, columns)]


def test_lines_cut_by_a_full_disk_come_once(tmp_path):
    """Some of them are whole, one is cut: the disk took a part of the write."""
    dice = np.random.default_rng(1)
    columns = track(dice, 40)
    log, acted, end = EpisodeLog(tmp_path, action_repeat=1), ActedEpisodes(), 0
    log.path.write_text('{"frames":0,"retu')
    for chunk in chunks(dice, 40, columns):
        end += chunk.num_steps
        acted.take(chunk, end=end)
    acted.make_durable()
    with no_file_larger_than(300):
        log.write(acted.pop(), elapsed_s=0.0)
        assert log.path.stat().st_size == 300
        log.write([], elapsed_s=0.0)
    log.write([], elapsed_s=0.0)
    lines = log.path.read_text().splitlines()
    assert lines[0] == '{"frames":0,"retu'
    frames = [json.loads(line)["frames"] for line in lines[1:]]
    assert frames == [end for end, _, _ in literal(40, columns)]


def test_a_learner_of_the_past_writes_nothing(tmp_path):
    def fenced():
        raise Fenced("a newer one")

    dice = np.random.default_rng(1)
    acted, end = ActedEpisodes(), 0
    for chunk in chunks(dice, 40, track(dice, 40)):
        end += chunk.num_steps
        acted.take(chunk, end=end)
    acted.make_durable()
    log = EpisodeLog(tmp_path, action_repeat=1, check=fenced)
    with pytest.raises(Fenced):
        log.write(acted.pop(), elapsed_s=0.0)
    assert not log.path.exists()


def test_a_line_cut_short_is_not_the_last_word(tmp_path):
    path = tmp_path / "episodes.jsonl"
    path.write_text('{"frames":10,"return":1}\n{"frames":30,"retu')
    log = EpisodeLog(tmp_path, action_repeat=1)
    dice = np.random.default_rng(1)
    columns = np.arange(20) == 0, np.arange(20) == 19, np.ones(20, np.float32)
    acted = ActedEpisodes()
    for chunk in chunks(dice, 20, columns):
        acted.take(chunk, end=chunk.first_step + chunk.num_steps)
    acted.make_durable()
    log.write(acted.pop(), elapsed_s=0.0)
    assert json.loads(path.read_text().splitlines()[-1])["frames"] == 20
