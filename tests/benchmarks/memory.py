"""Memory: what an arena takes against what was predicted, and whether a training grows.

Run: ``python -m tests.benchmarks.memory [--json]`` fills arenas, each in a process of its own: a
million Steps of state and 100,000 of 64 x 64 pictures. *Predicted* is what `check_memory` refuses a
run by (`deploy.memory.arena_bytes`); *held* is what the process grew by, as the kernel counts it.
Each once in memory and once mapped from a file: then *on disk* is what the disk lost, and what the
process holds of it can be taken back by the kernel.

``--train MINUTES [--env ID]`` trains `laptop` in one process instead and samples its resident
memory every 10 s; the slope is a least-squares line over the second half. The arena is still
filling then, so the slope is also given without the rows that were inserted meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from actors.config import EnvConfig
from deploy.memory import arena_bytes
from deploy.presets import from_preset
from deploy.run_folder import RUNS, RunFolder
from learner.arena import Arena, row_bytes
from learner.config import LearnerConfig
from learner.storage import in_file, in_memory
from system.config import ModelConfig
from system.specs import ActionSpec, ArraySpec, EnvSpec
from tests.chunks_for_tests import make_chunk

MIB = 2**20
CHUNK_STEPS = 1000
SAMPLE_S = 10.0
STATE = EnvSpec(
    name="walker",
    observation={
        "height": ArraySpec(shape=()),
        "orientations": ArraySpec(shape=(14,)),
        "velocity": ArraySpec(shape=(9,)),
    },
    action=ActionSpec(kind="continuous", size=6),
)
PICTURES = EnvSpec(
    name="pictures",
    observation={"image": ArraySpec(shape=(64, 64, 3), dtype="uint8")},
    action=ActionSpec(kind="continuous", size=1),
)
CASES = {
    "state, dreamer 1m": (STATE, "dreamer", 1_000_000),
    "state, laptop nano": (STATE, "laptop", 1_000_000),
    "64 x 64 pictures, laptop nano": (PICTURES, "laptop", 100_000),
}


def held(spec, preset, steps, *, mapped):
    """Fills an arena of so many Steps; bytes predicted and held, and what a Batch costs."""
    config = from_preset(preset, EnvConfig(name=spec.name), run="x")
    fill(spec, config.model, config.learner, 2 * CHUNK_STEPS, in_memory)  # what comes once
    large = replace(config, frames=steps, replay=replace(config.replay, capacity_bytes=2**40))
    predicted = arena_bytes(large, spec)
    with tempfile.TemporaryDirectory(prefix="dreamfleet-memory-") as folder:
        before, free = resident(), shutil.disk_usage(folder).free
        allocate = in_file(Path(folder)) if mapped else in_memory
        arena = fill(spec, config.model, config.learner, steps, allocate)
        grown = resident()["RssAnon"] - before["RssAnon"]
        on_disk = free - shutil.disk_usage(folder).free
    return {
        "steps": len(arena),
        "predicted_mib": round(predicted / MIB, 1),
        "held_mib": round(grown / MIB, 1),
        **({"on_disk_mib": round(on_disk / MIB, 1)} if mapped else {}),
        "taken_over_predicted": round((on_disk if mapped else grown) / predicted, 4),
        "sample_ms": round(sampling(arena, config.learner), 2),
    }


def fill(spec, model: ModelConfig, learner: LearnerConfig, steps, allocate):
    arena = Arena(
        spec=spec, model=model, batch_length=learner.batch_length, allocate=allocate,
        capacity_bytes=steps * row_bytes(spec, model), device=torch.device("cpu"),
    )  # fmt: skip
    first = make_chunk(spec=spec, length=CHUNK_STEPS)
    latent = {"deter": np.zeros(model.deter, np.float16), "stoch": np.zeros(model.stoch, np.uint8)}
    for index in range(steps // CHUNK_STEPS):
        chunk = replace(first, latent=latent, sequence=index + 1, first_step=index * CHUNK_STEPS)
        arena.insert(chunk)
    touched = np.arange(0, arena.end)
    # An update writes a posterior to every row sooner or later: their pages are taken by then.
    write_posteriors(arena, touched)
    return arena


def write_posteriors(arena, ordinals):
    """Through the public way, a Batch at a time."""
    from system.models.dynamics import Latent

    model, length = arena.model, 500
    contexts = ordinals[arena.can_be_context(ordinals)]
    for start in contexts[:: max(1, length)]:
        steps = min(length, int(arena.end - start) - 1)
        if steps < 1:
            continue
        batch = arena.sample(np.array([start]), length=steps)
        stoch = torch.zeros(1, steps, model.stoch, model.classes)
        stoch[..., 0] = 1
        arena.write_back(batch, Latent(torch.ones(1, steps, model.deter), stoch))


def sampling(arena, learner):
    """Median milliseconds to gather one Batch from anywhere."""
    random, times = np.random.default_rng(0), []
    ordinals = np.arange(arena.oldest, arena.end)
    contexts = ordinals[arena.can_be_context(ordinals)]
    for _ in range(20):
        drawn = random.choice(contexts, learner.batch_size)
        started = time.perf_counter()
        arena.sample(drawn)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))


def resident(pid="self"):
    """VmRSS, RssAnon and RssFile of a process [bytes]."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    names = ("VmRSS", "RssAnon", "RssFile")
    return {name: 1024 * int(found[name].split()[0]) for name in names}


