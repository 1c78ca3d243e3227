"""A run that rests, as a folder: a curve, and dreams with states and a film. No fleet behind it."""

from __future__ import annotations

import json
import math

import numpy as np

from learner.dream_files import DreamFiles
from system.dream import Band, DreamReport, Example, Film, Gap
from system.dream_codec import encode_dream

CONTEXT, HORIZON, SIDE = 5, 45, 64


def write_run(where, name="rested", *, env="dm_control/cartpole-swingup", dreams=(400, 6000)):
    """A finished run in `where`/runs; returns its id."""
    folder = where / "runs" / name
    folder.mkdir(parents=True)
    config = {"env": {"name": env}, "preset": "laptop", "model": {"size": "nano"}, "frames": 60000}
    (folder / "config.json").write_text(json.dumps({"config": config, "run_id": f"{name}-id"}))
    lines = [line for index in range(1, 61) for line in _lines(1000 * index)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "end.json").write_text(json.dumps({"how": "finished", "text": ""}))
    files = DreamFiles(folder)
    for update in dreams:
        write_dream(files, update)
    return f"{name}-id"


def write_dream(files, update):
    """One more dream; the later, the better."""
    report = dream(update, files.read_before(update // 2))
    files.write(update, encode_dream(report))


def dream(update, earlier=None):
    """Three examples of five numbers and a film: a pole that turns."""
    numbers = np.random.default_rng(update)
    steps = np.arange(1, HORIZON + 1)
    scale = 12 + 8 * math.log1p(update / 500)
    return DreamReport(
        update=update, frames=8 * update, time_s=1.7e9 + update / 10, elapsed_s=update / 50,
        context_steps=CONTEXT, horizon=HORIZON, starts=16, samples=8,
        model_error=_floats(1 - np.exp(-steps / scale)),
        repeat_error=_floats(1.4 * (1 - np.exp(-steps / 8))),
        parting_step=min(HORIZON, 1 + int(scale / 2)),
        gap=Gap(real_return=21.0, dreamed_return=24.0, policy_return=26.0, ratio=0.2,
                policy_ratio=0.3),
        examples=[_example(numbers, start) for start in range(3)],
        earlier_update=earlier and earlier.update, earlier_error=earlier and earlier.model_error,
    )  # fmt: skip


def _lines(frames):
    skill = 1 / (1 + math.exp(-(frames - 25000) / 6000))
    facts = {"time_s": frames / 100, "frames": frames, "updates": frames // 8}
    yield {
        **facts, "actor/return_mean": 30 + 700 * skill, "learner/updates_per_s": 12.5,
        "replay/steps": frames // 2, "replay/fill": frames / 120000, "replay/ratio": 62.0,
        "replay/ratio_target": 64.0, "replay/bytes": 900 * frames, "loss/dynamics": 1.6,
        "loss/reconstruction": 0.3,
    }  # fmt: skip
    if frames % 5000 == 0:
        yield {**facts, "eval/return_mean": 35 + 780 * skill, "eval/return_std": 40.0}


def _example(numbers, start):
    total = CONTEXT + HORIZON
    time = np.arange(total)
    alone = np.maximum(0, time - CONTEXT + 1)
    angle = time / 6 + start
    drift = np.cumsum(numbers.normal(0, 0.03, total)) * (alone > 0)
    rows = {
        "position[0]": 0.6 * np.sin(angle / 2), "position[1]": np.cos(angle),
        "position[2]": np.sin(angle), "velocity[0]": 0.3 * np.cos(angle / 2),
        "velocity[1]": 1 + 0.2 * np.sin(angle),
    }  # fmt: skip
    film = Film(name="camera", real=_film(angle), dreamed=_film(angle + drift))
    return Example(
        vectors=[_band(name, real, drift, alone) for name, real in rows.items()],
        images=[film],
        reward=_band("reward", 0.5 + 0.4 * np.cos(angle), drift / 2, alone),
        continues=_band("continues", np.ones(total), 0 * drift, alone),
    )


def _band(name, real, drift, alone):
    mean, width = real + drift, 0.02 + 0.01 * alone
    low, high = mean - width, mean + width
    return Band(
        name=name, real=_floats(real), mean=_floats(mean), low=_floats(low), high=_floats(high)
    )


def _film(angles):
    row, column = np.mgrid[0:SIDE, 0:SIDE]
    frames = np.empty((len(angles), SIDE, SIDE, 3), np.uint8)
    for frame, angle in zip(frames, angles, strict=True):
        x, y = column - SIDE / 2, row - SIDE / 2
        along = x * np.sin(angle) - y * np.cos(angle)
        across = x * np.cos(angle) + y * np.sin(angle)
        frame[:] = (31, 48, 73)
        frame[(along > 0) & (along < 26) & (abs(across) < 2)] = (236, 201, 120)
        frame[(abs(x) < 7) & (abs(y) < 4)] = (140, 170, 200)
    return frames


def _floats(values):
    return np.asarray(values, np.float32)
