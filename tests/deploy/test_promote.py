"""Which policies become safe: the rule, the promoter, and the two commands."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from deploy.cli import main
from deploy.config import EvaluationConfig
from deploy.local import LocalRun
from deploy.place import RedisUrls, redis_place
from deploy.promote import T_95, Promoter, judge, put_safe, unfit
from deploy.promote_command import the_one_before
from deploy.registry import Registry, RunEntry
from deploy.run_folder import RunFolder
from system.channel.memory import MemoryChannel
from system.channel.protocol import SAFE
from system.clock import ManualClock
from system.errors import ConfigError, Unavailable
from system.models.agent import PolicyAgent, acting_modules
from system.models.weights import to_bytes
from system.types import Snapshot
from tests.deploy.configs_for_tests import SPEC, small

AGENT = PolicyAgent(small().model, SPEC)
SCORES = st.floats(-1e3, 1e3)
episodes = st.lists(st.tuples(SCORES, SCORES), min_size=2, max_size=40)


def weights(*, poison=None):
    modules = acting_modules(AGENT.world_model, AGENT.policy)
    parameter = next(AGENT.policy.parameters())
    kept = parameter.detach().clone()
    with torch.no_grad():
        if poison is not None:
            parameter.view(-1)[-1] = poison
        data = to_bytes(modules)
        parameter.copy_(kept)
    return data


WEIGHTS = weights()


def snapshot(version, *, epoch=1, **changes):
    made = Snapshot(
        epoch=epoch, version=version, update=version, agent_steps=0, elapsed_s=0.0,
        model_digest=AGENT.digest, time_s=0.0, weights=WEIGHTS,
    )  # fmt: skip
    return replace(made, **changes)


def test_the_quantiles_are_students():
    """Each leaves 5 % of the density above it, by Simpson's rule."""
    for freedom, quantile in enumerate(T_95, start=1):
        log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
        scale = math.exp(log_scale) / math.sqrt(freedom * math.pi)
        t = np.linspace(0, quantile, 2001)
        density = scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2)
        simpson = density[0] + density[-1] + 4 * density[1::2].sum() + 2 * density[2:-1:2].sum()
        assert 0.5 + simpson * (t[1] - t[0]) / 3 == pytest.approx(0.95, abs=1e-4)


@given(episodes, st.floats(0, 1000))
def test_the_rule_is_the_formula(played, margin):
    ours, theirs = zip(*played, strict=True)
    pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
    error = statistics.stdev(pairs) / len(pairs) ** 0.5
    least = statistics.mean(pairs) - T_95[min(len(pairs) - 2, 29)] * error
    if abs(least + margin) > 1e-6:
        assert judge(ours, theirs, margin=margin).promote == (least >= -margin)


@pytest.mark.parametrize(
    ("ours", "theirs", "margin", "promote"),
    [
        ([1.0], None, 0, True),
        ([1.0, float("nan")], None, 0, False),
        ([5.0, 5.0], [5.0, 5.0], 0, True),
        ([6.0, 7.0, 6.0], [5.0, 6.0, 5.0], 0, True),
        ([9.0, 2.0, 4.0], [1.0, 5.0, 3.0], 0, False),
        ([4.0, 5.0, 4.0], [5.0, 6.0, 5.0], 0, False),
        ([4.0, 5.0, 4.0], [5.0, 6.0, 5.0], 1, True),
        ([9.0], [1.0], 0, False),
    ],
)
def test_the_rule_by_example(ours, theirs, margin, promote):
    assert judge(ours, theirs, margin=margin).promote == promote


def test_pairs_tell_what_means_cannot():
    """Seeds differ more than policies do: only the differences show which is better."""
    luck = np.random.default_rng(0).normal(500, 100, 10)
    better = luck + 5 + np.random.default_rng(1).normal(0, 2, 10)
    assert judge(list(better), list(luck), margin=0).promote
    assert not judge(list(better), list(luck[::-1]), margin=0).promote


def test_what_no_robot_may_run():
    assert unfit(snapshot(1), AGENT.digest) is None
    assert "this run's is other" in unfit(snapshot(1), "other")
    assert "not safetensors" in unfit(snapshot(1, weights=b"x" * 99), AGENT.digest)
    for poison in (math.nan, math.inf):
        assert "is not finite" in unfit(snapshot(1, weights=weights(poison=poison)), AGENT.digest)


