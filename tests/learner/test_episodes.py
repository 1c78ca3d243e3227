"""Recorded episodes, read from segments as a learner wrote them, against a literal list."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learner.episodes import LEAST_STEPS, Moments, pick_episode, read_episodes
from learner.segment_format import Record
from learner.segments import SegmentStore
from system.codec import encode_chunk
from system.errors import RunError
from system.models.dynamics import Latent
from system.types import Chunk, EntryId
from tests.learner.fleets_for_tests import SPEC


class Tape:
    """Writes Chunks of several Tracks into segments; knows each episode as a list of rewards."""

    def __init__(self, folder, seed=0):
        self.folder, self.random = folder, np.random.default_rng(seed)
        self.store = SegmentStore(folder / "replay", segment_bytes=4000)
        self.store.epoch = 1
        self.ordinal, self.number = 0, 0.0
        self.sequence, self.incarnation, self.first_step = {}, {}, {}
        self.open, self.ended, self.everything = {}, [], []

    def write(self, slot, length, ends=()):
        """The Steps at `ends` are the last ones of their episodes; the next one begins another."""
        key, rewards = slot, self.number + np.arange(length)
        is_first, is_last = np.zeros(length, bool), np.isin(np.arange(length), ends)
        for row in range(length):
            begins = self.open.get(key) is None and self.first_step.get(key, 0) == 0 and row == 0
            if begins or (row > 0 and is_last[row - 1]) or self.open.get(key) == []:
                is_first[row] = True
                self.open[key] = []
            if self.open.get(key) is not None:
                self.open[key].append(rewards[row])
                if is_last[row]:
                    self._end(key)
                    self.open[key] = []
        self.number += length
        self.everything.append(rewards)
        self._append(slot, rewards, is_first, is_last)

    def lose(self, slot):
        """Four Steps that never arrive: what goes on then has no beginning."""
        self.first_step[slot] += 4
        self._end(slot)
        self.open[slot] = None

    def restart(self, slot):
        self.incarnation[slot] = self.incarnation.get(slot, 1) + 1
        self.sequence[slot], self.first_step[slot] = 0, 0
        self._end(slot)
        self.open[slot] = None

    def _end(self, slot):
        if self.open.get(slot) and len(self.open[slot]) >= LEAST_STEPS:
            self.ended.append(self.open[slot])

    def _append(self, slot, rewards, is_first, is_last):
        length = len(rewards)
        self.sequence[slot] = self.sequence.get(slot, 0) + 1
        entry_id = EntryId(self.incarnation.get(slot, 1), self.sequence[slot])
        chunk = Chunk(
            spec_digest=SPEC.digest, env=SPEC.name, slot=slot, incarnation=entry_id.incarnation,
            sequence=entry_id.sequence, copy=0, first_step=self.first_step.get(slot, 0),
            policy_version_min=1, policy_version_max=1,
            fields={
                "observation/position": np.stack([rewards, -rewards], 1).astype(np.float32),
                "action": rewards[:, None].astype(np.float32) / 1000,
                "reward": rewards.astype(np.float32),
                "is_first": is_first, "is_last": is_last,
                "is_terminal": is_last,
            },
        )  # fmt: skip
        self.first_step[slot] = self.first_step.get(slot, 0) + length
        record = Record(
            slot=slot, entry_id=entry_id, ordinal=self.ordinal, payload=encode_chunk(chunk)
        )
        self.store.append(record)
        self.ordinal += length

    def read(self, moments=None):
        self.store.commit()
        return list(read_episodes(self.folder, SPEC, moments or Moments()))


def rewards_of(episodes):
    return [episode.fields["reward"].tolist() for episode in episodes]


def test_episodes_come_back_whole_in_the_order_in_which_they_ended(tmp_path):
    tape = Tape(tmp_path)
    tape.write(0, 4)
    tape.write(1, 4, ends=[2])
    tape.write(0, 4, ends=[0, 3])
    tape.write(1, 4, ends=[1])
    tape.write(0, 4)
    tape.write(1, 1)
    still_open = [tape.open[0], tape.open[1]]
    assert [len(each) for each in still_open] == [4, 3]
    assert rewards_of(tape.read()) == tape.ended + still_open
    assert [len(each) for each in tape.ended] == [3, 5, 3, 3]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_no_episode_mixes_two(tmp_path, seed):
    tape = Tape(tmp_path)
    random = np.random.default_rng(seed)
    for _ in range(60):
        slot = int(random.integers(3))
        kind = random.random()
        if kind < 0.08 and tape.first_step.get(slot):
            tape.lose(slot)
        elif kind < 0.15 and tape.first_step.get(slot):
            tape.restart(slot)
        else:
            length = int(random.integers(1, 6))
            tape.write(slot, length, ends=np.flatnonzero(random.random(length) < 0.2))
    found = rewards_of(tape.read())
    unfinished = [steps for steps in tape.open.values() if steps and len(steps) >= LEAST_STEPS]
    assert sorted(found) == sorted(tape.ended + unfinished)


def test_a_batch_is_the_episode_with_the_actions_before(tmp_path):
    tape = Tape(tmp_path)
    tape.write(0, 5, ends=[4])
    (episode,) = tape.read()
    batch = episode.batch(Latent(torch.zeros(1, 2), torch.zeros(1, 1, 2)))
    assert batch.reward.tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0]]
    action = batch.action[0, :, 0].tolist()
    assert batch.previous_action[0, :, 0].tolist() == [0.0, *action[:-1]]
    assert batch.is_first.tolist() == [[True, False, False, False, False]]
    assert batch.is_last.tolist() == [[False, False, False, False, True]]
    assert batch.observation["position"].shape == (1, 5, 2)


def test_the_variance_is_that_of_every_step(tmp_path):
    tape, moments = Tape(tmp_path), Moments()
    tape.write(0, 5, ends=[1])
    tape.write(1, 3)
    tape.read(moments)
    rewards = np.concatenate(tape.everything)
    expected = np.stack([rewards, -rewards], 1).var(0)
    assert moments.variances()["position"].tolist() == pytest.approx(expected.tolist())


def test_an_episode_is_picked_by_its_place_among_those_long_enough(tmp_path):
    tape = Tape(tmp_path)
    for length in (3, 6, 4, 5):
        tape.write(0, length, ends=[length - 1])
    lengths = [6, 4, 5]
    for index in (0, 1, 2, -1, -2, -3):
        episode = pick_episode(iter(tape.read()), index, least_steps=4)
        assert len(episode) == lengths[index]
    for index in (3, -4):
        with pytest.raises(RunError, match=r"holds 3 episodes .* choose -3 .. 2"):
            pick_episode(iter(tape.read()), index, least_steps=4)
    with pytest.raises(RunError, match="no episode of at least 9"):
        pick_episode(iter(tape.read()), -1, least_steps=9)