def arenas():
    found = {}
    for (name, case), mapped in itertools.product(CASES.items(), (False, True)):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            label = f"{name}, mapped" if mapped else name
            found[label] = alone.submit(held, *case, mapped=mapped).result()
    return found


def training(env, minutes, where):
    """Trains for so long in a process of its own; slopes over the second half."""
    command = [sys.executable, "-m", "deploy.cli", "train", "--env", env, "--runner", "local",
               "--no-dashboard", "--frames", "0", "--run", "memory"]  # fmt: skip
    surroundings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    samples, folder = [], RunFolder(where / RUNS / "memory")
    with (where / "train.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=where, stdout=log, stderr=log, env=surroundings)
        began = time.monotonic()
        while time.monotonic() - began < 60 * minutes and process.poll() is None:
            time.sleep(SAMPLE_S)
            if (line := last_metrics(folder)) and process.poll() is None:
                samples.append((time.monotonic() - began, line, resident(process.pid)))
        ended_early = process.poll() is not None
        process.kill()  # what it would do on its way out is not measured
        process.wait()
    if ended_early or len(samples) < 8:
        raise SystemExit(f"the training ended early: {(where / 'train.log').read_text()[-2000:]}")
    return slopes(samples, folder)


def last_metrics(folder):
    try:
        lines = folder.metrics_path.read_text().splitlines()
        return next(found for line in reversed(lines) if (found := json.loads(line)).get("updates"))
    except (OSError, StopIteration, ValueError):
        return None


def slopes(samples, folder):
    record = folder.record()
    row = row_bytes(record.spec, record.config.model)
    half = samples[len(samples) // 2 :]
    hours = np.array([at for at, _, _ in half]) / 3600
    inserted = np.array([line["frames"] / record.config.env.action_repeat for _, line, _ in half])
    total = np.array([each["VmRSS"] for _, _, each in half])

    def per_hour(values):
        return round(float(np.polyfit(hours, values, 1)[0]) / MIB, 2)

    return {
        "env": record.config.env.name, "minutes": round(samples[-1][0] / 60, 1),
        "updates": int(half[-1][1]["updates"]), "frames": int(half[-1][1]["frames"]),
        "rss_mib": round(float(total[-1]) / MIB, 1), "rss_mib_per_h": per_hour(total),
        "arena_mib_per_h": per_hour(inserted * row),
        "rss_without_arena_mib_per_h": per_hour(total - inserted * row),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=float, metavar="MINUTES")
    parser.add_argument("--env", default="dm_control/cartpole-swingup")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.train:
        with tempfile.TemporaryDirectory(prefix="dreamfleet-memory-") as folder:
            result = training(options.env, options.train, Path(folder))
    else:
        result = arenas()
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