class Bench:
    """A promoter whose policies score what they are told to."""

    def __init__(self, margin=0.0):
        self.safe, self.clock, self.events = MemoryChannel(name=SAFE), ManualClock(1000.0), []
        self.scores = {}
        self.promoter = self.new_promoter(margin)

    def new_promoter(self, margin=0.0):
        return Promoter(
            self.safe, self.clock, model_digest=AGENT.digest, margin=margin,
            on_event=lambda *event: self.events.append(event),
        )  # fmt: skip

    def consider(self, version, *scores, **changes):
        self.scores[version] = scores
        policy = snapshot(version, **changes)
        self.promoter.consider(policy, scores, lambda each: self.scores[each.version])
        return self.events[-1]

    def tend(self):
        self.clock.sleep(10)
        self.promoter.tend()


def test_the_promoter_moves_only_to_what_is_not_worse():
    bench = Bench()
    assert bench.consider(1, 5.0, 6.0) == ("promoted", "policy 1: the first one, return 5.5")
    kind, text = bench.consider(2, 4.0, 5.0)
    assert kind == "not_promoted"
    assert text.startswith(
        "policy 2: return 4.5, the safe one's 5.5; difference -1.0 +- 0.0 over 2"
    )
    assert bench.consider(3, 7.0, 8.0)[0] == "promoted"
    assert [version for _, version in bench.safe.kept()] == [3, 1]
    assert bench.safe.newest_version()[0] > 1000
    assert "already" in bench.consider(3, 9.0, 9.0)[1]


def test_the_margin_lets_a_little_worse_pass():
    bench = Bench(margin=1.5)
    bench.consider(1, 5.0, 6.0)
    assert bench.consider(2, 4.0, 5.0)[0] == "promoted"


def test_the_promoter_refuses_what_cannot_be_run():
    bench = Bench()
    assert bench.consider(1, 5.0, 6.0, weights=weights(poison=math.nan))[0] == "not_promoted"
    assert bench.consider(1, 5.0, 6.0, model_digest="other")[0] == "not_promoted"
    assert bench.safe.kept() == []


def test_a_rollback_by_hand_during_the_comparison_stands():
    bench = Bench()
    bench.consider(1, 5.0, 6.0)
    bench.consider(2, 6.0, 7.0)

    def play(incumbent):
        put_safe(bench.safe, snapshot(1), after=bench.safe.newest_version(), now_s=0)
        return (6.0, 7.0)

    bench.promoter.consider(snapshot(3), (9.0, 9.5), play)
    assert bench.events[-1][0] == "not_promoted"
    assert [version for _, version in bench.safe.kept()] == [1, 2, 1]


def test_what_a_wiped_store_forgot_is_published_again_and_newer():
    bench = Bench()
    bench.tend()
    bench.consider(1, 5.0, 6.0)
    before = bench.safe.newest_version()
    bench.safe.wipe()
    assert "forgotten" in bench.consider(2, 1.0, 1.0)[1]
    bench.tend()
    assert bench.events[-1][0] == "safe_restored"
    assert bench.safe.newest_version() > before
    assert bench.safe.newest_version()[1] == 1


def test_what_was_promoted_by_hand_is_remembered_too():
    bench = Bench()
    put_safe(bench.safe, snapshot(4), after=(0, 0), now_s=2000)
    bench.promoter = bench.new_promoter()
    bench.tend()
    bench.safe.wipe()
    bench.tend()
    assert bench.safe.newest_version() == (2001, 4)


def test_an_unreachable_store_promotes_nothing(monkeypatch):
    bench = Bench()

    def fail(*_, **__):
        raise Unavailable("no route")

    monkeypatch.setattr(bench.safe, "publish", fail)
    assert bench.consider(1, 5.0, 6.0) == ("not_promoted", "policy 1: no route")


