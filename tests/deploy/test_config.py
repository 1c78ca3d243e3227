"""What could hang is refused by name."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from deploy.config import check_config, check_fit, step_bytes
from system.config import from_json, override, to_json
from system.errors import ConfigError
from tests.deploy.configs_for_tests import SPEC, small


def changed(*settings):
    config = small()
    for setting in settings:
        config = override(config, setting)
    return config


def test_the_small_one_is_fine():
    check_config(small())
    check_fit(small(), SPEC)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["replay.min_steps=35"],
         "replay.min_steps=35 cannot fill a first Batch; at least 36 (learner.batch_size * "
         "(learner.batch_length + 1)) are needed"),
        (["frames=63"], "frames=63 ends before the first update, which needs 64"),
        (["frames=100", "env.action_repeat=2"], "frames=100 ends before the first update"),
        (["frames=-1"], "frames=-1 must be 0 (never stop) or more"),
        (["seed=-1"], "seed=-1 must be 0 or more"),
        (["run=../x"], "run='../x' must be 1 to 64 letters"),
        (["fleet.actors=0"], "fleet.actors=0 with fleet.runner='local' would never act"),
        (["actor.heartbeat_s=7"], "fleet.lost_after_s=60.0 would kill living actors"),
        (["fleet.backoff_longest_s=0.1"], "fleet.backoff_longest_s=0.1 must be at least"),
        (["fleet.redis_memory_bytes=1e6"], "fleet.redis_memory_bytes=1000000 must be at least"),
    ],
)  # fmt: skip
def test_combinations_that_could_hang(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_config(changed(*settings))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("actor.retain_bytes=99", "actor.retain_bytes=99 is too small: one actor's lead"),
        ("replay.log_bytes=99", "replay.log_bytes=99 is too small: the lead of all actors"),
        ("replay.capacity_bytes=9999", "replay.capacity_bytes=9999 is too small: twice replay"),
    ],
)
def test_budgets_against_what_steps_weigh(setting, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_fit(changed(setting), SPEC)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "learner.bach_size=8",
            "unknown setting 'learner.bach_size'; did you mean 'learner.batch_size'?",
        ),
        ("fleet.runner=rey", "fleet.runner='rey'; did you mean 'ray'?"),
        ("fleet.actors=-1", "fleet.actors=-1 must lie in 0..1000"),
        ("fleet.grace_s=0", "fleet.grace_s=0.0 must be"),
        ("evaluation.episodes=0", "evaluation.episodes=0 must be"),
    ],
)
def test_settings_that_are_wrong_by_themselves(setting, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        changed(setting)


def test_a_config_survives_its_file():
    config = changed('env.args={"length": 3}')
    data = json.loads(json.dumps(to_json(config)))
    assert from_json(type(config), data) == config


def test_a_step_weighs_its_columns():
    # four observations, two actions, a reward (float32), three flags
    assert step_bytes(SPEC) == 4 * (4 + 2 + 1) + 3


def test_every_record_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        small().frames = 3
