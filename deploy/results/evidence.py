"""A run as evidence: what was measured, with which settings, by which code, on which machine.

Read from `config.json`, `metrics.jsonl` (or `evaluations.jsonl`, the part of it that docs/results
keeps) and `episodes.jsonl`. Older configs miss settings: those are taken to be today's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from actors.config import EnvConfig
from deploy.config import RunConfig
from deploy.curve import Point, points
from deploy.files import read_json, read_lines
from deploy.presets import from_preset
from system.config import from_json, to_json
from system.errors import ConfigError, RunError
from system.specs import EnvSpec

OPERATING = (
    "run", "seed", "frames", "preset", "model.size", "env.name", "env.args", "env.action_repeat",
    "env.step_deadline_s", "env.build_deadline_s", "env.isolate", "evaluation.", "fleet.redis",
    "fleet.secrets", "fleet.dashboard", "fleet.lost_after_s", "fleet.start_after_s",
    "fleet.grace_s", "fleet.backoff", "fleet.actor_cpus", "fleet.learner_cpus",
    "fleet.evaluator_cpus", "actor.torch_threads", "actor.heartbeat_s", "actor.retain_bytes",
    "replay.log_bytes", "replay.segment_bytes", "learner.device", "learner.torch_threads",
    "learner.metrics_s", "learner.checkpoint_s", "learner.keep_checkpoints", "learner.commit_s",
    "learner.dream_report_s",
)  # fmt: skip
"""Settings, by how they begin, that are shown in columns of their own, or say how a run was
operated rather than what it learned with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActedReturn:
    """One training episode, sampled actions."""

    time_s: float
    """Training time when it ended [s]."""
    frames: int
    """Simulator steps of the whole fleet when it ended."""
    value: float
    """Undiscounted return."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """One run."""

    folder: Path
    config: RunConfig
    pixels: bool
    settings: dict[str, str]
    """What it learned with, where that is not today's preset: dotted path -> value as text."""
    commit: str
    """Of the code; empty if it did not run from a checkout."""
    dirty: bool
    """Whether that code had changes which were not committed."""
    hardware: str
    evaluations: list[Point]
    episodes: list[ActedReturn]

    @property
    def name(self) -> str:
        """Of the folder: that of the run, unless it was kept under another one."""
        return self.folder.name

    @property
    def task(self) -> str:
        """Environment, with its arguments and `(pixels)`: what is learned."""
        args = "".join(f" {name}={value}" for name, value in sorted(self.config.env.args.items()))
        return self.config.env.name + args + (" (pixels)" if self.pixels else "")

    @property
    def frames(self) -> int:
        """Of its last evaluation."""
        return self.evaluations[-1].frames

    @property
    def remarks(self) -> list[str]:
        """What weakens it as evidence."""
        found = []
        if not self.commit:
            found.append("commit not known")
        elif self.dirty:
            found.append("code differs from its commit")
        if self.frames < self.config.frames:
            found.append(f"ends at {self.frames:,} of {self.config.frames:,} frames")
        return found


def read_evidence(folder: Path) -> Evidence:
    """Reads a run's folder.

    Raises:
      RunError: it says not enough to count as evidence; names what is missing.
    """
    data = read_json(folder / "config.json")
    for name in ("hardware", "config", "spec"):
        if not data.get(name) or not isinstance(data[name], dict):
            raise RunError(f"{folder / 'config.json'} has no {name}: not known what was measured")
    try:
        config = from_json(RunConfig, _known(RunConfig, data["config"]))
        spec = EnvSpec.from_json(data["spec"])
    except ConfigError as error:
        raise RunError(f"{folder / 'config.json'}: {error}") from None
    try:
        measured = (
            read_lines(folder / name, holding="eval/return_mean")
            for name in ("metrics.jsonl", "evaluations.jsonl")
        )
        evaluations = next(filter(None, map(points, measured)), [])
        episodes = _episodes(folder)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder} holds a damaged line: {error!r}") from None
    if not evaluations:
        raise RunError(f"{folder} holds no evaluation yet")
    if not all(math.isfinite(one.return_mean) for one in evaluations):
        raise RunError(f"{folder} holds an evaluation that is not finite")
    git = data["git"] if isinstance(data.get("git"), dict) else {}
    return Evidence(
        folder=folder,
        config=config,
        pixels=any(one.is_image for one in spec.observation.values()),
        settings=unlike_preset(config),
        commit=str(git.get("commit", ""))[:7],
        dirty=bool(git.get("dirty")),
        hardware=_hardware(data["hardware"]),
        evaluations=evaluations,
        episodes=episodes,
    )


def flat(config: RunConfig, without: tuple[str, ...] = OPERATING) -> dict[str, str]:
    """Dotted path -> value as text, of everything that does not begin as `without` says."""
    found: dict[str, str] = {}
    unused = without + (("env.pixels.",) if config.env.pixels.show == "off" else ())

    def walk(section: Mapping[str, Any], path: str) -> None:
        for name, value in section.items():
            if (path + name).startswith(unused):
                continue
            if isinstance(value, dict):
                walk(value, f"{path}{name}.")
            else:
                found[path + name] = f"{value:g}" if isinstance(value, float) else str(value)

    walk(to_json(config), "")
    return found


def unlike_preset(config: RunConfig, without: tuple[str, ...] = OPERATING) -> dict[str, str]:
    """Those of `flat` that the preset, as it is today, has otherwise."""
    try:
        preset = from_preset(
            config.preset, EnvConfig(name=config.env.name), run=config.run, size=config.model.size
        )
    except ConfigError:  # of a plugin, or of another version
        return flat(config, without)
    usual = flat(preset, without)
    return {
        name: value for name, value in flat(config, without).items() if usual.get(name) != value
    }


def _known(cls: type, data: object) -> Any:  # noqa: ANN401
    """Without settings that this version does not have."""
    if not isinstance(data, dict):
        return data
    hints = get_type_hints(cls)
    names = {field.name for field in fields(cls)}
    return {
        name: _known(hints[name], value) if is_dataclass(hints[name]) else value
        for name, value in data.items()
        if name in names
    }


def _episodes(folder: Path) -> list[ActedReturn]:
    found = [
        ActedReturn(
            time_s=float(line["time_s"]), frames=int(line["frames"]), value=float(line["return"])
        )
        for line in read_lines(folder / "episodes.jsonl")
        if {"time_s", "frames", "return"} <= line.keys()
    ]
    return sorted(found, key=lambda one: one.frames)


def _hardware(data: Mapping[str, Any]) -> str:
    gpus = [str(name) for name in data.get("gpus") or []]
    cpu = f"{data.get('cpus', '?')} x {data.get('cpu') or data.get('machine', 'CPU')}"
    memory = data.get("memory_bytes")
    gigabytes = f", {memory / 2**30:.0f} GiB" if isinstance(memory, int) else ""
    return ", ".join([*gpus, cpu]) + gigabytes
