"""Overriding, reading back and digesting configs; every message a user may meet."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from learner.config import LearnerConfig
from system.config import (
    ModelConfig,
    ReplayConfig,
    digest,
    from_json,
    leaves,
    override,
    parse_value,
    to_json,
)
from system.errors import ConfigError

LEARNER, REPLAY = LearnerConfig(), ReplayConfig(ratio=32.0, chunk_length=16)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    name: str
    seed: int = 0
    limit: int | None = None
    model: ModelConfig
    learner: LearnerConfig = LEARNER
    replay: ReplayConfig = REPLAY


MODEL = ModelConfig(size="nano", deter=16, hidden=8, classes=4, units=8)
WHOLE = Whole(name="a", model=MODEL)


def refused(message):
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize(
    ("assignment", "read", "wanted"),
    [
        ("learner.batch_size=8", lambda c: c.learner.batch_size, 8),
        ("learner.batch_size=8.0", lambda c: c.learner.batch_size, 8),
        ("learner.learning_rate=1e-3", lambda c: c.learner.learning_rate, 1e-3),
        ("learner.learning_rate=1", lambda c: c.learner.learning_rate, 1.0),
        ("learner.gradient=analytic", lambda c: c.learner.gradient, "analytic"),
        ("learner.device=0", lambda c: c.learner.device, "0"),
        ("learner.device=cuda:1", lambda c: c.learner.device, "cuda:1"),
        ("name=b=c", lambda c: c.name, "b=c"),
        ("limit=5", lambda c: c.limit, 5),
        ("replay.ratio=64", lambda c: c.replay.ratio, 64.0),
    ],
)
def test_override(assignment, read, wanted):
    changed = override(WHOLE, assignment)
    assert read(changed) == wanted
    assert type(read(changed)) is type(wanted)
    assert read(WHOLE) != wanted
    assert changed.model == WHOLE.model


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("learner.batch_size", "--set 'learner.batch_size' needs the form section.key=value"),
        (
            "learner.batchsize=8",
            "unknown setting 'learner.batchsize'; did you mean 'learner.batch_size'?",
        ),
        ("lerner.batch_size=8", "unknown setting 'lerner.batch_size'; "
         "did you mean 'learner.batch_size'?"),
        ("batch_size=8", "unknown setting 'batch_size'; did you mean 'learner.batch_size'?"),
        ("sed=8", "unknown setting 'sed'; did you mean 'seed'?"),
        ("seed=many", "seed='many' must be of type int"),
        ("seed=1.5", "seed=1.5 must be of type int"),
        ("seed=true", "seed=True must be of type int"),
        ("limit=x", "limit='x' must be of type int or NoneType"),
        ("learner.learning_rate=fast", "learner.learning_rate='fast' must be of type float"),
        ("learner.learning_rate=true", "learner.learning_rate=True must be of type float"),
        ("learner.gradient=reinforced",
         "learner.gradient='reinforced'; did you mean 'reinforce'?"),
        ("learner.gradient=7", "learner.gradient='7'; known: analytic, auto, mixed, reinforce"),
        ("learner.batch_size=0", "learner.batch_size=0 must be greater than 0"),
        ("learner.torch_threads=100000", "learner.torch_threads=100000 must be at most 1024"),
        ("model.encoder_layers=1e6", "model.encoder_layers=1000000 must be at most 64"),
        ("model.deter=1e12", "model.deter=1000000000000 must be at most 65536"),
        ("learner.clip=NaN", "learner.clip=nan must be a finite number"),
        ("model.deter=17", "model.deter=17 must be a multiple of model.blocks=8"),
        ("model.bins=64", "model.bins=64 must be odd and at least 3: one bin is zero"),
        ("model.classes=256", "model.classes=256 must be at most 255 (stored as bytes)"),
        ("learner.dream_starts=2000", "learner.dream_starts=2000 must lie in 0..1024 "
         "(batch_size * batch_length; 0 means all)"),
        ("replay.ratio=0.5", "replay.ratio=0.5 must be >= 1: every fresh Step is replayed at "
         "least once, or its latent would never be known"),
        ("name.first=x", "unknown setting 'name.first'; 'name' is a value, not a section"),
    ],
)  # fmt: skip
def test_bad_overrides_say_what_is_meant(assignment, message):
    with refused(message):
        override(WHOLE, assignment)


def test_a_section_instead_of_a_value_lists_its_settings():
    with pytest.raises(ConfigError, match="'replay' is a section; set one of: ratio, chunk_length"):
        override(WHOLE, "replay=7")


def test_something_like_nothing_known_lists_what_is():
    with pytest.raises(ConfigError, match=r"unknown setting 'qqqq'; known: learner, "):
        override(WHOLE, "qqqq=1")


@pytest.mark.parametrize("text", ["NaN", "Infinity"])
def test_a_ratio_that_is_no_number_is_refused(text):
    with pytest.raises(ConfigError):
        override(WHOLE, f"replay.ratio={text}")


def test_json_round_trip_through_text():
    changed = override(override(WHOLE, "learner.clip=0.1"), "limit=3")
    assert from_json(Whole, json.loads(json.dumps(to_json(changed)))) == changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sede": 1}, "unknown setting 'sede'; did you mean 'seed'?"),
        ({"learner": {"horizont": 1}}, "unknown setting 'learner.horizont'; "
         "did you mean 'learner.horizon'?"),
        ({"seed": "1"}, "seed='1' must be of type int"),
        ({"learner": {"horizon": 1.5}}, "learner.horizon=1.5 must be of type int"),
        ({"learner": {"horizon": 0}}, "learner.horizon=0 must be greater than 0"),
    ],
)  # fmt: skip
def test_bad_json(change, message):
    with refused(message):
        from_json(Whole, to_json(WHOLE) | change)


def test_a_missing_key_is_named():
    data = to_json(WHOLE)
    del data["model"]["deter"]
    with pytest.raises(ConfigError, match=r"^model\.: .*'deter'"):
        from_json(Whole, data)


@pytest.mark.parametrize("value", [5, None, [1], "x"])
def test_a_value_where_a_section_belongs(value):
    with pytest.raises(ConfigError, match=r"learner.*section"):
        from_json(Whole, to_json(WHOLE) | {"learner": value})


def test_leaves_are_all_dotted_paths():
    found = leaves(WHOLE)
    assert found[:3] == ["name", "seed", "limit"]
    assert {"model.deter", "learner.batch_size", "replay.ratio"} <= set(found)
    assert len(found) == len(set(found))
    assert "model" not in found
    for path in found:
        value = WHOLE
        for name in path.split("."):
            value = getattr(value, name)
        assert not dataclasses.is_dataclass(value)


@pytest.mark.parametrize("path", leaves(WHOLE))
def test_digest_changes_with_any_field(path):
    data = to_json(WHOLE)
    *sections, name = path.split(".")
    inner = data
    for section in sections:
        inner = inner[section]
    other = {
        "gradient": "mixed", "blocks": 4, "classes": 5, "bins": 253, "dream_starts": 3,
        "return_lambda": 0.5, "precision": "bf16", "acting_rate": 0.5, "graph": False,
        "slope_limit": 1.0,
    }.get(name)  # fmt: skip
    if other is None:
        value = inner[name]
        other = {
            str: lambda v: v + "x", type(None): lambda _: 1, int: lambda v: v + 8,
            float: lambda v: v * 2,
        }[type(value)](value)  # fmt: skip
    inner[name] = other
    changed = from_json(Whole, data)
    assert digest(changed) != digest(WHOLE)
    assert len(digest(changed)) == 16
    assert digest(from_json(Whole, to_json(WHOLE))) == digest(WHOLE)


def test_equal_configs_have_equal_digests():
    whole, fraction = (ReplayConfig(ratio=ratio, chunk_length=16) for ratio in (32, 32.0))
    assert whole == fraction
    assert digest(whole) == digest(fraction)


def test_none_is_read():
    assert override(override(WHOLE, "limit=5"), "limit=None") == WHOLE


def test_digest_of_several():
    assert digest(MODEL, WHOLE) != digest(WHOLE, MODEL)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1e5", 1e5), ("true", True), ("True", True), ("None", None), ("null", None),
     ("abc", "abc"), ('"7"', "7"), ("[1, 2]", [1, 2]), ("", ""), ("redis://h:1", "redis://h:1")],
)  # fmt: skip
def test_parse_value(text, value):
    assert parse_value(text) == value


def test_the_order_of_assignments_does_not_matter():
    pair = ["learner.dream_starts=0", "learner.batch_size=2"]
    small = override(WHOLE, "learner.dream_starts=1000")
    assert override(small, *pair) == override(small, *reversed(pair))
