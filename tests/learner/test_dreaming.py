"""When the learner dreams for people, what that costs, and that training does not notice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from learner.dream_files import DreamFiles
from learner.dreaming import BLOB, CONTEXT, HORIZON, MOST_SHARE, Dreamer
from learner.open_loop import Models
from learner.publisher import Standing
from learner.setup import LearnerSeams
from system.channel.memory import MemoryChannel
from system.clock import ManualClock
from system.control.memory import MemoryControl
from system.dream_codec import decode_dream
from system.errors import DiskFull, Fenced, Unavailable
from system.log.memory import MemoryLog
from system.metrics import MEASURED
from tests.dreams_for_tests import said
from tests.learner import bench_for_tests
from tests.learner.bench_for_tests import Bench, run, weights
from tests.learner.fleets_for_tests import MODEL, SPEC
from tests.learner.test_recordings import arena_of, chunk
from tests.learning_for_tests import CPU, learner_config


class SlowClock(ManualClock):
    """Every look at it takes a while."""

    def __init__(self, look_s=0.0):
        super().__init__()
        self.look_s = look_s

    def now(self):
        self.sleep(self.look_s)
        return super().now()


class Away(MemoryControl):
    def put_blob(self, name, data, *, ttl_s):
        raise Unavailable("not now")


class FullDisk(DreamFiles):
    def write(self, update, data):
        raise DiskFull("no room")


class Raising(DreamFiles):
    """As many errors as there are, then none."""

    def __init__(self, folder, *errors):
        super().__init__(folder)
        self.errors = [*errors]

    def write(self, update, data):
        if self.errors:
            raise self.errors.pop(0)
        super().write(update, data)


def standing(update=3):
    return Standing(epoch=1, update=update, agent_steps=90, elapsed_s=4.5)


class Room:
    """A dreamer and what is around it."""

    def __init__(self, folder, *, clock=None, control=None, files=None, every_s=10.0, steps=90):
        from learner.update import Learning

        torch.manual_seed(0)
        learning = Learning(learner_config(), MODEL, SPEC, CPU)
        self.clock = clock or ManualClock()
        self.control = control or MemoryControl(self.clock)
        self.files = files or DreamFiles(folder)
        self.events = []
        self.arena = arena_of()
        for first in range(0, steps, 10):
            self.arena.insert(chunk(0, first, 10, firsts=[0]))
        seams = LearnerSeams(
            reader=MemoryLog().reader(), channel=MemoryChannel(), control=self.control,
            clock=self.clock,
        )  # fmt: skip
        self.dreamer = Dreamer(
            Models(
                world_model=learning.world_model, decoder=learning.decoder,
                policy=learning.behavior.policy,
            ),
            self.arena, seams, self.files,
            learner_config(dream_report_s=every_s, discount_horizon=10.0),
            lambda kind, text: self.events.append((kind, text)),
        )  # fmt: skip


def test_a_report_reaches_control_and_the_folder(tmp_path):
    room = Room(tmp_path)
    room.dreamer.tick(standing())
    report = decode_dream(room.control.blob(BLOB))
    assert said(report) == said(room.files.read(3))
    assert (report.update, report.frames, report.elapsed_s) == (3, 90, 4.5)
    assert (report.context_steps, report.horizon) == (CONTEXT, HORIZON)
    assert (report.starts, report.samples) == (1, 8)
    assert report.examples[0].steps == CONTEXT + HORIZON
    real = report.examples[0].vectors[0].real
    assert real.tolist() == pytest.approx(list(range(int(real[0]), int(real[0]) + 50)))
    assert (report.earlier_update, report.earlier_error) == (None, None)


def test_its_numbers_are_those_of_the_catalogue(tmp_path):
    room = Room(tmp_path)
    assert room.dreamer.numbers == {}
    room.dreamer.tick(standing())
    report, numbers = decode_dream(room.control.blob(BLOB)), room.dreamer.numbers
    for horizon in (1, 5, 15, 45):
        assert numbers[f"dream/error_{horizon}"] == pytest.approx(report.model_error[horizon - 1])
    parting = report.parting_step
    assert numbers["dream/parting_steps"] == (HORIZON if parting is None else parting - 1)
    assert numbers["dream/gap_ratio"] == report.gap.ratio
    assert numbers["dream/window_real"] == report.gap.real_return
    assert set(numbers) <= set(MEASURED)
    assert len(numbers) == 10


def test_an_earlier_report_is_shown_beside(tmp_path):
    room = Room(tmp_path)
    for update in (1, 40, 60, 100):
        room.clock.sleep(10.0)
        room.dreamer.tick(standing(update))
    report = decode_dream(room.control.blob(BLOB))
    assert report.earlier_update == 40, "the newest of half as many updates or fewer"
    assert report.earlier_error.tolist() == room.files.read(40).model_error.tolist()


def test_too_little_data_makes_no_report_and_it_is_tried_again(tmp_path):
    room = Room(tmp_path, steps=40)
    room.dreamer.tick(standing())
    assert (room.control.blob(BLOB), room.dreamer.numbers) == (None, {})
    room.arena.insert(chunk(0, 40, 20))
    room.dreamer.tick(standing())
    assert room.control.blob(BLOB) is None, "not yet again"
    room.clock.sleep(10.0)
    room.dreamer.tick(standing())
    assert room.control.blob(BLOB) is not None


def test_zero_makes_none(tmp_path):
    room = Room(tmp_path, every_s=0.0)
    room.dreamer.tick(standing())
    assert room.control.blob(BLOB) is None


def test_it_takes_at_most_its_share_of_the_time(tmp_path):
    clock = SlowClock()
    room = Room(tmp_path, clock=clock, every_s=0.5)
    reports, spent_s, began_s = 0, 0.0, clock.now()
    clock.look_s = 1.0
    while clock.now() - began_s < 1_500.0:
        before = room.dreamer.numbers
        room.dreamer.tick(standing(reports))
        if room.dreamer.numbers is not before:
            reports += 1
            spent_s += room.dreamer.numbers["dream/report_s"]
    # The first one is made at once.
    assert reports > 4
    assert (spent_s - spent_s / reports) / 1_500.0 <= MOST_SHARE * 1.05


def test_one_hiccup_does_not_stop_it_for_long(tmp_path):
    room = Room(tmp_path, clock=SlowClock(), every_s=10.0)
    room.dreamer.tick(standing(1))
    room.clock.sleep(10.0)
    room.clock.look_s = 30.0
    room.dreamer.tick(standing(2))
    assert room.dreamer.numbers["dream/report_s"] >= 30.0
    room.clock.look_s = 0.0
    room.clock.sleep(10.0)
    room.dreamer.tick(standing(3))
    assert decode_dream(room.control.blob(BLOB)).update == 3


def test_a_control_that_is_away_and_a_full_disk_are_left_alone(tmp_path):
    room = Room(tmp_path, control=Away())
    room.dreamer.tick(standing())
    assert room.files.updates() == [3]
    room = Room(tmp_path, files=FullDisk(tmp_path))
    room.dreamer.tick(standing())
    assert room.control.blob(BLOB) is not None
    assert room.dreamer.numbers


def test_a_report_that_fails_is_told_once_and_tried_again(tmp_path):
    files = Raising(tmp_path, RuntimeError("CUDA out of memory\nmore"), ValueError("not finite"))
    room = Room(tmp_path, files=files, clock=SlowClock(look_s=1.0))
    room.dreamer.tick(standing(1))
    assert room.events == [
        ("dream_failed", "no dream report at update 1: RuntimeError: CUDA out of memory")
    ]
    assert room.dreamer.numbers == {}
    room.clock.sleep(50.0)
    room.dreamer.tick(standing(2))
    assert len(files.errors) == 1, "not yet again: a hundred times what it took"
    room.clock.sleep(500.0)
    room.dreamer.tick(standing(3))
    assert (files.errors, len(room.events)) == ([], 1)
    room.clock.sleep(500.0)
    room.dreamer.tick(standing(4))
    assert files.updates() == [4]
    assert room.dreamer.numbers


def test_who_is_fenced_hears_of_it(tmp_path):
    room = Room(tmp_path, files=Raising(tmp_path, Fenced("a newer one")))
    with pytest.raises(Fenced):
        room.dreamer.tick(standing())
    assert room.events == []


def test_training_draws_the_same_numbers_whether_anybody_looks_or_not(tmp_path, monkeypatch):
    found = []
    for every_s in (0.0, 1e-3):
        config = replace(bench_for_tests.CONFIG, dream_report_s=every_s)
        monkeypatch.setattr(bench_for_tests, "CONFIG", config)
        larger = replace(bench_for_tests.REPLAY, capacity_bytes=100_000)
        monkeypatch.setattr(bench_for_tests, "REPLAY", larger)
        bench = Bench(tmp_path / str(every_s))
        learner = bench.learner()
        run(learner, 20)
        bench.clock.sleep(1.0)
        run(learner, 24)
        dreams = DreamFiles(bench.folder).updates()
        assert len(dreams) == (1 if every_s else 0)
        found.append(weights(learner))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
