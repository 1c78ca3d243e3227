"""The loop with the real writer over a log in memory."""

import inspect
import itertools

import numpy as np
import pytest

from actors import loop
from system.errors import ConfigError, EnvironmentFault, Fenced, Unavailable
from system.log.memory import MemoryLog
from system.tick import Progress, Wait
from tests.actors.fleet_for_tests import SLOT, Fleet
from tests.actors.test_refresh import snapshot
from tests.envs_for_tests import PLANS, PREFIX, Plan


@pytest.fixture
def fleet():
    made = []

    def build(**args):
        made.append(Fleet(**args))
        return made[-1]

    yield build
    for each in made:
        each.actor.close()


def test_the_loop_fits_one_screen():
    assert len(inspect.getsource(loop).splitlines()) <= 80


def test_waits_for_a_learner_then_claims_then_acts(fleet):
    one = fleet()
    assert one.turn(2) == ["learner", "learner"]
    one.grant(1000, incarnation=0)
    assert one.turn(1) == ["claimed"]
    assert set(one.turn(5)) == {"acted"}
    assert one.control.leases()[0].doing == "starting"


def test_every_step_arrives_in_order(fleet):
    one = fleet()
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(1000)
    assert set(one.turn(101)) == {"acted"}
    one.drain()
    chunks = one.stored()
    assert [chunk.sequence for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert {chunk.spec_digest for chunk in chunks} == {one.actor.env.spec.digest}
    for copy in range(2):
        mine = [chunk for chunk in chunks if chunk.copy == copy]
        assert sum(chunk.num_steps for chunk in mine) == 101
        is_first = np.concatenate([chunk.fields["is_first"] for chunk in mine])
        is_last = np.concatenate([chunk.fields["is_last"] for chunk in mine])
        assert is_first[0]
        assert np.array_equal(is_first[1:], is_last[:-1])
        # The agent's latent counts the steps of the episode: 1 where an episode starts.
        row = 0
        for chunk in mine:
            assert (chunk.latent["deter"][0] == 1) == is_first[row]
            row += chunk.num_steps


def test_pauses_without_credit_and_goes_on_with_it(fleet):
    one = fleet(spool_chunks=2)
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(3)
    assert one.turn(60)[-5:] == ["credit"] * 5
    assert len(one.stored()) == 3
    assert one.control.leases()[0].doing == "waiting"
    one.grant(6)
    outcomes = one.turn(60)
    assert "acted" in outcomes
    assert outcomes[-1] == "credit"
    assert len(one.stored()) == 6


def test_pauses_when_too_much_is_not_durable(fleet):
    one = fleet(spool_chunks=4, retain_bytes=600)
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(10_000)
    assert one.turn(60)[-3:] == ["durable"] * 3
    assert not one.actor.settled
    one.grant(10_000, durable=len(one.stored()))
    assert "acted" in one.turn(5)


def test_a_drain_larger_than_the_spool(fleet):
    one = fleet(spool_chunks=1)
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(1)
    one.turn(40)
    before = one.actor.drain()
    assert before == Wait("credit", before.seconds)
    one.grant(100)
    one.drain()
    chunks = one.stored()
    assert {chunk.copy for chunk in chunks if chunk.flags.get("partial")} <= {0, 1}
    assert [chunk.sequence for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert not one.actor.settled
    one.grant(100, durable=len(chunks))
    one.drain()
    one.clock.sleep(1)
    one.actor.drain()
    assert one.actor.settled


def test_a_drain_before_the_claim_has_nothing_to_send(fleet):
    one = fleet()
    assert one.actor.drain() == Progress("drained")
    assert one.actor.settled


def test_acts_at_first_with_random_weights_then_adopts(fleet):
    one = fleet()
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(1000)
    one.turn(6)
    one.channel.publish(snapshot(7, time_s=one.clock.wall()))
    one.turn(60)
    one.drain()
    versions = [(each.policy_version_min, each.policy_version_max) for each in one.stored()]
    assert versions[0] == (0, 0)
    assert versions[-1] == (7, 7)
    assert all(after >= before for before, after in itertools.pairwise(versions))


def test_a_robot_holds_still_until_a_policy_is_safe_and_changes_it_between_episodes(
    fleet, monkeypatch
):
    one, acts = fleet(copies=1, follow="safe"), []
    act = one.agent.act

    def noted(time_step, carry, *, deterministic):
        acts.append((one.agent.version, bool(time_step.is_first[0])))
        return act(time_step, carry, deterministic=deterministic)

    monkeypatch.setattr(one.agent, "act", noted)
    one.grant(0, incarnation=0)
    assert set(one.turn(40)) == {"policy"}
    assert [event.kind for event in one.control.events()] == ["policy_awaited"]
    one.channel.publish(snapshot(7))
    one.turn(20)
    one.grant(1000)
    one.turn(33)
    one.channel.publish(snapshot(5, epoch=2))
    one.turn(100)
    changed = [i for i in range(1, len(acts)) if acts[i][0] != acts[i - 1][0]]
    assert [acts[0][0], *(acts[i][0] for i in changed)] == [7, 5]
    assert all(acts[i][1] for i in changed), "only a first Step may be another policy's"


def test_copies_cannot_follow_what_changes_between_episodes(fleet):
    with pytest.raises(ConfigError, match=r"actor\.copies=2 cannot follow the safe policy"):
        fleet(copies=2, follow="safe")


def test_a_newer_incarnation_fences(fleet):
    log = MemoryLog()
    one = fleet(log=log)
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(1000)
    one.turn(10)
    other = fleet(log=log)
    assert other.actor.tick() == Progress("claimed")
    with pytest.raises(Fenced):
        one.turn(100)


def test_a_restarted_actor_does_not_repeat_its_first_episodes(fleet):
    log, starts = MemoryLog(), []
    for _ in range(2):
        one = fleet(log=log)
        if not starts:
            one.grant(0, incarnation=0)
        one.turn(1)
        starts.append(one.actor._loop._time_step.observation["vector"])
    assert not np.array_equal(starts[0], starts[1])


def test_an_outage_loses_nothing(fleet):
    one = fleet(spool_chunks=3)
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(1000)
    one.turn(20)
    one.log.unavailable = True
    outcomes = one.turn(40)
    assert outcomes[-1] == "redis"
    one.log.unavailable = False
    assert "acted" in one.turn(60)
    one.drain()
    chunks = one.stored()
    assert [chunk.sequence for chunk in chunks] == list(range(1, len(chunks) + 1))


def test_faults_are_told_and_the_cut_episode_ends(fleet):
    PLANS["loop"] = Plan({(1, 6): "raise", (0, 11): "nan"})
    one = fleet(name=PREFIX + "Counting-v0", plan="loop", length=50)
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(1000)
    one.turn(40)
    one.drain()
    kinds = [event.kind for event in one.control.events()]
    assert kinds == ["actor_claimed", "environment_raised", "environment_outside_space"]
    (metrics,) = one.control.metrics()
    assert (metrics.values["actor/faults"], metrics.values["actor/faults_raised"]) == (2, 1)
    chunks = [chunk for chunk in one.stored() if chunk.copy == 1]
    # Copy 1 seals at rows 1, 5, 9: row 5 was sealed when row 6 shows that it was cut.
    is_first = np.concatenate([chunk.fields["is_first"] for chunk in chunks])
    assert np.flatnonzero(is_first).tolist() == [0, 6]


def test_an_environment_that_always_fails_stops_the_loop(fleet):
    PLANS["always"] = Plan({(life, 1): "raise" for life in range(50)})
    one = fleet(name=PREFIX + "Counting-v0", plan="always")
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(1000)
    with pytest.raises(EnvironmentFault, match="5 times in a row"):
        one.turn(20)


def test_the_heartbeat_tells_the_numbers(fleet):
    one = fleet(name="Pendulum-v1")
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(10_000)
    one.channel.publish(snapshot(2, time_s=one.clock.wall() - 5))
    one.turn(450)
    (lease,) = one.control.leases()
    assert (lease.role, lease.slot, lease.incarnation, lease.doing) == ("actor", SLOT, 1, "acting")
    values = one.control.metrics()[0].values
    assert values["actor/policy_version"] == 2
    assert 5 < values["actor/policy_age_s"] < 40
    assert values["actor/agent_steps"] == values["actor/frames"] > 800
    assert values["actor/episodes"] == 4
    assert values["actor/return_mean"] < -100
    assert values["actor/chunks_received"] > 100
    assert values["actor/bytes_sent"] > 1000
    assert values["actor/faults"] == 0
    assert values["actor/share_other"] == pytest.approx(1.0), "only sleeping moves this clock"
    one.actor.close()
    assert one.control.leases() == []


def test_a_long_event_keeps_both_ends(fleet):
    one = fleet()
    one.actor._reporter.event("long", "begin" + "x" * 100_000 + "end")
    one.turn(1)
    text = one.control.events()[0].text
    assert text.startswith("begin")
    assert text.endswith("end")
    assert len(text) < 5000


def test_control_out_of_reach_stops_nothing(fleet, monkeypatch):
    one = fleet()
    one.grant(0, incarnation=0)
    one.turn(1)
    one.grant(10_000)

    def fail(*args, **kwargs):
        raise Unavailable("no route")

    with monkeypatch.context() as patch:
        for name in ("renew", "put_metrics", "record", "release"):
            patch.setattr(one.control, name, fail)
        one.actor._reporter.event("something", "while away")
        assert set(one.turn(60)) == {"acted"}
    one.turn(40)
    assert "something" in [event.kind for event in one.control.events()]
