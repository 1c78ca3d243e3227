"""Pictures: agent steps a second by quality and size, and whether compressing Chunks of them pays.

Run: ``python -m tests.benchmarks.render [--env ID] [--sizes 64] [--seconds S] [--json]``. One
process, action repeat 1, random actions; the parts take turns. Medians of rounds, by the clock and
(for a busy machine) the best round by CPU time. ``--compress`` asks instead what zlib makes of
Chunks of 16 pictures, in CPU time of the best round, and below which bandwidth that saves time:
compressing one byte must take less than not sending the rest of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import zlib

import numpy as np

from actors.config import EnvConfig, PixelsConfig
from actors.envs.registry import make_single

ROUNDS = 5
CHUNK_STEPS = 16


def stepper(config):
    """A function that steps for a while: steps per second of the clock, and of CPU time."""
    env = make_single(config)
    random = np.random.default_rng(0)
    env.reset(seed=0)

    def run(seconds):
        steps, started, end = 0, time.process_time(), time.perf_counter() + seconds
        while time.perf_counter() < end:
            action = random.uniform(-1, 1, env.spec.action.size).astype(np.float32)
            step = env.step(action)
            steps += 1
            if step.terminated or step.truncated:
                env.reset(seed=None)
        return steps / seconds, steps / (time.process_time() - started)

    return run


def rates(name, sizes, seconds):
    """Median steps/s of the bare state and of each quality and size."""
    parts = {"state": stepper(EnvConfig(name=name))}
    for size in sizes:
        for quality in ("fast", "full"):
            pixels = PixelsConfig(show="only", size=size, quality=quality)
            parts[f"{size} {quality}"] = stepper(EnvConfig(name=name, pixels=pixels))
    found = {part: [] for part in parts}
    for _ in range(ROUNDS):
        for part, run in parts.items():
            found[part].append(run(seconds))
    result = {}
    for part, each in found.items():
        by_clock, by_cpu = zip(*each, strict=True)
        result[f"{part} steps/s"] = round(statistics.median(by_clock))
        result[f"{part} steps/CPU s"] = round(max(by_cpu))
    for size in sizes:
        ratios = [
            fast[0] / full[0]
            for fast, full in zip(found[f"{size} fast"], found[f"{size} full"], strict=True)
        ]
        result[f"{size} fast / full"] = round(statistics.median(ratios), 1)
    return result


def frames(name, quality, count):
    """Pictures of random play, uint8 [count, 64, 64, 3]."""
    env = make_single(EnvConfig(name=name, pixels=PixelsConfig(show="only", quality=quality)))
    random, seen = np.random.default_rng(0), [env.reset(seed=0)["image"]]
    while len(seen) < count:
        action = random.uniform(-1, 1, env.spec.action.size).astype(np.float32)
        seen.append(env.step(action).observation["image"])
    return np.stack(seen)


def differences(chunk):
    """Each picture less the one before it, wrapping around; undone by a cumulative sum."""
    return np.concatenate([chunk[:1], np.diff(chunk, axis=0)])


def compression(name, quality):
    """Ratio, speed and break-even bandwidth of each way."""
    played = frames(name, quality, 8 * CHUNK_STEPS)
    chunks = [played[i : i + CHUNK_STEPS] for i in range(0, len(played), CHUNK_STEPS)]
    size = sum(chunk.nbytes for chunk in chunks)
    result = {}
    for way, level, prepare in (
        ("zlib 1", 1, lambda chunk: chunk), ("zlib 6", 6, lambda chunk: chunk),
        ("differences, zlib 1", 1, differences),
    ):  # fmt: skip
        packed, down_s = least(lambda p=prepare, n=level: [zlib.compress(p(c), n) for c in chunks])
        _, up_s = least(lambda d=packed: [zlib.decompress(each) for each in d])
        ratio = size / sum(map(len, packed))
        saved = 1 - 1 / ratio
        result[way] = {
            "ratio": round(ratio, 2),
            "compress_mb_per_s": round(size / down_s / 1e6),
            "decompress_mb_per_s": round(size / up_s / 1e6),
            "pays_below_mb_per_s": round(saved * size / (down_s + up_s) / 1e6),
        }
    return result


def least(work):
    """What it returns, and its CPU time in the best round [s]."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        value = work()
        best = min(best, time.process_time() - started)
    return value, best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="dm_control/cartpole-swingup")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--seconds", type=float, default=1.0, help="per part and round")
    parser.add_argument("--compress", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.compress:
        result = {quality: compression(options.env, quality) for quality in ("fast", "full")}
    else:
        result = rates(options.env, options.sizes, options.seconds)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:<24}{value}")


if __name__ == "__main__":
    main()
