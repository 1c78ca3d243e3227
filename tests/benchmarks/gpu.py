"""The size table: what an update takes on one GPU, launched one by one and as one graph.

Run: `python -m tests.benchmarks.gpu [--sizes 1m,12m,50m,200m] [--observations proprio,pixels]
[--precision auto] [--rounds 10] [--seeds 1] [--json FILE]`; at most `--minutes` in all (8). Where
there is no GPU: `--device cpu --sizes 1m --rounds 1`. Two ceilings are measured first: the rate of
a large bf16 matrix product, and of a copy in memory (read and written bytes).

    eager_ms        `Learning.update`, a launch per kernel; wall, until the device has ended
    graphed_ms      `GraphedUpdate.update`, one launch
    device_ms       the same between two CUDA events
    loop_ms         draw + gather + graphed update + write back, with the arena on the device, and
                    nobody waits between updates: what a learner does
    kernel_ms       time in kernels of one replay (torch.profiler); `kernels`: how many
    busy            kernel_ms / loop_ms
    mfu             FLOPs of the update's matrix products and convolutions / graphed_ms / ceiling
    floor_ms        the larger of FLOPs / ceiling and (weights, gradients and moments once) / copy
    peak_gib        most memory that torch had allocated

With `--seeds K`, `seeds_ms` is K learners on K streams, per update of one of them. Medians.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch.autograd import DeviceType

from learner.arena import Arena, row_bytes
from learner.graphed import WARM_UPS, CudaRecorder, GraphedUpdate
from learner.precision import set_cuda_precision
from learner.samplers import FreshThenUniform
from learner.storage import on_device
from learner.update import Learning
from system.models import kernels
from system.specs import ActionSpec, ArraySpec, EnvSpec
from tests.benchmarks.update import (
    WALKER,
    counted_flops,
    dream_starts,
    preset,
    processor,
    random_batch,
    settle,
)
from tests.chunks_for_tests import make_chunk

PIXELS = EnvSpec(
    name="pixels",
    observation={"image": ArraySpec(shape=(64, 64, 3), dtype="uint8")},
    action=ActionSpec(kind="continuous", size=6),
)
SPECS = {"proprio": WALKER, "pixels": PIXELS}
ARENA_STEPS, CHUNK = 8192, 256
COLUMNS = ("eager_ms", "graphed_ms", "device_ms", "loop_ms", "kernel_ms", "kernels", "busy", "mfu",
           "floor_ms", "imagined_per_s", "seeds_ms", "peak_gib")  # fmt: skip


def main():
    options = arguments()
    device = torch.device(options.device)
    ends_s = time.perf_counter() + 60 * options.minutes
    rows, found = [], {"device": name_of(device), "torch": torch.__version__,
                       "precision": options.precision, **ceilings(device)}  # fmt: skip
    print(json.dumps(found), flush=True)
    for observation in options.observations.split(","):
        for size in options.sizes.split(","):
            if time.perf_counter() > ends_s:
                print(f"{size} {observation}: left out, the time is over")
                continue
            row = {"size": size, "observation": observation}
            try:
                row |= measured(size, observation, options, found, device)
            except torch.OutOfMemoryError as error:
                row["error"] = str(error).splitlines()[0]
            rows.append(row)
            print(json.dumps(row), flush=True)  # if the rest does not come
            release(device)
    print(table(rows))
    if options.json:
        Path(options.json).write_text(json.dumps(found | {"rows": rows}, indent=1))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", default="1m,12m,50m,200m")
    parser.add_argument("--observations", default="proprio,pixels")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--gradient", default="reinforce")
    parser.add_argument("--batch-size", type=int, help="default: the preset's")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1, help="learners side by side on one GPU")
    parser.add_argument("--minutes", type=float, default=8, help="no size is begun after that")
    parser.add_argument("--json", help="a file")
    return parser.parse_args()


def ceilings(device):
    """What the device reaches at most, measured."""
    cuda = device.type == "cuda"
    size, copied = (8192, 2**30) if cuda else (512, 2**24)
    rates = {}
    for name, dtype, precision in (
        ("bf16", torch.bfloat16, "highest"), ("tf32", torch.float32, "high"),
        ("fp32", torch.float32, "highest"),
    ):  # fmt: skip
        torch.set_float32_matmul_precision(precision)
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        ms = timed(lambda left=left, right=right: left @ right, 10, device)
        rates[f"matmul_{name}_tflops"] = 2 * size**3 / ms / 1e9
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    goal = torch.empty_like(source)
    rates["copy_gb_per_s"] = 2 * copied / timed(lambda: goal.copy_(source), 10, device) / 1e6
    return rates


def measured(size, observation, options, found, device):
    """One row of the table."""
    config, spec = configured(size, options), SPECS[observation]
    set_cuda_precision(config.learner)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    learning, batch = learning_of(config, spec, device), random_batch(config, device, spec)
    with kernels.switched_off():
        flops = counted_flops(lambda: learning.update(batch))
    trained = sum(p.numel() for p in learning.parameters() if p.requires_grad)
    row = {"parameters": trained, "gflop": flops / 1e9}
    row["eager_ms"] = timed(lambda: learning.update(batch), options.rounds, device)
    best_ms = row["eager_ms"]
    if device.type == "cuda":
        graphed = GraphedUpdate(learning, CudaRecorder(device), refused)
        for _ in range(WARM_UPS + 1):
            graphed.update(batch)
        row["graphed_ms"] = best_ms = timed(lambda: graphed.update(batch), options.rounds, device)
        row["device_ms"] = between_events(lambda: graphed.update(batch), options.rounds)
        row["kernel_ms"], row["kernels"] = in_kernels(lambda: graphed.update(batch))
        row["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    else:
        graphed = learning
    row["loop_ms"] = loop_ms(config, spec, graphed, options.rounds, device)
    if "kernel_ms" in row:
        row["busy"] = row["kernel_ms"] / row["loop_ms"]
    row["mfu"] = flops / (best_ms / 1e3) / (found["matmul_bf16_tflops"] * 1e12)
    # Weights, gradients, their square and momentum, each read and written once in float32.
    moved_ms = 8 * 4 * trained / (found["copy_gb_per_s"] * 1e6)
    row["floor_ms"] = max(flops / (found["matmul_bf16_tflops"] * 1e9), moved_ms)
    row["imagined_per_s"] = dream_starts(config) * config.learner.horizon / (best_ms / 1e3)
    if options.seeds > 1 and device.type == "cuda":
        row["seeds_ms"] = seeds_ms(config, spec, options, device)
    return row


def configured(size, options):
    """The preset's config with what was asked for."""
    config = preset(argparse.Namespace(**{**vars(options), "size": size}))
    learner = dataclasses.replace(config.learner, precision=options.precision)
    return dataclasses.replace(config, learner=learner)


