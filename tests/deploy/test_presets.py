"""Presets and sizes."""

from __future__ import annotations

import re

import pytest

from actors.config import EnvConfig
from deploy.config import check_config
from deploy.options import SIZES as SHOWN_SIZES
from deploy.presets import PRESETS, SIZES, default_action_repeat, from_preset
from learner.config import LearnerConfig
from system.errors import ConfigError

CARTPOLE = EnvConfig(name="dm_control/cartpole-swingup", action_repeat=2)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", SIZES)
def test_every_preset_takes_every_size(preset, size):
    config = from_preset(preset, CARTPOLE, run="x", size=size)
    check_config(config)
    assert config.model == SIZES[size]
    assert config.preset == preset


def test_dreamer_is_the_authors():
    config = from_preset("dreamer", CARTPOLE, run="x")
    assert config.learner == LearnerConfig()
    assert (config.learner.batch_size, config.learner.batch_length) == (16, 64)
    assert (config.learner.learning_rate, config.learner.horizon) == (4e-5, 15)
    assert (config.model.size, config.replay.ratio) == ("1m", 512)


# dreamerv3.md section 1.1
TABLE = """
1m 512 64 4 64
12m 2048 256 16 256
25m 3072 384 24 384
50m 4096 512 32 512
100m 6144 768 48 768
200m 8192 1024 64 1024
400m 12288 1536 96 1536
"""


@pytest.mark.parametrize("row", TABLE.split("\n")[1:-1])
def test_the_authors_sizes(row):
    size, *numbers = row.split()
    model = SIZES[size]
    assert [model.deter, model.hidden, model.classes, model.units] == list(map(int, numbers))
    assert (model.stoch, model.blocks, model.bins) == (32, 8, 255)


def test_help_names_all_sizes():
    assert SHOWN_SIZES.split(", ") == list(SIZES)


@pytest.mark.parametrize(
    ("preset", "size", "message"),
    [
        ("laptp", None, "unknown preset 'laptp'; did you mean 'laptop'?"),
        ("laptop", "10m", "unknown size '10m'; did you mean '100m'?"),
        ("laptop", "huge", "unknown size 'huge'; known: 100m, 12m, 1m, "),
    ],
)
def test_unknown_names(preset, size, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_preset(preset, CARTPOLE, run="x", size=size)


def test_frames_count_the_repeat():
    frames = from_preset("laptop", EnvConfig(name="CartPole-v1"), run="x").frames
    assert from_preset("laptop", CARTPOLE, run="x").frames == frames * CARTPOLE.action_repeat


@pytest.mark.parametrize(
    ("env", "preset", "repeat"),
    [
        ("dm_control/cartpole-swingup", "laptop", 4),
        ("dm_control/cartpole-swingup", "dreamer", 2),
        ("CartPole-v1", "laptop", 1),
    ],
)
def test_the_default_repeat(env, preset, repeat):
    assert default_action_repeat(env, preset) == repeat
