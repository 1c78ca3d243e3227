"""A learner as a process of its own: `python -m tests.chaos.learner_process FOLDER URL RUN`.

It says `ready`, waits for a line, says `epoch N`, and learns until SIGTERM (`closed`) or `fenced`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from learner.config import LearnerConfig
from learner.learner import Learner, LearnerSeams, LearnerSetup
from system.channel.redis import RedisChannel
from system.clock import SystemClock
from system.config import ReplayConfig
from system.control.redis import RedisControl
from system.errors import Fenced
from system.log.redis import RedisLog
from system.tick import Wait
from tests.learner.fleets_for_tests import MODEL, SPEC

CONFIG = LearnerConfig(
    batch_size=4, batch_length=8, horizon=3, warmup_updates=2, device="cpu",
    publish_s=0.05, checkpoint_s=0.1, commit_s=0.02, metrics_s=0.05,
    dream_report_s=0,
)  # fmt: skip
REPLAY = ReplayConfig(
    ratio=2, chunk_length=4, min_steps=64, capacity_bytes=20_000, segment_bytes=4096, log_bytes=2
)


def main(folder: str, url: str, run: str) -> None:
    """Until it is stopped or fenced."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    clock = SystemClock()
    setup = LearnerSetup(
        config=CONFIG, replay=REPLAY, model=MODEL, folder=Path(folder), frames=0, seed=3,
        who=f"learner:{run}",
    )  # fmt: skip
    seams = LearnerSeams(
        reader=RedisLog(url=url, run=run).reader(),
        channel=RedisChannel(url, run),
        control=RedisControl(url, run),
        clock=clock,
    )
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        learner = Learner(setup, seams, SPEC)
        print(f"epoch {learner.standing().epoch}", flush=True)
        while not stopping:
            turn = learner.tick()
            if isinstance(turn, Wait):
                clock.sleep(turn.seconds)
        learner.close()
    except Fenced as error:
        print(f"fenced {error}", flush=True)
        return
    print("closed", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
