"""The command line: its surface is a promise, and a mistake gets one line, never a traceback."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import pytest

from deploy.cli import COMMANDS, main
from deploy.options import build_parser
from deploy.run_folder import RunFolder
from tests.deploy.configs_for_tests import SPEC, small

TRAINING = (
    "--action-repeat --actors --copies --env --env-arg --frames --help --no-dashboard "
    "--pixels --pixels-quality --pixels-size --pixels-with-state --preset --redis "
    "--redis-data --replay-ratio --run --runner --secrets --seed --set --size"
)
SURFACE = {
    "train": f"{TRAINING} --detach --parallel --print-config --resume --seeds",
    "launch": f"{TRAINING} --address --folder",
    "status": "--help --json --redis --run --secrets --watch",
    "scale": "--help --redis --run --secrets --timeout --wait actors",
    "export": "--follow --help --redis --run --secrets --tensorboard",
    "slot": "--help --redis --run --secrets action slot",
    "stop": "--help --redis --run --secrets",
    "resume": "--actors --address --detach --frames --help --redis --redis-data --run --secrets",
    "evaluate": "--episodes --help --json --redis --run --secrets --seed",
    "dream": "--act --against --checkpoint --episode --help --horizon --out --run --samples --step "
    "--video",
    "results": "--copy-runs --help --json --out runs",
    "promote": "--help --redis --run --secrets --version",
    "rollback": "--help --redis --run --secrets",
    "actor": "--copies --env --env-arg --follow --help --redis --redis-data --run --secrets --seed "
    "--slot --spool --spool-bytes --when-full",
    "runs": "--folder --help --json --redis --redis-data --secrets --yes action name",
    "exporter": "--help --host --port --redis --redis-data --run --secrets --token-file",
    "dashboard": "--help --host --port --redis --redis-data --run --secrets --token-file",
    "secrets": "--force --help --tls-ca --tls-cert --tls-key folder",
    "doctor": "--help --json --redis --redis-data --secrets",
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, line):
    code = main(line.split())
    out, err = capsys.readouterr()
    return code, out, err


def complaint(capsys, line):
    code, out, err = run(capsys, line)
    assert code == 2, err
    assert out == ""
    assert err.startswith("dreamfleet: ")
    assert err.count("\n") == 1
    return err.removeprefix("dreamfleet: ").strip()


def test_the_surface_is_as_promised():
    actions = build_parser()._subparsers._group_actions
    (commands,) = [each for each in actions if isinstance(each, argparse._SubParsersAction)]
    surface = {
        name: {
            option
            for action in parser._actions
            for option in action.option_strings or [action.dest]
            if option != "-h"
        }
        for name, parser in commands.choices.items()
    }
    assert surface == {name: set(options.split()) for name, options in SURFACE.items()}
    assert set(COMMANDS) == set(SURFACE)


def test_help_answers_at_once():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "deploy.cli", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for module in ("torch", "ray", "numpy", "rich"):
        assert f" {module}\n" not in done.stderr, f"--help imports {module}"
    assert "dreamfleet doctor" in done.stdout


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian --env x", "unknown command 'trian'; did you mean 'train'?"),
        ("train", "train needs --env, such as --env CartPole-v1"),
        ("--foo", "unknown option '--foo'; see: dreamfleet --help"),
        ("train --frames 1e999 --env x", "argument --frames: '1e999' is not a whole number"),
        ("train --env CartPole-v1 --set learner.device=gpu", "learner.device='gpu'"),
        ("train --env CartPole-v1 --set learner.device=meta", "learner.device='meta'"),
        ("train --env CartPole-v1 --set model.size=12m",
         "--set model.size=12m would change only a label; use --size"),
        ("train --evn CartPole-v1", "unknown option '--evn' of train; did you mean --env?"),
        ("train --env CartPol-v1", "unknown environment 'CartPol-v1'; did you mean 'CartPole-v1'?"),
        ("train --env dm_control/cartpole-swingupp",
         "unknown environment 'dm_control/cartpole-swingupp'; did you mean "
         "'dm_control/cartpole-swingup'?"),
        ("train --env CartPole-v1 --size 13m", "unknown size '13m'; did you mean '1m'?"),
        ("train --env CartPole-v1 --preset laptob",
         "unknown preset 'laptob'; did you mean 'laptop'?"),
        ("train --env CartPole-v1 --set learner.bach_size=8",
         "unknown setting 'learner.bach_size'; did you mean 'learner.batch_size'?"),
        ("train --env CartPole-v1 --set learner.batch_size",
         "--set 'learner.batch_size' needs the form section.key=value"),
        ("train --env CartPole-v1 --set learner.batch_size=many",
         "learner.batch_size='many' must be of type int"),
        ("train --env CartPole-v1 --frames -5",
         "argument --frames: -5 must be 0 or more; see: dreamfleet train --help"),
        ("train --env CartPole-v1 --frames ten",
         "argument --frames: 'ten' is not a whole number; see: dreamfleet train --help"),
        ("train --env CartPole-v1 --frames 10",
         "frames=10 ends before the first update, which needs 1024 (replay.min_steps * "
         "env.action_repeat)"),
        (
            "train --env CartPole-v1 --runner local --redis redis://h:1",
            "fleet.redis='redis://h:1' is not used by --runner local",
        ),
        ("train --env CartPole-v1 --runner local --detach", "--detach needs --runner ray"),
        ("train --env CartPole-v1 --actors 1001", "fleet.actors=1001 must lie in 0..1000"),
        ("train --env CartPole-v1 --copies 0", "argument --copies: 0 must be 1 or more"),
        ("train --env CartPole-v1 --action-repeat 0", "env.action_repeat=0 must be"),
        ("train --env CartPole-v1 --env-arg gravity",
         "--env-arg 'gravity' needs the form key=value"),
        ("train --env CartPole-v1 --runner slurm",
         "argument --runner: invalid choice: 'slurm' (choose from 'ray', 'local'); see: "
         "dreamfleet train --help"),
        ("train --env CartPole-v1 --run a/b",
         "run='a/b' must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or "
         "digit"),
        ("train --env CartPole-v1 --redis-data redis://me:hidden@h:1",
         "fleet.redis_data='redis://***@h:1' needs a server of your own: name it with --redis URL "
         "(fleet.redis)"),
        ("train --env CartPole-v1 --secrets s",
         "fleet.secrets='s' needs a server of your own: name it with --redis URL (fleet.redis)"),
        ("train --env CartPole-v1 --redis redis://h:1 --secrets none",
         "no password of role 'learner' in none: No such file or directory; write new ones with: "
         "dreamfleet secrets none, or name their folder with --secrets DIR (DREAMFLEET_SECRETS)"),
        ("train --env CartPole-v1 --redis localhost:6379",
         "Redis URL 'localhost:6379' must start with redis://, rediss:// or unix://"),
        ("evaluate --run x --episodes 0", "argument --episodes: 0 must be 1 or more"),
        ("scale +x --run x", "argument N: 'x' is not a whole number; see: dreamfleet scale"),
        ("scale 2 --timeout -1", "argument --timeout: -1 must be 0 or more seconds"),
        ("status --watch --json", "--watch draws for people and --json prints once"),
        ("runs mv x", "argument action: invalid choice: 'mv'"),
        ("runs rm", "`runs rm` needs the name of a run; list them with: dreamfleet runs"),
        ("runs --yes", "--folder and --yes belong to: dreamfleet runs rm NAME"),
        ("launch --env CartPole-v1", "the following arguments are required: --address; see: "
         "dreamfleet launch --help"),
        ("launch --env CartPole-v1 --address head", "--address 'head' must be the dashboard's URL, "
         "such as http://head:8265"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(capsys, line, message):
    assert complaint(capsys, line).startswith(message)


def test_an_unreachable_redis_names_the_fix(capsys):
    said = complaint(capsys, "train --env CartPole-v1 --redis redis://127.0.0.1:1")
    assert said.startswith("cannot reach Redis at redis://127.0.0.1:1: ")
    assert said.endswith("correct --redis, or leave --redis out to use the embedded server")


def test_nothing_is_left_behind_by_a_mistake(capsys, here):
    complaint(capsys, "train --env CartPole-v1 --redis redis://127.0.0.1:1 --run x")
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    "line", ["status --run smal", "stop --run smal", "scale 2 --run smal", "resume --run smal",
             "evaluate --run smal"],
)  # fmt: skip
def test_a_run_that_does_not_exist(capsys, here, line):
    assert "there is none yet" in complaint(capsys, line)
    RunFolder.create(here, small(), SPEC)
    assert complaint(capsys, line).endswith("did you mean 'small'?")


def test_a_run_that_exists(capsys, here):
    RunFolder.create(here, small(), SPEC)
    said = complaint(capsys, "train --env CartPole-v1 --run small")
    assert "go on with it: dreamfleet resume --run small" in said


def test_scale_of_a_run_that_does_not_run(capsys, here):
    RunFolder.create(here, small(), SPEC)
    said = complaint(capsys, "scale 2 --run small")
    assert said == (
        "run 'small' is not running, so there is nothing to scale; start it with: dreamfleet "
        "resume --run small"
    )


def test_scale_of_one_process(capsys, here):
    folder = RunFolder.create(here, small(), SPEC)
    with folder.locked():
        folder.write_control("local", "", 0.0)
        assert "(--runner local) and cannot scale" in complaint(capsys, "scale 2 --run small")


def test_stop_of_a_run_that_does_not_run(capsys, here):
    RunFolder.create(here, small(), SPEC)
    assert run(capsys, "stop --run small") == (0, "run small is not running\n", "")


def test_evaluate_without_a_checkpoint(capsys, here):
    RunFolder.create(here, small(), SPEC)
    assert "holds no checkpoint yet" in complaint(capsys, "evaluate --run small")


@pytest.mark.parametrize("option", ["--pixels-size 32", "--pixels-quality full"])
def test_an_option_of_pictures_that_nobody_renders_is_refused(capsys, option):
    said = complaint(capsys, f"train --env CartPole-v1 --print-config {option}")
    assert f"{option} changes nothing without --pixels" in said


def test_print_config_is_complete_and_hides_the_password(capsys):
    code, out, _ = run(
        capsys,
        "train --env CartPole-v1 --run x --actors 3 --copies 5 --seed 7 --frames 1e5 "
        "--replay-ratio 32 --action-repeat 2 --env-arg sutton_barto_reward=true "
        "--redis redis://me:secret@host:1 --redis-data rediss://host:2?password=secret&db=1 "
        "--secrets here --set learner.horizon=9 replay.chunk_length=16 "
        "--set learner.device=cpu --pixels --pixels-size 84 --print-config",
    )
    config = json.loads(out)
    assert code == 0
    pixels = {"show": "only", "size": 84, "camera": "", "quality": "fast"}
    assert config["env"]["pixels"] == pixels
    assert config["fleet"]["actors"] == 3
    assert config["fleet"]["redis"] == "redis://***@host:1"
    assert config["fleet"]["redis_data"] == "rediss://host:2?password=***&db=1"
    assert config["fleet"]["secrets"] == "here"
    assert "secret@" not in out
    assert config["actor"]["copies"] == 5
    assert (config["seed"], config["frames"]) == (7, 100_000)
    assert config["replay"]["ratio"] == 32.0
    assert config["replay"]["chunk_length"] == 16
    assert config["learner"]["horizon"] == 9
    assert config["learner"]["device"] == "cpu"
    assert config["env"]["args"] == {"sutton_barto_reward": True}
    assert config["env"]["action_repeat"] == 2


def test_status_of_a_run_that_has_not_begun(capsys, here):
    RunFolder.create(here, small(), SPEC)
    code, out, err = run(capsys, "status --run small --json")
    status = json.loads(out)
    assert (code, err) == (0, "")
    assert status["actors"] == {
        "desired": 1, "running": 0, "starting": 0, "pending": 0, "reasons": {}, "held": 0,
        "own": 0,
    }  # fmt: skip
    assert (status["frames"], status["updates"]) == (0, 0)
    assert status["return_mean"] is None
    code, out, _ = run(capsys, "status --run small")
    assert "small (not running)" in out


def test_train_status_evaluate_resume_in_one_process(capsys, here):
    settings = (
        "learner.dream_starts=8 learner.batch_size=4 learner.batch_length=8 learner.horizon=3 "
        "replay.min_steps=64 replay.chunk_length=8 evaluation.episodes=2 evaluation.copies=2"
    )
    code, out, err = run(
        capsys,
        f"train --env CartPole-v1 --runner local --run one --frames 150 --copies 2 "
        f"--replay-ratio 4 --set {settings}",
    )
    assert (code, err) == (0, "")
    assert "dreamfleet evaluate --run one" in out
    assert "picture:" in out
    assert (here / "runs/one/curve.png").stat().st_size > 1000

    code, out, _ = run(capsys, "status --run one --json")
    status = json.loads(out)
    assert status["frames"] >= 150
    assert status["return_mean"] > 0

    code, out, err = run(capsys, "evaluate --run one --episodes 3 --seed 5 --json")
    result = json.loads(out)
    assert set(result) == {"return_mean", "return_std", "episodes", "policy_version"}
    assert (code, result["episodes"]) == (0, 3)
    assert run(capsys, "evaluate --run one --episodes 3 --seed 5 --json")[1] == out

    said = complaint(capsys, "resume --run one")
    assert "train on with: dreamfleet resume --run one --frames 300" in said
    code, out, err = run(capsys, "resume --run one --frames 250")
    assert (code, err) == (0, "")
    assert json.loads(run(capsys, "status --run one --json")[1])["frames"] >= 250


def test_a_reader_that_has_gone_is_no_error_to_speak_of():
    """`dreamfleet train --print-config | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    words = ["train", "--env", "CartPole-v1", "--print-config"]
    told = subprocess.run([sys.executable, "-m", "deploy.cli", *words], stdout=writer,
                          stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    os.close(writer)
    assert told.stderr == ""
