"""Milliseconds of one update, world model and dream apart, against the arithmetic floor.

Run: `python -m tests.benchmarks.update --size nano [--batch-size 16] [--threads 1] [--json]`.
Medians of `--rounds` rounds; the parts take turns within a round, so that a slow minute of the
machine slows all of them.

    update        `Learning.update`: everything
    world_model   the world-model losses and their gradients
    dream         imagination, the behavior losses and their gradients
    floor         counted FLOPs of the matrix products of one update, forward and backward, divided
                  by the rate of a large matrix product measured in the same run; for the dtype the
                  update computes in (fp32), and for bf16 as `floor_bfloat16_ms`

`imagined_steps_per_s` is dream starts x horizon / dream. `nano` takes the numbers of the `laptop`
preset, other sizes those of `dreamer`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from actors.config import EnvConfig
from deploy.presets import SIZES, from_preset
from learner.allocator import keep_pages
from learner.batch import Batch
from learner.imagination import imagine
from learner.update import Learning
from system.models import kernels
from system.models.dynamics import Latent
from system.specs import ActionSpec, ArraySpec, EnvSpec

WALKER = EnvSpec(
    name="walker",
    observation={
        "height": ArraySpec(shape=()),
        "orientations": ArraySpec(shape=(14,)),
        "velocity": ArraySpec(shape=(9,)),
    },
    action=ActionSpec(kind="continuous", size=6),
)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
GEMM_SIZE = 1024
WARM_UPS = 2


def main():
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_pages()  # as every learner does
    device = torch.device(options.device)
    config = preset(options)
    torch.manual_seed(0)
    learning = Learning(config.learner, config.model, WALKER, device)
    batch = random_batch(config, device)
    parts = {
        "update_ms": lambda: learning.update(batch),
        "world_model_ms": lambda: world_model(learning, batch),
        "dream_ms": lambda: dream(learning, config, device),
        "gemm_float32_ms": gemm(torch.float32, device),
        "gemm_bfloat16_ms": gemm(torch.bfloat16, device),
    }
    result = facts(options, config, learning)
    medians, spread = measure(parts, options.rounds, device, CLOCKS[options.clock])
    result |= medians
    with kernels.switched_off():  # what the fused kernels multiply cannot be counted
        result |= arithmetic(medians, counted_flops(lambda: learning.update(batch)))
    result["imagined_steps_per_s"] = result["dream_steps"] / (result["dream_ms"] / 1e3)
    result["spread_ms"] = spread
    report(result, as_json=options.json)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="nano", choices=list(SIZES))
    parser.add_argument("--batch-size", type=int, help="default: the preset's")
    parser.add_argument("--gradient", default="reinforce")
    parser.add_argument("--threads", type=int, default=1, help="of torch; 0 keeps its default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS), help="cpu: time of the "
                        "process, for a machine that is not quiet")  # fmt: skip
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def preset(options):
    """The run's config; a smaller batch takes a dream start at most at every Step."""
    name = "laptop" if options.size == "nano" else "dreamer"
    config = from_preset(name, EnvConfig(name="CartPole-v1"), run="bench", size=options.size)
    learner, size = config.learner, options.batch_size or config.learner.batch_size
    starts = min(learner.dream_starts, size * learner.batch_length)
    learner = dataclasses.replace(
        learner, batch_size=size, dream_starts=starts, gradient=options.gradient,
        precision=options.precision,
    )  # fmt: skip
    return dataclasses.replace(config, learner=learner)


