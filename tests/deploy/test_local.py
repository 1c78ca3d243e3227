"""The one-process twin, for real: a few updates on CartPole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from deploy import drive
from deploy.curve import points
from deploy.evaluator import EvaluationRule
from deploy.local import LocalRun
from deploy.run_folder import End, RunFolder
from system.errors import ConfigError, EnvironmentFault
from system.specs import ArraySpec
from tests.deploy.configs_for_tests import SPEC, small


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, small(), SPEC)


def test_it_trains_to_its_frame_limit(folder):
    run = LocalRun(folder.record(), folder.path)
    while not run.finished:
        run.turn()
    run.close()
    assert run.learner.frames >= 200
    # ratio 8 replayed per Step inserted after the first 64, 4 x 8 Steps an update
    assert run.learner.updates == pytest.approx((200 - 64) * 8 / 32, abs=3)
    lines = list(folder.metrics())
    assert all({"time_s", "frames", "updates"} <= set(line) for line in lines)
    curve = points(lines)
    assert len(curve) >= 2
    assert curve[-1].frames == run.learner.frames
    assert curve[-1].return_mean >= 8


def test_stopped_early_it_resumes_where_it_was(folder):
    run = LocalRun(folder.record(), folder.path)
    while run.learner.updates < 5:
        run.turn()
    run.close()
    frames, updates, version = run.learner.frames, run.learner.updates, run.learner.policy_version
    again = LocalRun(folder.record(), folder.path)
    assert (again.learner.frames, again.learner.updates) == (frames, updates)
    assert again.learner.policy_version > version
    while not again.finished:
        again.turn()
    again.close()
    assert again.learner.frames >= 200


def test_an_environment_that_changed_is_refused(folder):
    record = folder.record()
    spec = replace(SPEC, observation={"vector": ArraySpec(shape=(5,))})
    with pytest.raises(ConfigError, match=r"observation is .*\(4,\).* here and .*\(5,\)"):
        LocalRun(replace(record, spec=spec), folder.path)


def test_the_rule_of_evaluation():
    rule = EvaluationRule(100, None)
    due = [frames for frames in (3, 50, 99, 101, 150, 320, 399, 400) if rule.due(frames)]
    assert due == [3, 101, 320, 400]


def test_the_rule_after_a_restart():
    rule = EvaluationRule(100, 320)
    assert [frames for frames in (330, 399, 400) if rule.due(frames)] == [400]


def test_a_run_that_failed_says_why_afterwards(folder, monkeypatch):
    def broken(self):
        raise EnvironmentFault("raised", "no wheels")

    monkeypatch.setattr(LocalRun, "turn", broken)
    with pytest.raises(EnvironmentFault):
        drive.drive(folder, Console())
    assert folder.end() == End(how="failed", text="raised: no wheels")
