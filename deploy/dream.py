"""`dreamfleet dream`: pictures of what a checkpoint dreams, beside what was recorded.

::

    checkpoints/ -> Models          replay/ -> one Episode
              `---- look ----'
                      |-> strip.png  film.gif [film.mp4]  error.png  dream.json

Works from the run folder alone, while the run goes on and after.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from deploy.dream_film import check_video, frames_of, save_gif, save_mp4
from deploy.dream_strip import DPI, Picture, draw_strip, save_error
from deploy.run_folder import RunFolder, RunRecord
from deploy.target import only_folder
from learner.episodes import Episode, Moments, pick_episode, read_episodes
from learner.look import View, find_checkpoint, look, models_of
from system.dream import DreamReport
from system.errors import ConfigError, RunError

HORIZON = 45
"""Unless --horizon says otherwise [agent steps]."""
CONTEXT = 10
"""Steps shown before the dream begins [agent steps]."""
FIRST_SHARE = 0.2
"""Without --step the dream begins so far into the episode, or earlier if its end asks [ratio]."""


def dream(options: argparse.Namespace) -> None:
    """Draws the dreams of one checkpoint, or of two.

    Raises:
      CheckpointError: there is no such checkpoint.
      RunError: there is no such run, or no such episode.
      ConfigError: a step beyond the episode.
    """
    where = Path.cwd()
    folder = RunFolder.open(where, options.run or only_folder(where))
    if options.video:
        check_video()
    record = folder.record()
    episode, moments = _episode(folder, record, options)
    step, horizon = _stretch(len(episode), options.step, options.horizon or HORIZON)
    view = View(
        episode=episode,
        step=step,
        context=min(CONTEXT, step + 1),
        horizon=horizon,
        samples=options.samples,
        policy_acts=options.act == "policy",
        variance=moments.variances(),
    )
    reports = [_report(folder, record, view, options.checkpoint)]
    if options.against is not None:
        reports.append(_report(folder, record, view, options.against))
    repeat = record.spec.action_repeat
    picture = Picture(
        title=f"{folder.name}: {record.spec.name}, {_called(options.episode)}, from step {step}",
        reports=reports,
        policy_acts=view.policy_acts,
        env_step="agent steps" if repeat == 1 else f"agent steps of {repeat} frames",
    )
    out = Path(options.out) if options.out else folder.path / f"dream-{reports[0].update}"
    out.mkdir(parents=True, exist_ok=True)
    _write(out, picture, _facts(picture, episode, view), video=options.video)
    for report in reports:
        sys.stdout.write(_summary(report, policy_acts=view.policy_acts) + "\n")


def _episode(
    folder: RunFolder, record: RunRecord, options: argparse.Namespace
) -> tuple[Episode, Moments]:
    """One that is long enough; without --horizon, one of any length if there is none."""
    seen = CONTEXT if options.step is None else options.step + 1

    def read(least_steps: int) -> tuple[Episode, Moments]:
        moments = Moments()
        episodes = read_episodes(folder.path, record.spec, moments)
        return pick_episode(episodes, options.episode, least_steps), moments

    try:
        return read(seen + (options.horizon or HORIZON))
    except RunError:
        if options.horizon is not None:
            raise
        return read((options.step or 0) + 2)


def _called(index: int) -> str:
    return "newest episode" if index == -1 else f"episode {index}"


def _stretch(length: int, step: int | None, horizon: int) -> tuple[int, int]:
    """The last Step seen, and how many after it are dreamed. Raises ConfigError."""
    last = length - 2
    if step is None:
        step = max(0, min(round(FIRST_SHARE * length), last + 1 - horizon))
        step = max(step, min(CONTEXT - 1, last))
    if step > last:
        raise ConfigError(
            f"--step {step} leaves nothing to dream: the episode has {length} agent steps; choose "
            f"0 .. {last}, or another --episode"
        )
    return step, min(horizon, length - 1 - step)


def _report(folder: RunFolder, record: RunRecord, view: View, update: int | None) -> DreamReport:
    config = record.config
    checkpoint = find_checkpoint(folder.path, update)
    return look(
        models_of(checkpoint, config.learner, config.model, record.spec),
        checkpoint,
        view,
        discount=config.learner.discount,
        action_repeat=record.spec.action_repeat,
    )


def _write(out: Path, picture: Picture, facts: dict[str, object], *, video: bool) -> None:
    strip = draw_strip(picture)
    strip.savefig(out / "strip.png", dpi=DPI)
    save_error(out / "error.png", picture)
    frames = frames_of(picture, strip)
    save_gif(out / "film.gif", frames)
    if video:
        save_mp4(out / "film.mp4", frames)
    (out / "dream.json").write_text(json.dumps(facts, indent=1) + "\n")
    names = ["strip.png", "film.gif", *(["film.mp4"] if video else []), "error.png", "dream.json"]
    sys.stdout.write(f"{out}/: {', '.join(names)}\n")


def _facts(picture: Picture, episode: Episode, view: View) -> dict[str, object]:
    """What the pictures show, as numbers."""
    example = picture.reports[0].examples[0]
    return {
        "title": picture.title,
        "slot": episode.slot,
        "copy": episode.copy,
        "episode_steps": len(episode),
        "step": view.step,
        "context_steps": view.context,
        "horizon": view.horizon,
        "samples": view.samples,
        "act": "policy" if view.policy_acts else "recorded",
        "reality": {b.name: b.real.tolist() for b in [*example.vectors, example.reward]},
        "checkpoints": [_checkpoint_facts(report) for report in picture.reports],
    }


def _checkpoint_facts(report: DreamReport) -> dict[str, object]:
    gap, example = report.gap, report.examples[0]
    return {
        "update": report.update,
        "frames": report.frames,
        "starts": report.starts,
        "error": report.model_error.tolist(),
        "error_of_repeating_the_last": report.repeat_error.tolist(),
        "parting_step": report.parting_step,
        "real_return": gap.real_return,
        "dreamed_return": gap.dreamed_return,
        "policy_return": gap.policy_return,
        "gap_ratio": gap.ratio,
        "gap_alarm": gap.alarm,
        "dreamed": {
            band.name: {
                "mean": band.mean.tolist(), "low": band.low.tolist(), "high": band.high.tolist()
            }
            for band in [*example.vectors, example.reward, example.continues]
        },
    }  # fmt: skip


def _summary(report: DreamReport, *, policy_acts: bool) -> str:
    """One line. What the policy does in a dream nobody has recorded."""
    if policy_acts:
        return (
            f"update {report.update:,}: the policy acts; return of {report.horizon} steps "
            f"{report.gap.policy_return:.3g} dreamed"
        )
    if report.parting_step is None:
        parts = f"stays with reality for all {report.horizon} agent steps"
    else:
        parts = f"parts from reality at step {report.parting_step} of {report.horizon}"
    gap = report.gap
    warning = "; the dream is no guide" if gap.alarm else ""
    return (
        f"update {report.update:,}: {parts}; return of {report.horizon} steps {gap.real_return:.3g}"
        f" recorded, {gap.dreamed_return:.3g} dreamed (gap {100 * gap.ratio:.0f} %{warning})"
    )
