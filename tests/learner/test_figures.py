"""What a learner tells of itself: where its time goes, the ledger of Steps, how far it is."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from system.clock import ManualClock
from system.control.memory import MemoryControl
from system.control.protocol import Lease
from system.metrics import LEARNER_ACTIVITIES
from tests.learner.bench_for_tests import CONFIG, Bench, run


class Ticking(ManualClock):
    """Every look at it takes a millisecond."""

    def now(self) -> float:
        self.sleep(1e-3)
        return super().now()


def numbers(bench: Bench) -> dict[str, float]:
    (one,) = bench.control.metrics()
    return one.values


def test_shares_of_the_learners_time_add_up_to_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Ticking())
    learner = bench.learner()
    run(learner, 40)
    bench.clock.sleep(5.0)
    learner.close()
    shares = {
        name.removeprefix("learner/share_"): share
        for name, share in numbers(bench).items()
        if name.startswith("learner/share_")
    }
    assert set(shares) <= set(LEARNER_ACTIVITIES)
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4)
    assert {"insert", "sample", "world_model", "optimizer", "report"} <= set(shares)


def test_who_finds_no_steps_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Ticking())
    learner = bench.learner()
    while learner.tick().__class__.__name__ != "Wait":
        pass
    for _ in range(30):
        bench.clock.sleep(1.0)
        learner.tick()
    assert numbers(bench)["learner/share_wait"] > 0.9


def test_the_ledger_counts_over_all_lives(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.learner()
    run(first, 30)
    first.save()
    run(first, 50)  # lost, but not the Steps inserted meanwhile
    second = bench.learner()
    run(second, 90)
    second.close()
    said = numbers(bench)
    straight = Bench(tmp_path / "straight")
    other = straight.learner()
    while other.agent_steps < second.agent_steps:
        other.tick()
    other.close()
    assert said["real/steps"] == second.agent_steps == numbers(straight)["real/steps"]
    assert said["real/resets"] == numbers(straight)["real/resets"] > 0
    starts = CONFIG.batch_size * CONFIG.batch_length
    assert said["dream/steps"] == 90 * starts * CONFIG.horizon
    assert said["dream/per_real"] == pytest.approx(said["dream/steps"] / said["real/steps"], 1e-5)
    assert sum(n for key, n in said.items() if key.startswith("learner/update/le_")) == 60


class Heard(MemoryControl):
    """Remembers what everybody was doing."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.doing: list[str] = []

    def renew(self, lease: Lease, *, ttl_s: float) -> None:
        self.doing.append(lease.doing)
        super().renew(lease, ttl_s=ttl_s)


def test_restoring_is_told_with_the_time_it_takes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Ticking())
    run(bench.learner(), 60)
    bench.clock = Ticking()
    bench.control = heard = Heard(bench.clock)
    slow, bench.clock.now = bench.clock.now, lambda: (bench.clock.sleep(0.3), slow())[1]  # type: ignore[method-assign]
    bench.learner()
    told = [doing for doing in heard.doing if doing.startswith("restoring")]
    assert len(told) > 3
    assert told[0].startswith("restoring ")
    assert told[-1].endswith("s left")
    left = [int(doing.split()[2]) for doing in told if doing.endswith("left")]
    assert left[-1] < left[0]


def test_the_table_has_a_row_for_every_line(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    learner = bench.learner()
    for _ in range(60):
        bench.clock.sleep(1.0)
        learner.tick()
    learner.close()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len((tmp_path / "metrics.jsonl").read_text().splitlines())
    assert float(rows[-1]["updates"]) == learner.updates
    assert float(rows[-1]["loss/value"]) > 0
