"""The folder of a run."""

from __future__ import annotations

import datetime
import json
import os
import re
import stat
import threading
from dataclasses import replace

import pytest

from deploy.files import read_lines
from deploy.run_folder import RunFolder, default_name, list_runs
from system.errors import ConfigError, RunError
from system.files import append_line
from tests.deploy.configs_for_tests import SPEC, small


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, small(), SPEC)


def test_it_remembers_everything(folder, tmp_path):
    record = RunFolder.open(tmp_path, "small").record()
    assert record.config == small()
    assert record.spec == SPEC
    assert re.fullmatch(r"small-[0-9a-f]{8}", record.run_id)
    data = json.loads((folder.path / "config.json").read_text())
    assert set(data) == {
        "format", "run_id", "created", "dreamfleet", "git", "hardware", "config", "spec"
    }  # fmt: skip
    assert data["hardware"]["cpus"] >= 1


def test_a_password_in_it_is_for_this_user_alone(folder):
    mode = stat.S_IMODE((folder.path / "config.json").stat().st_mode)
    assert mode == 0o600


def test_an_existing_run_names_resume(folder, tmp_path):
    message = "run 'small' exists in .*; go on with it: dreamfleet resume --run small, or choose"
    with pytest.raises(RunError, match=message):
        RunFolder.create(tmp_path, small(), SPEC)


def test_a_missing_run_names_the_nearest(folder, tmp_path):
    with pytest.raises(RunError, match=re.escape("did you mean 'small'?")):
        RunFolder.open(tmp_path, "smal")


def test_a_missing_run_among_none(tmp_path):
    with pytest.raises(RunError, match=r"no run 'x' in .*; there is none yet under"):
        RunFolder.open(tmp_path, "x")


def test_two_drivers_never_share_it(folder):
    assert not folder.in_use()
    with folder.locked():
        folder.write_control("ray", "unix:///x", 0.0)
        assert folder.in_use()
        with (
            pytest.raises(RunError, match=f"in use by process {os.getpid()} on .*dreamfleet stop"),
            RunFolder(folder.path).locked(),
        ):
            pass
    assert not folder.in_use()


def test_control_is_found_by_others(folder):
    assert folder.control() is None
    folder.write_control("ray", "unix:///x/redis.sock", 12.0)
    control = RunFolder(folder.path).control()
    assert (control.runner, control.redis, control.pid) == (
        "ray",
        "unix:///x/redis.sock",
        os.getpid(),
    )


def test_a_damaged_config_is_named(folder, tmp_path):
    path = folder.path / "config.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(RunError, match=r"config\.json cannot be read"):
        RunFolder.open(tmp_path, "small").record()


def test_a_config_of_another_version_is_named(folder):
    path = folder.path / "config.json"
    path.write_text(path.read_text().replace('"batch_size"', '"batch_sizes"'))
    with pytest.raises(ConfigError, match=r"config\.json .*'learner.batch_sizes'.*mean 'learner"):
        folder.record()


def test_the_frame_limit_can_move(folder):
    folder.reconfigure(replace(folder.record().config, frames=900))
    assert folder.record().config.frames == 900


def test_runs_are_listed(folder, tmp_path):
    assert list_runs(tmp_path) == ["small"]


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ("dm_control/cartpole-swingup", "cartpole-swingup-1123"),
        ("CartPole-v1", "cartpole-v1-1123"),
        ("my.module:Robot_Arm-v0", "robot-arm-v0-1123"),
    ],
)
def test_default_names(tmp_path, env, name):
    day = datetime.date(2026, 11, 23)
    assert default_name(tmp_path, env, day) == name
    (tmp_path / "runs" / name).mkdir(parents=True)
    assert default_name(tmp_path, env, day) == f"{name}-2"


def test_lines_of_many_writers_stay_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"

    def write(writer):
        for index in range(200):
            append_line(path, json.dumps({"writer": writer, "index": index, "pad": "x" * 500}))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    path.open("a").write('{"torn": ')
    lines = list(read_lines(path))
    assert len(lines) == 800
    for writer in range(4):
        assert [line["index"] for line in lines if line["writer"] == writer] == list(range(200))


def test_only_lines_that_are_asked_for_are_parsed(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path, small(), SPEC)
    lines = [{"frames": 1}, {"frames": 2, "eval/return_mean": 5.0}, {"text": "eval/return_mean"}]
    folder.metrics_path.write_text("\n".join(map(json.dumps, lines)))
    parsed = []
    parse = json.loads
    monkeypatch.setattr("deploy.files.json.loads", lambda text: parsed.append(text) or parse(text))
    assert next(folder.metrics()) == lines[0]
    assert len(parsed) == 1, "a line is read when it is asked for"
    assert list(folder.evaluations()) == [lines[1]]
    assert len(parsed) == 3
    assert list(folder.metrics()) == lines