@pytest.mark.parametrize(
    ("versions", "before"),
    [("", None), ("5", None), ("35", 3), ("359", 5), ("3595", 3), ("35953", None), ("359539", 3),
     ("3595395", 9), ("2359", 5)],
)  # fmt: skip
def test_the_one_before(versions, before):
    kept = [(number, int(version)) for number, version in enumerate(versions, start=1)]
    found = the_one_before(kept[::-1])
    assert (None if found is None else found[1]) == before
    assert found is None or found in kept


def test_promotion_needs_episodes_to_compare():
    with pytest.raises(ConfigError, match=r"evaluation\.episodes=1 cannot be compared"):
        EvaluationConfig(promote=True, episodes=1)
    with pytest.raises(ConfigError, match=r"evaluation\.promote_margin=-1"):
        EvaluationConfig(promote_margin=-1)


def test_a_training_run_promotes_by_itself(tmp_path):
    config = small()
    config = replace(
        config, evaluation=replace(config.evaluation, promote=True, promote_margin=1e6)
    )
    folder = RunFolder.create(tmp_path, config, SPEC)
    run = LocalRun(folder.record(), folder.path)
    while not run.finished:
        run.turn()
    run.close()
    evaluated = [
        line["eval/policy_version"] for line in folder.metrics() if "eval/length_mean" in line
    ]
    promoted = [version for _, version in run.place.safe.kept()][::-1]
    assert promoted == sorted(set(map(int, evaluated)))[-5:]
    events = [event for event in run.place.control.events() if event.kind == "promoted"]
    assert len(events) == len(set(evaluated))
    assert all("over 2 pairs" in event.text or "over 3 pairs" in event.text for event in events[1:])


@pytest.fixture
def operated(tmp_path, monkeypatch, redis_server, run_name):
    """A registered run that has broadcast policies 3, 4 and 5; commands know only the URL."""
    folder = RunFolder.create(tmp_path, replace(small(), run=run_name), SPEC)
    registry = Registry(redis_server.url)
    registry.put(RunEntry.of(folder))
    place = redis_place(RedisUrls(control=redis_server.url), folder.record().run_id)
    for version in (3, 4, 5):
        place.channel.publish(snapshot(version))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    yield place, run_name, redis_server.url
    registry.remove(folder.record().run_id)


def command(capsys, words, run, url):
    code = main([*words.split(), "--run", run, "--redis", url])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_promote_and_rollback_by_hand(capsys, operated):
    place, *where = operated
    assert command(capsys, "promote --version 3", *where) == (
        0, f"policy 3 is safe now (the first one); robots of run {where[0]} adopt it before their "
        "next episode\n",
    )  # fmt: skip
    assert "policy 5 is safe now (was 3)" in command(capsys, "promote", *where)[1]
    assert "policy 5 of run" in command(capsys, "promote", *where)[1]
    high = place.safe.newest_version()
    assert "policy 3 is safe now (was 5)" in command(capsys, "rollback", *where)[1]
    safe = place.safe.newer_than(*high)
    assert (safe.version, safe.weights) == (3, WEIGHTS)
    code, text = command(capsys, "rollback", *where)
    assert code == 2
    assert "nothing was safe before policy 3" in text
    assert "safe policies kept: 3, 5" in text
    kinds = [(event.role, event.kind) for event in place.control.events()]
    assert kinds == [("operator", "promoted")] * 2 + [("operator", "rolled_back")]


def test_what_cannot_be_promoted_is_named(capsys, operated):
    place, *where = operated
    code, text = command(capsys, "promote --version 2", *where)
    assert (code, "kept are 3, 4, 5 and, of the safe ones, none" in text) == (2, True)
    code, text = command(capsys, "rollback", *where)
    assert (code, "is safe yet; make one: dreamfleet promote" in text) == (2, True)
    place.channel.publish(snapshot(6, weights=weights(poison=math.nan)))
    code, text = command(capsys, "promote", *where)
    assert (code, "stays unsafe: 'policy." in text) == (2, True)
    assert place.safe.kept() == []


def test_a_version_only_the_safe_ones_still_hold(capsys, operated):
    place, *where = operated
    command(capsys, "promote --version 3", *where)
    for version in (6, 7, 8):
        place.channel.publish(snapshot(version))
    command(capsys, "promote", *where)
    assert "policy 3 is safe now (was 8)" in command(capsys, "promote --version 3", *where)[1]
