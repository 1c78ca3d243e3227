"""`dreamfleet train --resume`: what a container or a job runs each time it starts.

That it goes on with a stopped run: tests/integration/test_entry_points.py.
"""

from __future__ import annotations

import json
import threading

import pytest

from deploy import watch
from deploy.run_folder import End, RunFolder
from system.clock import SystemClock
from tests.deploy.configs_for_tests import SPEC, small
from tests.deploy.remote_for_tests import complaint, run

TRAIN = ["train", "--env", "CartPole-v1", "--run", "small"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return RunFolder.create(tmp_path, small(frames=200), SPEC)


def test_a_run_is_never_gone_on_with_by_accident(folder, capsys):
    assert "dreamfleet resume --run small" in complaint(capsys, *TRAIN)


def finish(folder):
    line = {"time_s": 1.0, "frames": 200, "updates": 9, "eval/return_mean": 5.0}
    folder.metrics_path.write_text(json.dumps(line) + "\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "learner.entropy_scale=0.01"], "learner.entropy_scale=0.0003, not 0.01"),
        (["--set", "evaluation.episodes=7"], "evaluation.episodes=2, not 7"),
        (["--set", "learner.horizon=15"], "learner.horizon=3, not 15"),
        (["--replay-ratio", "16"], "replay.ratio=8, not 16"),
        (["--seed", "1"], "seed=0, not 1"),
        (["--preset", "dreamer"], "preset=laptop, not dreamer"),
        (["--size", "1m"], "size=nano, not 1m"),
    ],
)
def test_settings_it_does_not_have_are_refused_by_name(folder, capsys, words, said):
    assert said in complaint(capsys, *TRAIN, "--resume", *words)


def test_a_preset_that_changed_since_is_no_reason_to_refuse(folder, capsys):
    """The run has many settings that `laptop` has otherwise; the command names none of them."""
    finish(folder)
    assert run(capsys, *TRAIN, "--resume", "--set", "replay.ratio=8")[0] == 0


def test_more_frames_are_trained_on_and_fewer_change_nothing(folder, capsys, monkeypatch):
    finish(folder)
    driven = []
    monkeypatch.setattr("deploy.commands._drive", lambda *args, **_: driven.append(args[0]))
    for wished in (5000, 4000):
        assert run(capsys, *TRAIN, "--resume", "--frames", wished) == (0, "", "")
        assert folder.record().config.frames == 5000
    assert [one.name for one in driven] == ["small", "small"]


def test_a_finished_run_is_left_alone(folder, capsys):
    finish(folder)
    assert run(capsys, *TRAIN, "--resume") == (0, "run small has finished its frames\n", "")


def test_one_that_is_driven_is_watched_to_its_end(folder, capsys, monkeypatch):
    driving, watching = threading.Event(), threading.Event()

    class Watched(SystemClock):
        def sleep(self, seconds):
            watching.set()
            super().sleep(seconds)

    def drive():
        with folder.locked():
            driving.set()
            watching.wait()
            folder.write_end(End(how="failed", text="no room for the learner"))

    monkeypatch.setattr(watch, "SystemClock", Watched)
    driver = threading.Thread(target=drive)
    driver.start()
    driving.wait()
    assert "no room for the learner" in complaint(capsys, *TRAIN, "--resume")
    driver.join()
