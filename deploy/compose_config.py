"""From options to a complete, checked RunConfig."""

from __future__ import annotations

import argparse
import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.config import EnvConfig
from deploy.config import RunConfig, check_config
from deploy.presets import default_action_repeat, from_preset
from deploy.run_folder import default_name
from system.config import override, parse_value
from system.errors import ConfigError

LABELS = {"model.size": "--size", "preset": "--preset", "run": "--run"}
"""Settings that name what was chosen; the choice itself is an option."""


def config_of(options: argparse.Namespace, where: Path) -> RunConfig:
    """Preset, then options, then `--set`; checked as a whole.

    Args:
      options: of `train` or `launch`.
      where: the folder that holds `runs/`.

    Raises:
      ConfigError: a value that cannot be used, named with the fix.
    """
    usual_repeat = default_action_repeat(options.env, options.preset)
    env = EnvConfig(
        name=options.env,
        args=env_args(options.env_arg),
        action_repeat=usual_repeat if options.action_repeat is None else options.action_repeat,
    )
    name = options.run or default_name(where, options.env, datetime.date.today())
    config = from_preset(options.preset, env, run=name, size=options.size)
    config = _with_options(config, options)
    for assignment in options.settings:
        if option := LABELS.get(assignment.partition("=")[0]):
            raise ConfigError(f"--set {assignment} would change only a label; use {option}")
    config = override(config, *options.settings)
    _check_pictures(config, options)
    check_config(config)
    return config


def _check_pictures(config: RunConfig, options: argparse.Namespace) -> None:
    """Options of pictures that nobody renders would be ignored."""
    for option in ("pixels_size", "pixels_quality"):
        value = getattr(options, option)
        if value is not None and config.env.pixels.show == "off":
            name = option.replace("_", "-")
            raise ConfigError(f"--{name} {value} changes nothing without --pixels; add --pixels or "
                              f"--pixels-with-state, or leave it out")  # fmt: skip


def env_args(texts: list[str]) -> dict[str, Any]:
    """Reads the `key=value` of `--env-arg`. Raises ConfigError."""
    return dict(_pair(text) for text in texts)


def _with_options(config: RunConfig, options: argparse.Namespace) -> RunConfig:
    local = options.runner == "local"
    actors = (1 if local else None) if options.actors is None else options.actors
    sections: dict[str, dict[str, Any]] = {
        "fleet": {
            "actors": actors,
            "runner": options.runner,
            "redis": options.redis,
            "redis_data": options.redis_data,
            "secrets": options.secrets,
            "dashboard": False if options.no_dashboard else None,
        },
        "actor": {"copies": options.copies},
        "replay": {"ratio": options.replay_ratio},
    }
    top: dict[str, Any] = {"seed": options.seed, "frames": options.frames}
    pixels = {
        "show": options.pixels,
        "size": options.pixels_size,
        "quality": options.pixels_quality,
    }
    env = config.env
    top["env"] = replace(env, pixels=replace(env.pixels, **_given(pixels)))
    for section, values in sections.items():
        top[section] = replace(getattr(config, section), **_given(values))
    return replace(config, **_given(top))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _pair(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"--env-arg {text!r} needs the form key=value")
    return key, parse_value(value)
