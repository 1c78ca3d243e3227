"""Runs that differ in nothing but the seed, put together; the figures that docs/protocol.md allows.

::

    runs -> group_runs -> Group -> summarise -> Summary: a row, the bands of the picture
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy.results.evidence import Evidence, flat
from deploy.results.statistics import (
    Band,
    Floats,
    Series,
    band,
    bootstrap,
    common_grid,
    iqm,
    on_grid,
    windowed,
)

SLACK = 0.01
"""An evaluation so little beyond the common end counts as at the end [share]."""
WINDOW = 0.1
"""Training episodes behind a training return: those of the last tenth of the frames [share]."""
WINDOWS = 20
"""Of the training curve."""
SCORE_LIMIT = 1000.0
"""Greatest return of a dm_control task: divided by it, tasks can be put together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Runs of one task with one set of settings."""

    task: str
    preset: str
    size: str
    action_repeat: int
    settings: str
    """Where it is not the preset of today; empty if nowhere."""
    runs: list[Evidence]
    """By growing seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """One number over seeds."""

    mean: float
    iqm: float
    low: float | None
    """Lower end of the 95 % interval of the interquartile mean; None for one seed."""
    high: float | None
    values: list[float]
    """Of each seed, in the order of the runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a group shows."""

    group: Group
    frames: int
    """The common end: the last evaluation that every seed reached."""
    hours: float
    """Mean training time of a run up to there [h]."""
    evaluated: Estimate
    acted: Estimate | None
    """Training episodes; None if not every run has recorded them up to there."""
    against_frames: Band
    against_time: Band
    """`at` in seconds."""
    acted_against_frames: Band | None
    remarks: list[str]


def group_runs(runs: Sequence[Evidence]) -> list[Group]:
    """By task, preset, size and every setting; in that order, so that input order is no matter."""
    found: dict[tuple[str, ...], list[Evidence]] = {}
    for run in sorted(runs, key=lambda run: (run.config.seed, run.name, str(run.folder))):
        config = run.config
        head = (run.task, config.preset, config.model.size, f"{config.env.action_repeat:04}")
        key = (*head, _text(run.settings), _text(flat(config)))
        found.setdefault(key, []).append(run)
    return [
        Group(
            task=task, preset=preset, size=size, action_repeat=int(repeat), settings=settings,
            runs=members,
        )
        for (task, preset, size, repeat, settings, _), members in sorted(
            found.items(), key=lambda item: item[0]
        )
    ]  # fmt: skip


def summarise(group: Group) -> Summary:
    """The row of a group. All seeds are compared at the same frames."""
    runs = group.runs
    end = min(run.frames for run in runs)
    finals = [value_at(run, end) for run in runs]
    times = [on_grid(_elapsed(run), np.array([float(end)]))[0] for run in runs]
    return Summary(
        group=group,
        frames=end,
        hours=float(np.mean(times)) / 3600,
        evaluated=estimate(finals),
        acted=acted_at(runs, end),
        against_frames=band([_against_frames(run) for run in runs]),
        against_time=band([_against_time(run) for run in runs]),
        acted_against_frames=_acted_band(runs, end),
        remarks=_remarks(runs),
    )


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, interquartile mean and its interval, over the seeds of one task."""
    return _estimate([np.array(values)])


def across_tasks(summaries: Sequence[Summary]) -> Estimate | None:
    """Return / 1000 over several dm_control tasks with one set of settings: a stratum each.

    None unless all are tasks of dm_control, and there are at least two.
    """
    if len({one.group.task for one in summaries}) < 2:
        return None
    if not all(one.group.task.startswith("dm_control/") for one in summaries):
        return None
    return _estimate([np.array(one.evaluated.values) / SCORE_LIMIT for one in summaries])


def value_at(run: Evidence, frames: int) -> float:
    """Its last evaluation if that lies at `frames`, or 1 % beyond; else linear between two."""
    if run.frames <= frames * (1 + SLACK):
        return run.evaluations[-1].return_mean
    return float(on_grid(_against_frames(run), np.array([float(frames)]))[0])


def acted_at(runs: Sequence[Evidence], frames: int) -> Estimate | None:
    """Training return at `frames`: the mean of the episodes that ended in the tenth before."""
    edges = np.array([frames * (1 - WINDOW), frames])
    values = [float(_acted(run, edges)[0]) for run in runs]
    return None if np.isnan(values).any() else estimate(values)


def _estimate(strata: Sequence[Floats]) -> Estimate:
    values = np.concatenate(strata)
    interval = bootstrap(strata, lambda drawn: iqm(drawn, 1))
    return Estimate(
        mean=float(values.mean()),
        iqm=float(iqm(values)),
        low=None if interval is None else float(interval.low),
        high=None if interval is None else float(interval.high),
        values=values.tolist(),
    )


def _against_frames(run: Evidence) -> Series:
    at = np.array([float(point.frames) for point in run.evaluations])
    return Series(at=at, values=np.array([point.return_mean for point in run.evaluations]))


def _against_time(run: Evidence) -> Series:
    ordered = sorted(run.evaluations, key=lambda point: point.time_s)
    at = np.array([point.time_s for point in ordered])
    return Series(at=at, values=np.array([point.return_mean for point in ordered]))


def _elapsed(run: Evidence) -> Series:
    at = np.array([float(point.frames) for point in run.evaluations])
    return Series(at=at, values=np.array([point.time_s for point in run.evaluations]))


def _acted(run: Evidence, edges: Floats) -> Floats:
    at = np.array([float(one.frames) for one in run.episodes])
    return windowed(at, np.array([one.value for one in run.episodes]), edges)


def _acted_band(runs: Sequence[Evidence], end: int) -> Band | None:
    """Windows of equal width; the place of a window is its end."""
    edges = np.linspace(0.0, end, WINDOWS + 1)
    values = np.stack([_acted(run, edges) for run in runs])
    known = ~np.isnan(values).any(0)
    if not known.any():
        return None
    values = values[:, known]
    interval = bootstrap([values], lambda drawn: drawn.mean(1))
    return Band(
        at=edges[1:][known],
        mean=values.mean(0),
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
    )


def _remarks(runs: Sequence[Evidence]) -> list[str]:
    """What a reader must know of the group as a whole, and of each run by name."""
    found = []
    seeds = [run.config.seed for run in runs]
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        found.append(f"seed {', '.join(map(str, twice))} more than once")
    if len(runs) > 1 and not len(common_grid([_against_frames(run) for run in runs])):
        found.append("the seeds share no frames")
    found += [f"{run.name}: {remark}" for run in runs for remark in run.remarks]
    return found


def _text(settings: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(settings.items()))
