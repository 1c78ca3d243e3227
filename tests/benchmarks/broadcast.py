"""Publish -> adopted by all of N actors, over a real server, with and without the machine's cache.

Run: ``python -m tests.benchmarks.broadcast [--json] [--actors 16] [--publishes 20]``. Each actor is
a process with a `RedisChannel`, a `Refresher` and a `PolicyAgent`, which stands at a step boundary
every 5 ms and adopts what it finds; it does not act. Policies are published at random moments, so
that no actor's clock is in step with them.

- ``all_p50_s``, ``all_p95_s``: from before `publish` until the last actor has loaded the weights.
- ``one_p50_s``: the same for each actor on its own.
- ``publish_s``, ``fetch_s``, ``load_s``: medians of `channel.publish`, `newer_than`, `agent.load`.
- ``cpu_s``: median processor time of one adoption, from poll to loaded.
- ``bytes_out_per_weights``: the server's network output, manifests and polls included, per byte of
  published weights.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from actors.config import ActorConfig
from actors.refresh import Refresher
from deploy.presets import SIZES
from deploy.redis_server import EmbeddedRedis
from system.channel.node_cache import NodeCache
from system.channel.redis import RedisChannel
from system.clock import SystemClock
from system.models.agent import PolicyAgent, acting_modules
from system.models.weights import to_bytes
from system.specs import ActionSpec, ArraySpec, EnvSpec
from system.types import Snapshot, TimeStep
from tests.benchmarks.replay import net_bytes

STEP_S = 0.005
"""Time between two step boundaries of an actor [s]."""
SPEC = EnvSpec(
    name="benchmark",
    observation={"position": ArraySpec(shape=(17,))},
    action=ActionSpec(kind="continuous", size=6),
)
NOWHERE = TimeStep(
    observation={}, reward=np.zeros(1, np.float32), is_first=np.zeros(1, bool),
    is_last=np.zeros(1, bool), is_terminal=np.zeros(1, bool),
)  # fmt: skip


class Timed:
    """Notes how long one method took when it last did something."""

    def __init__(self, call):
        self._call, self.spent_s = call, 0.0

    def __call__(self, *arguments):
        start_s = time.monotonic()
        result = self._call(*arguments)
        if result is not None or self.spent_s == 0.0:
            self.spent_s = time.monotonic() - start_s
        return result


def act(number):
    """One actor: a case a line on stdin; a line on stdout for each policy adopted."""
    torch.set_num_threads(1)
    clock = SystemClock()
    for line in sys.stdin:
        case = json.loads(line)
        agent = PolicyAgent(SIZES[case["size"]], SPEC)
        cache = NodeCache(Path(case["cache"])) if case["cache"] else None
        channel = RedisChannel(case["url"], case["run"], cache=cache)
        channel.newer_than = fetch = Timed(channel.newer_than)
        load = agent.load

        def loaded(snapshot, load=load):
            start_s = time.monotonic()
            load(snapshot)
            loaded.spent_s = time.monotonic() - start_s

        agent.load = loaded
        refresh = Refresher(
            channel, clock, refresh_s=case["refresh_s"], seed=number, on_event=complain
        )
        print(json.dumps("ready"), flush=True)
        while agent.version < case["publishes"]:
            cpu_s = time.process_time()
            if refresh(agent, NOWHERE):
                spent = [fetch.spent_s, loaded.spent_s, time.process_time() - cpu_s]
                print(json.dumps([agent.version, time.monotonic(), *spent]), flush=True)
            time.sleep(STEP_S)
        channel.close()


def complain(kind, text):
    raise SystemExit(f"{kind}: {text}")


def measure(actors, server, case, folder):
    """One case: publishes, waits until everybody has adopted, and does it again."""
    run = f"{case['size']}-{case['refresh_s']}-{case['cache']}"
    cache = str(folder / f"cache-{run}") if case["cache"] else ""
    order = {**case, "url": server.url, "run": run, "cache": cache}
    for actor in actors:
        tell(actor, order)
    for actor in actors:
        assert hear(actor) == "ready"
    agent = PolicyAgent(SIZES[case["size"]], SPEC)
    modules = acting_modules(agent.world_model, agent.policy)
    parameter = next(agent.policy.parameters())
    channel, dice = RedisChannel(server.url, run), random.Random(0)
    before, rows, published = net_bytes(server)[1], [], []
    for version in range(1, case["publishes"] + 1):
        with torch.no_grad():
            parameter.add_(1e-3)
        weights = to_bytes(modules)
        time.sleep(0.1 + dice.random() * case["refresh_s"])
        start_s = time.monotonic()
        channel.publish(
            Snapshot(
                epoch=1, version=version, update=0, agent_steps=0, elapsed_s=0.0,
                model_digest=agent.digest, time_s=0.0, weights=weights,
            )
        )  # fmt: skip
        published.append(time.monotonic() - start_s)
        heard = [hear(actor) for actor in actors]
        assert all(each[0] == version for each in heard)
        rows.append([(adopted_s - start_s, *spent) for _, adopted_s, *spent in heard])
    channel.close()
    sent = (net_bytes(server)[1] - before) / (len(weights) * len(rows))
    return {**case, **figures(np.array(rows), published, sent), "weights_bytes": len(weights)}


def figures(rows, published, sent):
    """Rows [publishes, actors, (adopted, fetch, load, cpu)] -> the figures of one case."""
    adopted = rows[..., 0]
    last = adopted.max(axis=1)
    return {
        "all_p50_s": round(float(np.percentile(last, 50)), 4),
        "all_p95_s": round(float(np.percentile(last, 95)), 4),
        "one_p50_s": round(float(np.median(adopted)), 4),
        "publish_s": round(float(np.median(published)), 4),
        "fetch_s": round(float(np.median(rows[..., 1])), 4),
        "load_s": round(float(np.median(rows[..., 2])), 4),
        "cpu_s": round(float(np.median(rows[..., 3])), 4),
        "bytes_out_per_weights": round(sent, 2),
    }


def tell(actor, message):
    actor.stdin.write(json.dumps(message) + "\n")
    actor.stdin.flush()


def hear(actor):
    return json.loads(actor.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--actors", type=int, default=16)
    parser.add_argument("--publishes", type=int, default=20)
    parser.add_argument("--sizes", nargs="+", default=["1m", "12m"])
    parser.add_argument(
        "--refresh", nargs="+", type=float, default=[ActorConfig().refresh_s, 0.01],
        help="polling intervals: the actual one, and one so short that the rest shows [s]",
    )  # fmt: skip
    parser.add_argument("--act", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.act is not None:
        act(options.act)
        return
    command = [sys.executable, "-m", "tests.benchmarks.broadcast", "--act"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with tempfile.TemporaryDirectory() as name:
        server = EmbeddedRedis(Path(name), max_memory_bytes=1024**3)
        server.start()
        actors = [subprocess.Popen([*command, str(i)], **pipes) for i in range(options.actors)]
        try:
            for case in cases(options):
                show(measure(actors, server, case, Path(name)), options)
        finally:
            for actor in actors:
                actor.stdin.close()
            for actor in actors:
                actor.wait()
            server.stop()


def cases(options):
    """Every combination that is asked for."""
    return [
        {"size": size, "refresh_s": refresh_s, "cache": cache, "publishes": options.publishes}
        for size in options.sizes
        for refresh_s in options.refresh
        for cache in (False, True)
    ]


def show(result, options):
    if options.json:
        print(json.dumps({"actors": options.actors, **result}), flush=True)
        return
    print(
        f"{result['size']:>4} refresh {result['refresh_s']:<5g} s "
        f"{'cache' if result['cache'] else 'plain'}: all adopted p50 {result['all_p50_s']:.3f} s, "
        f"p95 {result['all_p95_s']:.3f} s; one {result['one_p50_s']:.3f} s; publish "
        f"{result['publish_s']:.4f}, fetch {result['fetch_s']:.4f}, load {result['load_s']:.4f}, "
        f"cpu {result['cpu_s']:.4f} s; "
        f"{result['bytes_out_per_weights']:.2f} bytes out per byte",
        flush=True,
    )


if __name__ == "__main__":
    main()