def learning_of(config, spec, device, seed=0):
    torch.manual_seed(seed)
    with device:  # weights of 200m are drawn there
        return Learning(config.learner, config.model, spec, device)


def refused(kind, text):
    raise SystemExit(f"{kind}: {text}")


def timed(part, rounds, device):
    """Median wall time [ms], each time until the device has ended."""
    for _ in range(2):
        part()
    times = []
    for _ in range(rounds):
        settle(device)
        started = time.perf_counter()
        part()
        settle(device)
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def between_events(part, rounds):
    """Median time on the device [ms]."""
    times = []
    for _ in range(rounds):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        part()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after))
    return statistics.median(times)


def in_kernels(part, times=3):
    """Time in kernels, copies and fills of one run [ms], and how many there are."""
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(times):
            part()
        torch.cuda.synchronize()
    spent = [
        event.time_range.elapsed_us()
        for event in profile.events()
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
    return sum(spent) / 1e3 / times, len(spent) // times


def loop_ms(config, spec, updater, rounds, device):
    """What a learner does for an update; the host goes ahead as it does there."""
    model, learner = config.model, config.learner
    arena = Arena(
        spec=spec, model=model, batch_length=learner.batch_length, device=device,
        capacity_bytes=ARENA_STEPS * row_bytes(spec, model), allocate=on_device,
    )  # fmt: skip
    latent = {"deter": np.zeros(model.deter, np.float16), "stoch": np.zeros(model.stoch, np.uint8)}
    for sequence in range(1, ARENA_STEPS // CHUNK + 1):
        chunk = make_chunk(sequence=sequence, length=CHUNK, spec=spec)
        arena.insert(dataclasses.replace(chunk, latent=latent))
    sampler = FreshThenUniform(0)

    def turn():
        batch = arena.sample(sampler.draw(arena, learner.batch_size))
        arena.write_back(batch, updater.update(batch).latents)

    for _ in range(2):
        turn()
    settle(device)
    started = time.perf_counter()
    for _ in range(rounds):
        turn()
    settle(device)
    return 1e3 * (time.perf_counter() - started) / rounds


def seeds_ms(config, spec, options, device):
    """Several learners beside each other: time of one update of one of them [ms]."""
    streams = [torch.cuda.Stream(device) for _ in range(options.seeds)]
    batch, updaters = random_batch(config, device, spec), []
    for seed, stream in enumerate(streams):
        learning = learning_of(config, spec, device, seed)
        updaters.append(GraphedUpdate(learning, CudaRecorder(device), refused))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS + 1):
                updaters[-1].update(batch)

    def all_of_them():
        for updater, stream in zip(updaters, streams, strict=True):
            with torch.cuda.stream(stream):
                updater.update(batch)

    settle(device)
    return timed(all_of_them, options.rounds, device) / options.seeds


def release(device):
    """What the size before took."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def name_of(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def table(rows):
    """For people."""
    lines = [f"{'':16}" + "".join(f"{name:>15}" for name in COLUMNS)]
    for row in rows:
        cells = (shown(row.get(name)) for name in COLUMNS)
        lines.append(f"{row['size']:<6}{row['observation']:<10}" + "".join(cells))
    return "\n".join(lines)


def shown(value):
    return f"{'-':>15}" if value is None else f"{float(f'{value:.4g}'):>15,g}"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
