"""What other tools read of a run: event files that TensorBoard itself reads back."""

from __future__ import annotations

import json
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deploy.cli import main
from deploy.run_entry import RunEntry
from deploy.run_folder import RunFolder
from system.control.protocol import Point
from tests.deploy.configs_for_tests import SPEC, small
from tests.deploy.remote_for_tests import Remote

LINES = [
    {"time_s": 1.0, "frames": 100, "updates": 5, "loss/value": 0.5, "odd": "text", "bad": None},
    {"time_s": 2.0, "frames": 200, "updates": 9, "loss/value": 0.25, "eval/return_mean": 12.5},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create(tmp_path, small(), SPEC)
    folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"cut')
    return folder


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(one.wall_time, one.step, one.value) for one in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_every_number_against_frames_is_read_back(folder, capsys):
    created_s = RunEntry.of(folder).created_s
    for _ in range(2):  # the second one replaces the first
        assert main(["export", "--run", "small", "--tensorboard", "board"]) == 0
    assert capsys.readouterr().out.startswith("2 lines of run small in board/small; look with: ")
    found = scalars(folder.path.parents[1] / "board/small")
    assert found == {
        "loss/value": [(created_s + 1, 100, 0.5), (created_s + 2, 200, 0.25)],
        "eval/return_mean": [(created_s + 2, 200, 12.5)],
    }


def test_without_the_library_the_extra_is_named(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    assert main(["export", "--run", "small", "--tensorboard", "board"]) == 2
    assert "pip install 'dreamfleet[tensorboard]'" in capsys.readouterr().err
    assert not (folder.path.parents[1] / "board").exists()


def test_a_run_elsewhere_is_exported_from_what_its_redis_remembers(redis_server, tmp_path):
    remote = Remote(tmp_path, redis_server.url)
    for frames in (100, 200):
        remote.control.remember(
            Point(time_s=1e9 + frames, values={"frames": float(frames), "a/b": frames / 8})
        )
    words = ["--redis", redis_server.url, "--run", remote.run_id]
    assert main(["export", *words, "--tensorboard", str(tmp_path / "board")]) == 0
    assert scalars(tmp_path / "board/small") == {
        "a/b": [(1e9 + 100, 100, 12.5), (1e9 + 200, 200, 25.0)]
    }
