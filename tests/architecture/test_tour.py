"""The README's eight calls: every symbol exists, and a local run makes the calls in that order."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from actors.config import ActorConfig, EnvConfig
from actors.envs.registry import env_spec
from deploy.local import LocalRun
from deploy.presets import laptop
from deploy.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
SYMBOL = re.compile(r"`([a-z_]+(?:/[a-z_]+)*\.py):([A-Za-z_.]+)`")


def tour() -> list[list[str]]:
    """The symbols of each of the eight rows."""
    rows = re.findall(r"^\| (\d) \| .*$", (ROOT / "README.md").read_text(), re.M)
    assert rows == [str(number) for number in range(1, 9)]
    lines = [
        line
        for line in (ROOT / "README.md").read_text().splitlines()
        if re.match(r"\| \d \|", line)
    ]
    return [[f"{path}:{name}" for path, name in SYMBOL.findall(line)] for line in lines]


def resolve(symbol: str) -> Any:
    path, name = symbol.split(":")
    found: Any = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_every_symbol_of_the_tour_can_be_imported() -> None:
    for symbols in tour():
        assert symbols
        for symbol in symbols:
            assert callable(resolve(symbol)), symbol


def test_a_local_run_makes_the_eight_calls_in_order(tmp_path: Path) -> None:
    codes: dict[CodeType, int] = {
        resolve(symbols[0]).__code__: number for number, symbols in enumerate(tour(), 1)
    }
    config = laptop(EnvConfig(name="CartPole-v1"), run="tour")
    config = replace(
        config,
        frames=0,
        actor=ActorConfig(copies=2, refresh_s=0.001),
        learner=replace(config.learner, batch_size=2, dream_starts=0, publish_s=0.001),
        replay=replace(config.replay, min_steps=128, chunk_length=16),
        fleet=replace(config.fleet, actors=1),
    )
    folder = RunFolder.create(tmp_path, config, env_spec(config.env))
    run = LocalRun(folder.record(), folder.path)
    calls: list[int] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code in codes:
            entry_id = frame.f_locals.get("entry_id")
            if entry_id is None or entry_id.sequence > 0:  # sequence 0 claims the slot
                calls.append(codes[frame.f_code])

    adopted = run.actors[0]._loop._agent.version
    sys.setprofile(note)
    try:
        while run.learner.updates < 2:
            run.turn()
        for _ in range(20):
            run.turn()
    finally:
        sys.setprofile(None)
    acting = [call for call in calls if call <= 3]
    assert acting[:2] == [2, 1]  # the first Step is the reset's; from then on 1, 2, 1, 2, ...
    first_append = acting.index(3)
    assert set(acting[:first_append]) == {1, 2}
    learning = [call for call in calls if call >= 4]
    start = learning.index(4)
    assert learning[start : start + 5] == [4, 5, 6, 7, 8]
    assert calls.index(3) < calls.index(4)
    assert run.actors[0]._loop._agent.version > adopted
    run.close()
