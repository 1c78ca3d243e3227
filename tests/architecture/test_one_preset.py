"""One fixed set of hyperparameters: a preset may know the kind of a task, never which one it is."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace

import pytest

from actors.config import EnvConfig, PixelsConfig
from deploy import presets
from deploy.compose_config import config_of
from deploy.options import build_parser
from deploy.presets import PRESETS, SIZES, default_action_repeat, from_preset

SUITES = {
    "dm_control": ["cartpole-swingup", "cartpole-balance_sparse", "walker-walk", "humanoid-run",
                   "reacher-easy", "cheetah-run", "hopper-hop", "ball_in_cup-catch", "walker-run"],
    "gymnasium": ["CartPole-v1", "Acrobot-v1", "InvertedPendulum-v5", "HalfCheetah-v5",
                  "FrozenLake-v1", "MiniGrid-Empty-5x5-v0", "CrafterReward-v1", "my_robot:Arm-v0"],
}  # fmt: skip
NAMES = [f"dm_control/{task}" for task in SUITES["dm_control"]] + SUITES["gymnasium"]


def but_for_the_task(config):
    """Everything but what names the task, or counts its simulator steps."""
    env = replace(config.env, name="", args={})
    return replace(config, run="", env=env)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("show", ["off", "only"])
def test_a_preset_is_the_same_for_every_task(preset, size, show):
    def built(name, args):
        env = EnvConfig(name=name, args=args, action_repeat=2, pixels=PixelsConfig(show=show))
        return but_for_the_task(from_preset(preset, env, run="x", size=size))

    assert {repr(built(name, args)) for name in NAMES for args in ({}, {"level": 3})} == {
        repr(built(NAMES[0], {}))
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_the_repeat_moves_frames_and_nothing_else(preset):
    once, twice = (
        from_preset(preset, EnvConfig(name="A-v0", action_repeat=repeat), run="x")
        for repeat in (1, 2)
    )
    evaluation = replace(twice.evaluation, every_frames=once.evaluation.every_frames)
    assert replace(twice, frames=once.frames, env=once.env, evaluation=evaluation) == once
    assert twice.frames in (once.frames, 2 * once.frames)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_default_repeat_belongs_to_a_suite(preset):
    """dm_control's is the protocol's; whoever else's is 1."""
    assert len({default_action_repeat(f"dm_control/{task}", preset)
                for task in SUITES["dm_control"]}) == 1  # fmt: skip
    assert {default_action_repeat(name, preset) for name in SUITES["gymnasium"]} == {1}


def other_uses(function):
    """Where a preset holds `env` other than to read two fields, change it, or pass it on."""
    fine = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr in ("action_repeat", "pixels"):
            fine.add(node.value)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "env":
            fine.update(call.args[0] for call in ast.walk(node.value) if _calls(call, "replace"))
        elif _calls(node, "RunConfig"):
            fine.update(keyword.value for keyword in node.keywords if keyword.arg == "env")
        elif _calls(node, "PRESETS[name]"):
            fine.update(node.args)
    return [ast.unparse(node) for node in ast.walk(function)
            if isinstance(node, ast.Name) and node.id == "env"
            and isinstance(node.ctx, ast.Load) and node not in fine]  # fmt: skip


def _calls(node, what):
    return isinstance(node, ast.Call) and ast.unparse(node.func) == what


def test_nothing_of_presets_reads_the_name_of_a_task():
    """Also on paths that these names do not take."""
    functions = {node.name: node for node in ast.walk(ast.parse(inspect.getsource(presets)))
                 if isinstance(node, ast.FunctionDef)}  # fmt: skip
    repeat = functions.pop("default_action_repeat")
    assert ast.unparse(repeat.body[-1]) == (
        "return DM_CONTROL_REPEAT.get(preset, 1) if env.startswith('dm_control/') else 1"
    )
    assert len(repeat.body) == 2  # its docstring
    for name, function in functions.items():
        assert not other_uses(function), name


@pytest.mark.parametrize("line", [
    "if env.name == 'A-v0': pass", "task = env", "vars(env)", "task = replace(env).name",
    "env = other(env=env)", "return helper(env=env)", "env.pixels.of(env)",
])  # fmt: skip
def test_a_preset_that_looks_is_found(line):
    assert other_uses(ast.parse(f"def preset(env):\n    {line}"))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_command_line_adds_nothing_for_a_task(preset, tmp_path):
    def built(name):
        options = build_parser().parse_args(
            ["train", "--env", name, "--preset", preset, "--run", "x", "--action-repeat", "2"]
        )
        return repr(but_for_the_task(config_of(options, tmp_path)))

    assert len({built(name) for name in NAMES}) == 1
