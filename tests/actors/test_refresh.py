"""When an actor looks for a newer policy, and which it takes."""

import itertools

import numpy as np
import pytest

from actors.refresh import Refresher, RefreshRule
from system.channel.memory import MemoryChannel
from system.clock import ManualClock
from system.errors import RejectedChunk, Unavailable
from system.specs import ActionSpec, ArraySpec, EnvSpec
from system.types import Snapshot, TimeStep
from tests.actors.agents_for_tests import CountingAgent

SPEC = EnvSpec(
    name="x",
    observation={"vector": ArraySpec(shape=(1,))},
    action=ActionSpec(kind="discrete", size=2),
)


def snapshot(version, *, epoch=1, digest="good", time_s=0.0):
    return Snapshot(
        epoch=epoch,
        version=version,
        update=version,
        agent_steps=0,
        elapsed_s=0.0,
        model_digest=digest,
        time_s=time_s,
        weights=b"",
    )


def step(*is_first):
    """Of as many copies as facts are given; one in the middle of an episode by default."""
    first = np.array(is_first or [False])
    no, zeros = np.zeros_like(first), np.zeros(len(first), np.float32)
    return TimeStep(
        observation={"vector": zeros[:, None]}, reward=zeros,
        is_first=first, is_last=no, is_terminal=no,
    )  # fmt: skip


@pytest.fixture
def parts():
    clock, channel, events = ManualClock(100.0), MemoryChannel(), []
    refresh = Refresher(
        channel, clock, refresh_s=1.0, on_event=lambda *event: events.append(event), seed=0
    )
    return refresh, channel, clock, events, CountingAgent(SPEC)


def test_polls_at_most_every_half_interval_and_at_least_every_interval():
    rule = RefreshRule(1.0, seed=3)
    polled = [i / 100 for i in range(2000) if rule.due(i / 100)]
    pauses = [after - before for before, after in itertools.pairwise(polled)]
    assert 0.5 <= min(pauses) < 0.65
    assert 0.85 < max(pauses) <= 1.01


def test_actors_do_not_poll_together():
    polled = set()
    for seed in range(20):
        rule = RefreshRule(1.0, seed=seed)
        assert rule.due(0.0)
        polled.add(min(i for i in range(1, 200) if rule.due(i / 100)))
    assert len(polled) > 10


def test_adopts_newer_ones_and_tells_their_age(parts):
    refresh, channel, clock, events, agent = parts
    assert not refresh(agent, step())
    assert refresh.age_s is None
    assert "actor/policy_age_s" not in refresh.metrics()
    channel.publish(snapshot(1, time_s=95.0))
    assert not refresh(agent, step()), "not due yet"
    clock.sleep(1)
    assert refresh(agent, step())
    assert (agent.epoch, agent.version) == (1, 1)
    assert refresh.age_s == 6.0
    clock.sleep(1)
    assert not refresh(agent, step()), "nothing newer"
    assert refresh.metrics()["actor/policy_age_s"] == 7.0
    channel.publish(snapshot(1, epoch=2, time_s=102.0))
    clock.sleep(1)
    assert refresh(agent, step()), "a newer epoch counts from 1 again"
    assert refresh.metrics()["actor/policies_adopted"] == 2
    assert not events


def test_a_wrong_digest_is_refused_once_with_an_event(parts):
    refresh, channel, clock, events, agent = parts
    channel.publish(snapshot(1, digest="bad"))
    for _ in range(5):
        assert not refresh(agent, step())
        clock.sleep(1)
    assert [kind for kind, _ in events] == ["policy_refused"]
    assert "bad" in events[0][1]
    channel.publish(snapshot(2))
    assert refresh(agent, step())
    assert agent.version == 2
    assert refresh.metrics()["actor/policies_refused"] == 1


def test_an_unreachable_channel_is_survived(parts, monkeypatch):
    refresh, channel, clock, events, agent = parts
    channel.publish(snapshot(1))

    def fail(epoch, version):
        raise Unavailable("no route")

    with monkeypatch.context() as patch:
        patch.setattr(channel, "newer_than", fail)
        for _ in range(3):
            assert not refresh(agent, step())
            clock.sleep(1)
    assert refresh(agent, step())
    assert refresh.metrics()["actor/policy_polls_failed"] == 3
    assert not events


def test_corrupt_bytes_are_told_once_and_tried_again(parts, monkeypatch):
    refresh, channel, clock, events, agent = parts
    channel.publish(snapshot(1))

    def fail(epoch, version):
        raise RejectedChunk("checksum", "differs")

    with monkeypatch.context() as patch:
        patch.setattr(channel, "newer_than", fail)
        for _ in range(3):
            assert not refresh(agent, step())
            clock.sleep(1)
    assert [kind for kind, _ in events] == ["policy_corrupt"]
    assert refresh(agent, step())


@pytest.fixture
def robot():
    clock, channel, events = ManualClock(100.0), MemoryChannel(name="policy:safe"), []
    refresh = Refresher(
        channel, clock, refresh_s=1.0, follow="safe",
        on_event=lambda *event: events.append(event), seed=0,
    )  # fmt: skip
    return refresh, channel, clock, events, CountingAgent(SPEC)


def test_a_robot_waits_for_a_safe_policy_and_says_so_once(robot):
    refresh, channel, clock, events, agent = robot
    for _ in range(3):
        assert not refresh.ready(agent)
        clock.sleep(1)
    assert [kind for kind, _ in events] == ["policy_awaited"]
    channel.publish(snapshot(9))
    assert refresh.ready(agent)
    assert agent.version == 9
    assert refresh.ready(agent), "without another look"


def test_a_simulated_actor_is_ready_at_once(parts):
    refresh, _, _, _, agent = parts
    assert refresh.ready(agent)


def test_a_robot_changes_its_policy_only_between_episodes(robot):
    refresh, channel, clock, _, agent = robot
    channel.publish(snapshot(9))
    assert refresh.ready(agent)
    channel.publish(snapshot(5, epoch=2))
    for _ in range(5):
        clock.sleep(1)
        assert not refresh(agent, step(False))
        assert not refresh(agent, step(True, False)), "one of the copies is in the middle"
    assert refresh(agent, step(True))
    assert (agent.epoch, agent.version) == (2, 5), "a rollback: an older version, promoted later"
