"""`dreamfleet dream`, from the folders of real runs: vectors alone, and images with vectors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from actors.config import EnvConfig
from actors.envs.registry import env_spec
from deploy.cli import main
from deploy.config import EvaluationConfig
from deploy.dream_film import frames_of
from deploy.dream_strip import Picture, draw_strip
from deploy.local import LocalRun
from deploy.run_folder import RunFolder
from learner.config import LearnerConfig
from tests.deploy.configs_for_tests import SPEC, small
from tests.dreams_for_tests import dream_report
from tests.envs_for_tests import PREFIX

ONCE = EvaluationConfig(every_frames=10**6, episodes=1, copies=1, final_episodes=1)


def trained(where, config, spec):
    folder = RunFolder.create(where, config, spec)
    run = LocalRun(folder.record(), folder.path)
    while not run.finished:
        run.turn()
    run.close()
    return run


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    """A run with a checkpoint before its last one."""
    where = tmp_path_factory.mktemp("cartpole")
    learner = replace(small().learner, checkpoint_s=0.01, keep_checkpoints=50)
    run = trained(where, small(run="pole", learner=learner, evaluation=ONCE), SPEC)
    return where, run


@pytest.fixture
def dream(monkeypatch, capsys):
    def call(where, *words):
        monkeypatch.chdir(where)
        code = main(["dream", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out if code == 0 else said.err

    return call


def film_s(path):
    """How long it plays [s]; frames that look alike are one."""
    total_ms = 0
    with Image.open(path) as film:
        for frame in range(film.n_frames):
            film.seek(frame)
            total_ms += film.info["duration"]
    return total_ms / 1000


def checkpoints(where):
    paths = sorted((where / "runs/pole/checkpoints").iterdir())
    return [int(path.name.split("-")[1]) for path in paths]


def test_a_run_is_dreamed_from_its_folder(cartpole, dream):
    where, _ = cartpole
    code, said = dream(where)
    newest = checkpoints(where)[-1]
    assert code == 0
    out = where / f"runs/pole/dream-{newest}"
    assert f"{out}/: strip.png, film.gif, error.png, dream.json\nupdate {newest}: " in said
    assert sorted(path.name for path in out.iterdir()) == [
        "dream.json", "error.png", "film.gif", "strip.png",
    ]  # fmt: skip
    facts = json.loads((out / "dream.json").read_text())
    (checkpoint,) = facts["checkpoints"]
    assert checkpoint["update"] == newest
    assert len(checkpoint["error"]) == facts["horizon"]
    assert set(facts["reality"]) == {f"vector[{i}]" for i in range(4)} | {"reward"}
    steps = facts["context_steps"] + facts["horizon"]
    assert len(checkpoint["dreamed"]["vector[2]"]["mean"]) == steps
    assert film_s(out / "film.gif") == pytest.approx(0.12 * facts["horizon"] + 1.2)
    for name in ("strip.png", "error.png"):
        with Image.open(out / name) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_what_is_shown_as_real_is_what_was_recorded(cartpole, dream, tmp_path):
    where, _ = cartpole
    code, _ = dream(where, "--episode", 0, "--step", 4, "--horizon", 3, "--out", tmp_path)
    assert code == 0
    facts = json.loads((tmp_path / "dream.json").read_text())
    assert (facts["step"], facts["context_steps"], facts["horizon"]) == (4, 5, 3)
    assert facts["reality"]["reward"] == [0.0] + [1.0] * 7, "CartPole pays 1 for every step"


def test_two_checkpoints_and_the_policy(cartpole, dream, tmp_path):
    where, _ = cartpole
    first, *_, last = checkpoints(where)
    words = ["--step", 3, "--horizon", 5, "--samples", 4, "--out", tmp_path]
    assert dream(where, "--checkpoint", last, "--against", first, *words)[0] == 0
    both = json.loads((tmp_path / "dream.json").read_text())["checkpoints"]
    assert [one["update"] for one in both] == [last, first]
    assert both[0]["error"] != both[1]["error"]
    assert both[0]["error_of_repeating_the_last"] == both[1]["error_of_repeating_the_last"]
    assert dream(where, "--act", "policy", *words)[0] == 0
    acted = json.loads((tmp_path / "dream.json").read_text())
    assert acted["act"] == "policy"
    assert acted["checkpoints"][0]["error"] == both[0]["error"], "figures stay those of recorded"
    assert acted["checkpoints"][0]["dreamed"] != both[0]["dreamed"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--run", "poll"], "did you mean 'pole'"),
        (["--checkpoint", "777"], "no checkpoint of update 777; kept: "),
        (["--against", "777"], "no checkpoint of update 777; kept: "),
        (["--episode", "900"], "--episode 900: the run holds "),
        (["--horizon", "900"], "smaller --step or --horizon"),
        (["--step", "900"], "smaller --step or --horizon"),
        (["--horizon", "0"], "0 must be 1 or more"),
        (["--act", "nobody"], "invalid choice"),
        (["--epsiode", "1"], "did you mean --episode?"),
    ],
)
def test_mistakes_are_named(cartpole, dream, words, text):
    code, said = dream(cartpole[0], *words)
    assert code == 2
    assert text in said.splitlines()[-1]


def test_a_video_without_its_extra_is_refused_before_anything_is_drawn(
    cartpole, dream, tmp_path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, said = dream(cartpole[0], "--video", "--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'dreamfleet[video]'" in said
    assert not (tmp_path / "out").exists()


def test_nothing_recorded_is_said(tmp_path, dream):
    RunFolder.create(tmp_path, small(), SPEC)
    (tmp_path / "runs/small/replay").mkdir()
    code, said = dream(tmp_path)
    assert code == 2
    assert "no episode of at least" in said


def test_images_become_films(tmp_path, dream):
    env = EnvConfig(name=f"{PREFIX}Sights-v0")
    learner = LearnerConfig(batch_size=2, batch_length=4, dream_starts=4, horizon=2)
    config = small(run="sights", env=env, frames=120, learner=learner, evaluation=ONCE)
    run = trained(tmp_path, config, env_spec(env))
    code, said = dream(tmp_path, "--out", tmp_path / "out", "--step", 5)
    assert code == 0, said
    facts = json.loads((tmp_path / "out/dream.json").read_text())
    frames = facts["context_steps"] + facts["horizon"]
    assert film_s(tmp_path / "out/film.gif") == pytest.approx(0.12 * (frames - 1) + 1.2)
    assert {"numbers[0]", "numbers[1]", "reward"} <= set(facts["reality"])
    remembered = [one.point.values for one in run.place.control.history()]
    assert any("eval/return_mean" in values for values in remembered)
    assert any("loss/reward" in values for values in remembered)
    assert all({"elapsed_s", "frames", "updates"} <= set(values) for values in remembered)


@pytest.mark.parametrize(("policy_acts", "columns"), [(False, 3), (True, 1)])
def test_nothing_real_stands_beside_the_images_of_a_policy_that_acts(policy_acts, columns):
    picture = Picture(
        title="x", reports=[dream_report()], policy_acts=policy_acts, env_step="agent steps"
    )
    strip = draw_strip(picture)
    rows = [axes.get_ylabel() for axes in strip.axes if axes.get_label() != "panel"]
    assert rows == (["camera0\ndreamed"] if policy_acts else ["camera0\nreal", "dreamed", "error"])
    cell = 38 * 6 + 2 * 8  # 6 pixels wide, enlarged to 224 or more, with an edge
    assert {frame.shape[1] for frame in frames_of(picture, strip)} == {columns * cell}
