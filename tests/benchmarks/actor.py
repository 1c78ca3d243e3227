"""Agent steps per second of the acting loop, part by part.

Run: `python -m tests.benchmarks.actor [--json] [--env NAME] [--copies 8] [--isolate]`. Medians of
five rounds; the parts take turns within a round, so that a slow minute of the machine slows all of
them. With `--isolate`, which measures only the guard: copies in a thread against copies in
processes of their own (`env.isolate`), for every count in `--copies 1 4 8`.

    simulator   the copies' own step functions, called one after another
    adapter     + float32 observations, scaled actions                      (SingleEnv)
    guard       + one worker thread with deadlines, checks, one TimeStep    (BatchedEnv)
    policy      + one batched call of the acting network
    loop        + chunking, encoding and appending to a log in memory       (ActorLoop)
    handoff     the worker thread alone, with nothing to do: microseconds per batched step
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from actors.actor import Actor, ActorSetup, Seams
from actors.config import ActorConfig, EnvConfig
from actors.envs.registry import make_env, make_single
from actors.envs.worker import Worker
from deploy.presets import SIZES
from deploy.processes import STRIDE_S
from system.channel.memory import MemoryChannel
from system.clock import SystemClock
from system.control.memory import MemoryControl
from system.log.memory import MemoryLog
from system.log.protocol import Claim, Notice, SlotNotice
from system.log.spool import SpoolSetup
from system.log.writer import SlotWriter
from system.models.agent import PolicyAgent
from system.tick import Progress
from system.types import EntryId

ROUNDS = 5
MODEL = SIZES["nano"]
"""The `laptop` policy."""


def simulator(config, copies):
    """The environments' own step, with the reset they need."""
    envs = [make_single(config)._simulator for _ in range(copies)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    action = np.zeros(envs[0].action.size)
    native = env._scale(action) if hasattr(env, "_scale") else env._native(action)

    def tick():
        for env in envs:
            step = env._env.step(native)
            over = step.last() if hasattr(step, "last") else step[2] or step[3]
            if over:
                env._env.reset()

    return tick


def adapter(config, copies):
    envs = [make_single(config) for _ in range(copies)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    action = np.zeros(envs[0].spec.action.size, np.float32)

    def tick():
        for env in envs:
            step = env.step(action)
            if step.terminated or step.truncated:
                env.reset(seed=None)

    return tick


def guard(config, copies):
    env = make_env(config, num_copies=copies, seed=0)
    env.reset()
    action = np.zeros((copies, env.spec.action.size), np.float32)

    def tick():
        env.step(action)

    return tick


def isolated(config, copies):
    return guard(replace(config, isolate=True), copies)


def policy(config, copies):
    env = make_env(config, num_copies=copies, seed=0)
    agent = PolicyAgent(MODEL, env.spec)
    memory = {"carry": agent.initial_carry(copies), "time_step": env.reset()}

    def tick():
        decision = agent.act(memory["time_step"], memory["carry"], deterministic=False)
        memory.update(carry=decision.carry, time_step=env.step(decision.action))

    return tick


def loop(config, copies, chunk_length=64):
    log, clock = MemoryLog(), SystemClock()
    reader = log.reader()
    granted = EntryId(1, 1 << 40)
    said = {0: SlotNotice(granted=granted)}
    epoch = reader.claim_epoch()
    reader.publish(Notice(epoch=epoch, tick=1, slots={}))
    writer = SlotWriter(
        log.slot_log(0),
        slot=0,
        claim=Claim(who="benchmark", spec_digest="", num_copies=copies),
        spool=SpoolSetup(spool_chunks=64, retain_bytes=1 << 30),
        clock=clock,
    )
    setup = ActorSetup(
        env=config,
        actor=ActorConfig(copies=copies),
        chunk_length=chunk_length,
        slot=0,
        seed=0,
        who="benchmark",
    )
    seams = Seams(writer=writer, channel=MemoryChannel(), control=MemoryControl(), clock=clock)
    actor = Actor(setup, seams, lambda spec: PolicyAgent(MODEL, spec))
    assert actor.tick() == Progress("claimed")
    reader.publish(Notice(epoch=epoch, tick=2, slots=said))

    def steps():
        """So far, of every copy."""
        return actor.numbers()["actor/agent_steps"] / copies

    def tick():
        before = steps()
        while steps() == before:
            actor.tick(STRIDE_S)
        return steps() - before

    return tick


def handoff_us(copies, repeats=3000):
    """Microseconds that a batched step waits for the thread, beyond the work."""
    worker, calls = Worker(), [int] * copies
    start_s = time.perf_counter()
    for _ in range(repeats):
        worker.run(calls, deadline_s=60, on_late=print, while_waiting=int)
    spent_s = time.perf_counter() - start_s
    worker.close()
    return spent_s / repeats * 1e6


def measure(tick, copies, seconds):
    """Agent steps per second; a tick is one step of every copy, or says how many it was."""
    count, start_s = 0, time.perf_counter()
    while time.perf_counter() < start_s + seconds:
        count += tick() or 1
    return copies * count / (time.perf_counter() - start_s)


def medians(parts, copies, seconds):
    """Agent steps per second of each part, measured in turns."""
    rounds = [
        {name: measure(tick, copies, seconds) for name, tick in parts.items()}
        for _ in range(ROUNDS)
    ]
    return {
        f"{name}_agent_steps_per_s": round(statistics.median(each[name] for each in rounds))
        for name in parts
    }


def compare(config, copies, seconds):
    """Copies in a thread and in processes of their own."""
    parts = {build.__name__: build(config, copies) for build in (guard, isolated)}
    result = medians(parts, copies, seconds)
    thread, process = result.values()
    return {"env": config.name, "copies": copies, **result, "ratio": round(process / thread, 3)}


def whole(config, copies, seconds):
    """Every part, each adding to the one before."""
    parts = {
        build.__name__: build(config, copies) for build in (simulator, adapter, guard, policy, loop)
    }
    result = medians(parts, copies, seconds)
    handoff = statistics.median(handoff_us(copies) for _ in range(ROUNDS))
    return {"env": config.name, "copies": copies, **result, "handoff_us": round(handoff, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--env", default="dm_control/cartpole-swingup")
    parser.add_argument("--copies", type=int, nargs="+", default=[8])
    parser.add_argument("--isolate", action="store_true", help="threads against processes")
    parser.add_argument("--seconds", type=float, default=1.0, help="per part and round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = EnvConfig(name=options.env)
    for copies in options.copies:
        if options.isolate:
            result = compare(config, copies, options.seconds)
        else:
            result = whole(config, copies, options.seconds)
        if options.json:
            print(json.dumps(result))
            continue
        for name, value in result.items():
            print(f"{name:<32}{value:>30}")


if __name__ == "__main__":
    main()
