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


def test_a_finished_run_is_left_alone(folder, capsys):
    line = {"time_s": 1.0, "frames": 200, "updates": 9, "eval/return_mean": 5.0}
    folder.metrics_path.write_text(json.dumps(line) + "\n")
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
