"""Several seeds: what exists is checked, each seed is a process, all are reported together."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import replace

import pytest
from rich.console import Console

from deploy.results.options import seeds
from deploy.run_folder import RunFolder
from deploy.same_settings import refuse_other_seed
from deploy.seeds import Outcome, SeedRuns
from system.config import override
from system.errors import ConfigError
from system.specs import ArraySpec
from tests.deploy.configs_for_tests import SPEC, small
from tests.deploy.remote_for_tests import complaint, run
from tests.waiting import wait_until

TRAIN = ["train", "--env", "CartPole-v1", "--runner", "local", "--run", "g"]


def of_seed(seed, **changes):
    return replace(small(**changes), run=f"g-s{seed}", seed=seed)


def finished(folder):
    line = {"time_s": 1.0, "frames": 200, "updates": 9, "eval/return_mean": 5.0}
    folder.metrics_path.write_text(json.dumps(line) + "\n")


@pytest.mark.parametrize(
    ("text", "expected"), [("3", (0, 1, 2)), ("0,4", (0, 4)), ("7,", (7,)), ("1", (0,))]
)
def test_which_seeds(text, expected):
    assert seeds(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "1,1", ",", "a", "1,b"])
def test_which_are_none(text, capsys):
    assert "--seeds" in complaint(capsys, *TRAIN, "--seeds", text)


def test_options_that_do_not_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "--parallel needs --seeds" in complaint(capsys, *TRAIN, "--parallel", 2)
    assert "--seeds 5,6" in complaint(capsys, *TRAIN, "--seeds", 2, "--seed", 5)
    words = [word for word in TRAIN if word not in ("--runner", "local")]
    assert "--detach and --seeds" in complaint(capsys, *words, "--seeds", 2, "--detach")


def test_a_seed_with_other_settings_is_refused_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    RunFolder.create(tmp_path, of_seed(1), SPEC)
    text = complaint(capsys, *TRAIN, "--seeds", 2)
    assert text.startswith("run 'g-s1' exists with ")
    assert "seeds of a group share all settings" in text
    assert not (tmp_path / "runs/g-s0").exists()


def test_seeds_train_on_to_more_frames_but_never_to_fewer(tmp_path):
    folder = RunFolder.create(tmp_path, of_seed(1), SPEC)
    for wished in (200, 300, 0):
        refuse_other_seed(folder, of_seed(1, frames=wished))
    with pytest.raises(ConfigError, match="frames=200, not 100"):
        refuse_other_seed(folder, of_seed(1, frames=100))


def test_finished_seeds_are_skipped_failed_ones_named_and_the_others_go_on(
    tmp_path, monkeypatch, capsys
):
    """Seed 0 has finished, 1 cannot train, 2 can."""
    monkeypatch.chdir(tmp_path)
    finished(RunFolder.create(tmp_path, of_seed(0), SPEC))
    other = replace(SPEC, observation={"vector": ArraySpec(shape=(5,))})

    def make(config):
        RunFolder.create(tmp_path, config, other if config.seed == 1 else SPEC)

    monkeypatch.setattr("deploy.commands._create", lambda config, where: make(config))
    monkeypatch.setattr("deploy.commands.config_of", lambda options, where: small(run="g"))
    code, out, err = run(capsys, *TRAIN, "--seeds", 3, "--parallel", 2)
    assert code == 2
    assert err.startswith("dreamfleet: g-s1 failed: dreamfleet: ")
    assert "observation is" in err
    assert "g-s0: has finished its frames" in out
    assert "g-s2: finished" in out
    assert "2 of 3 seeds have finished; go on: the same command, with --run g" in out
    report = json.loads((tmp_path / "runs/g/results.json").read_text())
    assert [one["run"] for one in report["groups"][0]["runs"]] == ["g-s0", "g-s2"]
    assert (tmp_path / "runs/g/cartpole-v1.png").stat().st_size > 10_000
    trained = RunFolder.open(tmp_path, "g-s2")
    assert (trained.path / "episodes.jsonl").stat().st_size > 0


def test_a_seed_that_cannot_be_made_does_not_end_the_others(tmp_path):
    def make(config):
        if config.seed == 0:
            raise ConfigError("this machine is too small")
        finished(RunFolder.create(tmp_path, config, SPEC))

    console = Console(file=sys.stdout)
    runs = SeedRuns([of_seed(0), of_seed(1)], tmp_path, console, make, parallel=1)
    assert runs.until_end() == [
        Outcome(name="g-s0", how="failed", text="this machine is too small"),
        Outcome(name="g-s1", how="finished"),
    ]


@pytest.fixture
def deaf_to_ctrl_c():
    """As a script's `&` leaves a process."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("deaf_to_ctrl_c")
def test_an_interrupt_stops_those_that_run_in_order(tmp_path):
    """The second seed never starts; the first one saves and says that it was stopped."""
    config = override(of_seed(0), "frames=0")
    folder = RunFolder(tmp_path / "runs/g-s0")
    console = Console(file=sys.stdout)
    runs = SeedRuns(
        [config, of_seed(1)], tmp_path, console,
        lambda one: RunFolder.create(tmp_path, one, SPEC), parallel=1,
    )  # fmt: skip

    def interrupt():
        wait_until(lambda: any(line["updates"] for line in folder.metrics()), "trained")
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    outcomes = runs.until_end()
    thread.join()
    assert outcomes == [Outcome(name="g-s0", how="stopped"), Outcome(name="g-s1", how="stopped")]
    assert folder.end().how == "stopped"
    assert any((folder.path / "checkpoints").iterdir())
    assert not (tmp_path / "runs/g-s1").exists()