def random_batch(config, device, spec=WALKER):
    random, model = np.random.default_rng(0), config.model
    B, T = config.learner.batch_size, config.learner.batch_length

    def tensor(array):
        return torch.from_numpy(np.asarray(array, np.float32)).to(device)

    def seen(array):
        shape = (B, T, *array.shape)
        if array.is_image:
            return torch.from_numpy(random.integers(256, size=shape, dtype=np.uint8)).to(device)
        return tensor(random.normal(size=shape))

    action = random.uniform(-1, 1, (B, T, spec.action.size))
    is_first = torch.from_numpy(random.random((B, T)) < 0.01).to(device)
    none = torch.zeros(B, T, dtype=torch.bool, device=device)
    stoch = np.eye(model.classes)[random.integers(model.classes, size=(B, model.stoch))]
    return Batch(
        observation={name: seen(array) for name, array in spec.observation.items()},
        action=tensor(action),
        previous_action=tensor(np.roll(action, 1, axis=1)),
        reward=tensor(random.normal(size=(B, T))),
        is_first=is_first,
        is_last=none,
        is_terminal=none,
        context=Latent(tensor(random.normal(size=(B, model.deter)) / 2), tensor(stoch)),
        ordinals=np.arange(B * T).reshape(B, T),
    )


def world_model(learning, batch):
    with kernels.rounding(learning._rounds):
        losses = learning.objective.loss(batch).losses
        sum(loss.mean() for loss in losses.values()).backward()
    learning.optimizer.gradient.zero_()


def dream(learning, config, device):
    starts = Latent(*learning.world_model.dynamics.initial(dream_starts(config)))
    with kernels.rounding(learning._rounds):
        dream_there_and_back(learning, starts, config)


def dream_there_and_back(learning, starts, config):
    dreamed = imagine(
        learning.world_model,
        learning.behavior.policy,
        starts,
        config.learner.horizon,
        differentiable=learning.behavior.gradient != "reinforce",
    )
    loss = learning.behavior.loss(dreamed)
    (loss.policy.mean() + loss.value.mean()).backward()
    learning.optimizer.gradient.zero_()


def dream_starts(config):
    return config.learner.dream_starts or config.learner.replayed_steps


def gemm(dtype, device):
    left, right = (torch.randn(GEMM_SIZE, GEMM_SIZE, device=device).to(dtype) for _ in range(2))
    return lambda: left @ right


def measure(parts, rounds, device, clock):
    """Median and [least, most] of each part [ms]."""

    def timed(part):
        settle(device)
        started = clock()
        part()
        settle(device)
        return 1e3 * (clock() - started)

    for part in parts.values():
        for _ in range(WARM_UPS):
            part()
    times = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            times[name].append(timed(part))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return medians, {name: [min(values), max(values)] for name, values in times.items()}


def settle(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def counted_flops(part):
    """Of all matrix products, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        part()
    return counter.get_total_flops()


def arithmetic(medians, flops):
    """Rates [GFLOP/s] and floors [ms] per dtype."""
    found = {"update_gflop": flops / 1e9}
    for dtype in ("float32", "bfloat16"):
        rate = 2 * GEMM_SIZE**3 / (medians[f"gemm_{dtype}_ms"] / 1e3)
        found[f"gemm_{dtype}_gflops"] = rate / 1e9
        found[f"floor_{dtype}_ms"] = 1e3 * flops / rate
    found["floor_ms"] = found["floor_float32_ms"]
    found["over_floor"] = medians["update_ms"] / found["floor_ms"]
    return found


def facts(options, config, learning):
    learner = config.learner
    trained = [p for p in learning.parameters() if p.requires_grad]
    return {
        "size": options.size,
        "preset": config.preset,
        "gradient": learner.gradient,
        "precision": learner.precision,
        "clock": options.clock,
        "batch_size": learner.batch_size,
        "batch_length": learner.batch_length,
        "dream_starts": dream_starts(config),
        "horizon": learner.horizon,
        "dream_steps": dream_starts(config) * learner.horizon,
        "parameters": sum(p.numel() for p in trained),
        "dtype": str(trained[0].dtype).removeprefix("torch."),
        "device": processor() if options.device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "torch": torch.__version__,
    }


def processor():
    """Name of the CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def report(result, *, as_json):
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        if name.endswith("_ms") and name in result["spread_ms"]:
            low, high = result["spread_ms"][name]
            print(f"{name:<22} {value:12.2f}   {low:.2f} .. {high:.2f}")
        elif name != "spread_ms":
            print(
                f"{name:<22} {value:12.2f}" if isinstance(value, float) else f"{name:<22} {value}"
            )


if __name__ == "__main__":
    main()
