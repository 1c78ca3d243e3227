from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.presets import SIZES
from system.models.agent import acting_bytes
from system.specs import ActionSpec, ArraySpec, EnvSpec
from tests.benchmarks import capacity
from tests.benchmarks.capacity import FLEETS, PARTS, load, most_actors

TEXT = (Path(__file__).parents[2] / "docs" / "capacity.md").read_text()


def test_the_document_has_the_tables_that_the_model_makes() -> None:
    assert capacity.table() in TEXT
    assert capacity.limits() in TEXT


@pytest.mark.parametrize("size", list(capacity.WEIGHTS_BYTES))
def test_weights_are_those_of_the_preset(size: str) -> None:
    spec = EnvSpec(
        name="x",
        observation={"x": ArraySpec(shape=(5,))},
        action=ActionSpec(kind="continuous", size=1),
    )
    assert acting_bytes(SIZES[size], spec) == pytest.approx(capacity.WEIGHTS_BYTES[size], rel=0.01)


@pytest.mark.parametrize("part", PARTS)
def test_the_greatest_fleet_fills_the_part_and_one_more_is_too_many(part: str) -> None:
    fleet = replace(FLEETS[4], nodes=FLEETS[4].actors)  # a node for each: no rounding
    most = most_actors(fleet, part)
    assert getattr(load(replace(fleet, actors=most, nodes=most)), part) <= 1
    assert getattr(load(replace(fleet, actors=most + 1, nodes=most + 1)), part) > 1


def test_what_is_linear_and_what_is_not() -> None:
    one, two = (load(replace(FLEETS[3], actors=n, nodes=n)) for n in (200, 400))
    assert two.data_server == pytest.approx(2 * one.data_server)
    assert two.broadcast == pytest.approx(2 * one.broadcast)
    assert two.notices > 2.5 * one.notices  # everybody reads everybody's row
    shards = load(replace(FLEETS[3], shards=4))
    assert shards.data_server == pytest.approx(one.data_server / 4)
    assert shards.learner_tail == one.learner_tail
