"""A run that exists keeps its settings: a command that names others is refused, never ignored."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.config import RunConfig
from deploy.results.evidence import flat, unlike_preset
from deploy.run_folder import RunFolder
from system.errors import ConfigError

MOVES = ("run", "frames", "fleet.")
"""What a run that goes on may have otherwise: its frame limit and where it runs."""


def refuse_other_seed(folder: RunFolder, wished: RunConfig) -> None:
    """Seeds of a group share every setting that learning depends on. More frames may be wished.

    Raises:
      ConfigError: a setting differs, or the frame limit is lower; names the first.
    """
    before = folder.record().config
    theirs, ours = _named(before) | flat(before), _named(wished) | flat(wished)
    if 0 < wished.frames < before.frames or wished.frames > before.frames == 0:
        theirs["frames"], ours["frames"] = str(before.frames), str(wished.frames)
    _refuse(folder, theirs, ours, "seeds of a group share all settings; repeat the same command, "
            "or choose another name with --run")  # fmt: skip


def refuse_other_wishes(folder: RunFolder, wished: RunConfig, names: Sequence[str]) -> None:
    """What a command names beside the preset must be the run's; presets may have changed since.

    Args:
      folder: of the run.
      wished: what the command would have made.
      names: settings that it names, whether or not the preset has them so.

    Raises:
      ConfigError: a setting differs; names the first.
    """
    before = folder.record().config
    theirs = _named(before) | flat(before, without=MOVES)
    every = flat(wished, without=MOVES)
    ours = _named(wished) | unlike_preset(wished, without=MOVES)
    ours |= {name: every[name] for name in names if name in every}
    _refuse(folder, {name: theirs.get(name, "none") for name in ours}, ours,
            "a run goes on with its own settings; leave it out, or choose another name "
            "with --run")  # fmt: skip


def _named(config: RunConfig) -> dict[str, str]:
    """What the command line names by options, not by settings."""
    return {
        "env": config.env.name, "env.args": str(config.env.args), "preset": config.preset,
        "size": config.model.size, "seed": str(config.seed),
        "action repeat": str(config.env.action_repeat),
    }  # fmt: skip


def _refuse(folder: RunFolder, theirs: dict[str, str], ours: dict[str, str], reason: str) -> None:
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise ConfigError(f"run {folder.name!r} exists with {name}={theirs.get(name)}, not "
                              f"{ours.get(name)}: {reason}")  # fmt: skip
