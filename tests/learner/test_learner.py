"""A whole learner on a frozen log: resume is bitwise, damage is named, zombies are fenced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from learner.checkpoint import list_checkpoints, load_policy
from learner.config import LearnerConfig
from system.config import ModelConfig
from system.errors import CheckpointError, Fenced, NotFinite
from system.models.agent import PolicyAgent
from system.tick import Progress
from tests.learner.bench_for_tests import CONFIG, REPLAY, Bench, flip, run, weights
from tests.learner.fleets_for_tests import MODEL, SPEC

AVERAGED = replace(CONFIG, acting_rate=0.05)


def test_2n_updates_equal_n_and_checkpoint_and_restore_and_n_bitwise(tmp_path: Path) -> None:
    straight = Bench(tmp_path / "straight").learner(config=AVERAGED)
    run(straight, 120)
    bench = Bench(tmp_path / "resumed")
    first = bench.learner(config=AVERAGED)
    run(first, 60)
    assert first.arena.oldest > 0  # the ring has come round: eviction is part of the claim
    first.close()
    torch.manual_seed(999)  # whatever another process draws meanwhile
    second = bench.learner(config=AVERAGED)
    assert (second.updates, second.agent_steps) == (60, first.agent_steps)
    run(second, 120)
    expected, found = weights(straight), weights(second)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_the_replay_ratio_survives_a_crash_of_the_learner(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.learner()
    run(first, 40)
    first.save()
    run(first, 70)  # lost: the crash comes before the next checkpoint
    second = bench.learner()
    assert second.updates == 40
    run(second, 100)
    achieved = second.updates * CONFIG.replayed_steps / (second.agent_steps - REPLAY.min_steps)
    assert achieved == pytest.approx(REPLAY.ratio, rel=0.05)


def test_it_stops_at_the_frame_limit_with_nothing_owed(tmp_path: Path) -> None:
    learner = Bench(tmp_path).learner(frames=200)
    while not learner.finished:
        learner.tick()
    assert 200 <= learner.frames < 204
    assert learner.updates * CONFIG.replayed_steps == pytest.approx(136 * REPLAY.ratio, abs=64)


def test_lines_of_metrics_have_time_frames_and_updates(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    learner = bench.learner()
    for _ in range(60):
        bench.clock.sleep(1.0)
        learner.tick()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) > 5
    assert all({"time_s", "frames", "updates"} <= line.keys() for line in lines)
    learner.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["updates"] == learner.updates
    assert {metrics.role for metrics in bench.control.metrics()} == {"learner"}


@pytest.mark.parametrize("config", [CONFIG, AVERAGED], ids=["newest", "averaged"])
def test_the_policy_is_published_saved_and_the_same(tmp_path: Path, config: LearnerConfig) -> None:
    bench = Bench(tmp_path)
    learner = bench.learner(config=config)
    assert learner.policy_version == 1
    run(learner, 30)
    learner.close()
    saved = load_policy(tmp_path / "checkpoints")
    published = bench.channel.newer_than(0, 0)
    assert published is not None
    assert saved.weights == published.weights
    agent = PolicyAgent(MODEL, SPEC)
    agent.load(saved)
    assert saved.update == 30
    learns = learner.learning.behavior.policy.out.weight
    assert torch.equal(agent.policy.out.weight, learns) == (config is CONFIG)


def test_weights_that_are_not_finite_are_neither_published_nor_saved(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    learner = bench.learner()
    run(learner, 5)
    saved, version = learner.save(), learner.policy_version
    learner.learning.optimizer.flat[7] = float("nan")
    bench.clock.sleep(60.0)
    with pytest.raises(NotFinite, match="last good version stays"):
        run(learner, 6)
    with pytest.raises(NotFinite):
        learner.close()
    assert learner.policy_version == version
    assert list_checkpoints(tmp_path / "checkpoints")[-1] == saved
    assert "not_finite" in {event.kind for event in bench.control.events()}
    assert bench.learner().updates == 5


def test_an_older_learner_is_fenced(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    old = bench.learner()
    run(old, 5)
    bench.learner()
    bench.clock.sleep(60.0)
    with pytest.raises(Fenced):
        run(old, 1000)


@pytest.mark.parametrize("part", ["weights.safetensors", "progress.json", "manifest.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, part: str
) -> None:
    bench = Bench(tmp_path)
    learner = bench.learner()
    run(learner, 3)
    learner.save()
    run(learner, 5)
    learner.close()
    older, newer = list_checkpoints(tmp_path / "checkpoints")
    flip(newer / part)
    assert bench.learner().updates == 3
    (text,) = bench.texts("checkpoint_damaged")
    assert f"{newer}: {part} " in text
    flip(older / part)
    with pytest.raises(CheckpointError, match=f"no checkpoint .* {part}"):
        bench.learner()


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    learner = bench.learner()
    run(learner, 5)
    learner.close()
    for path in list_checkpoints(tmp_path / "checkpoints"):
        (path / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors cannot be read"):
        bench.learner()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    learner = bench.learner()
    run(learner, 5)
    learner.close()
    other = ModelConfig(size="other", deter=32, hidden=8, classes=4, units=8, stoch=4, blocks=4)
    with pytest.raises(CheckpointError, match="size, spec or action differ"):
        bench.learner(model=other)


def test_only_the_newest_checkpoints_are_kept_and_drafts_do_not_count(tmp_path: Path) -> None:
    learner = Bench(tmp_path).learner()
    for updates in (3, 6, 9, 12):
        run(learner, updates)
        learner.save()
    folder = tmp_path / "checkpoints"
    (folder / ".00001-000000099.draft").mkdir()
    names = [path.name for path in list_checkpoints(folder)]
    assert names == ["00001-000000009", "00001-000000012"]
    assert len(names) == CONFIG.keep_checkpoints


def test_progress_says_what_a_tick_did(tmp_path: Path) -> None:
    learner = Bench(tmp_path).learner()
    seen = set()
    for _ in range(60):
        turn = learner.tick()
        assert isinstance(turn, Progress)
        seen.add(turn.what)
    assert seen >= {"inserted", "updated"}
