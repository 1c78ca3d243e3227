"""What the page says of a run: rows, progress, why it is slow."""

from __future__ import annotations

from dataclasses import asdict, replace

from deploy.dashboard.moment import Moment, now_of
from deploy.dashboard.source import Glance
from deploy.exporter.merge import Look, RunMerge
from deploy.reconcile import DRAINED_BY_HAND
from system.control.protocol import Desired, Event, Lease, ProcessMetrics, Recorded
from tests.deploy.configs_for_tests import small

NOW_S = 1000.0


def lease(role, slot=0, doing="acting", time_s=NOW_S):
    return Lease(role=role, slot=slot, incarnation=1, who="rig:7:ab", doing=doing, time_s=time_s)


def told(role, slot=0, **values):
    values = {name.replace("__", "/"): value for name, value in values.items()}
    return ProcessMetrics(role=role, slot=slot, time_s=NOW_S, values=values)


def now(*looks, numbers=None, rates=None, scalable=True, alive=True, trouble="", **changes):
    """The event `now` after some looks, a second apart."""
    merge = RunMerge()
    for second, look in enumerate(looks):
        merge.take(look, NOW_S + second)
    glance = Glance(
        alive=alive, look=looks[-1] if looks else None, numbers=numbers or {}, **changes
    )
    return now_of(
        Moment(
            run_id="small-1", name="small", config=asdict(small(frames=1000)), glance=glance,
            view=merge.view(), rates=rates or {}, evaluations=[],
            events=[one.event for look in looks for one in look.events],
            time_s=NOW_S, trouble=trouble, scalable=scalable,
        )
    )  # fmt: skip


def rows(said):
    return {(row["role"], row["slot"]): row for row in said["fleet"]["rows"]}


def test_a_row_for_everybody_who_lives_and_everybody_who_is_missing():
    pending = Event(time_s=NOW_S, role="actor", slot=2, kind="actor_pending", text="no CPU\nat x")
    look = Look(
        desired=Desired(generation=1, actors=4, held=[3]),
        leases=[lease("supervisor"), lease("learner", doing="updated"), lease("actor", 0),
                lease("actor", 1, "starting"), lease("actor", 1000)],
        metrics=[told("actor", 0, actor__policy_version=3.0, actor__policy_age_s=1.5,
                      actor__return_mean=20.0), told("learner", learner__policy_version=4.0)],
    )  # fmt: skip
    look = replace(look, events=[Recorded(cursor="1-0", event=pending)])
    said = now(look, rates={"actor:0": 12.5})
    table = rows(said)
    assert list(table) == [("supervisor", 0), ("learner", 0), ("actor", 0), ("actor", 1),
                           ("actor", 2), ("actor", 3), ("actor", 1000)]  # fmt: skip
    first = table["actor", 0]
    assert (first["host"], first["doing"], first["up"]) == ("rig", "acting", True)
    assert (first["steps_per_s"], first["policy_version"], first["return_mean"]) == (12.5, 3, 20)
    assert (first["policy_age_s"], first["last_seen_s"], first["env"]) == (
        1.5,
        NOW_S,
        "CartPole-v1",
    )
    assert table["learner", 0]["policy_version"] == 4
    assert table["learner", 0]["env"] is None
    missing = table["actor", 2]
    assert (missing["up"], missing["host"], missing["reason"]) == (False, None, "no CPU")
    assert (table["actor", 3]["held"], table["actor", 3]["reason"]) == (True, DRAINED_BY_HAND)
    restartable = {place for place, row in table.items() if row["restartable"]}
    assert restartable == {("actor", slot) for slot in range(4)}
    fleet = said["fleet"]
    assert (fleet["desired"], fleet["running"], fleet["starting"], fleet["pending"]) == (4, 1, 1, 1)


def test_who_died_is_shown_as_down_and_who_was_scaled_away_is_not():
    before = Look(desired=Desired(actors=2),
                  leases=[lease("learner"), lease("actor", 0), lease("actor", 1)])  # fmt: skip
    after = Look(desired=Desired(actors=1), leases=[lease("supervisor")])
    table = rows(now(before, after))
    assert list(table) == [("supervisor", 0), ("learner", 0), ("actor", 0)]
    assert not table["learner", 0]["up"]
    assert table["learner", 0]["last_seen_s"] == NOW_S
    assert not table["actor", 0]["up"]


def test_a_run_of_one_process_has_no_buttons():
    look = Look(desired=Desired(actors=1), leases=[lease("actor", 0)])
    assert not rows(now(look, scalable=False))["actor", 0]["restartable"]


def test_progress_and_what_is_not_known():
    said = now(Look(), numbers={"frames": 250, "updates": 7, "time_s": 50.0}, rates={"frames": 5.0})
    assert said["progress"] == {
        "frames": 250, "frames_limit": 1000, "updates": 7, "elapsed_s": 50, "frames_per_s": 5,
        "updates_per_s": None, "eta_s": 150,
    }  # fmt: skip
    assert now(Look(), numbers={"frames": 250})["progress"]["eta_s"] is None
    ended = now(numbers={"frames": 1000}, rates={"frames": 5.0}, alive=False, ended="finished")
    assert (ended["progress"]["frames_per_s"], ended["progress"]["eta_s"]) == (None, None)
    assert (ended["run"]["phase"], ended["run"]["ended"]) == ("finished", "finished")
    assert (ended["fleet"]["rows"], ended["slow"]["text"]) == ([], "")


def test_the_replay_and_the_ledger():
    numbers = {"frames": 400, "replay/steps": 50.0, "replay/fill": 0.25, "replay/bytes": 9.0,
               "replay/log_bytes": 70.0, "real/steps": 40.0, "dream/steps": 800.0,
               "real/resets": 3.0, "loss/dynamics": 1.5, "time_s": 6.0}  # fmt: skip
    said = now(Look(), numbers=numbers)
    replay, health = said["replay"], said["health"]
    assert (replay["capacity_steps"], replay["segment_bytes"], replay["log_bytes"]) == (200, 9, 70)
    assert replay["arena_bytes"] == 0.25 * 2**22
    assert replay["log_budget_bytes"] == 2**20
    assert (health["real_steps"], health["imagined_steps"], health["imagined_per_real"]) == (
        40, 800, 20,
    )  # fmt: skip
    assert (health["resets"], health["real_s"], health["kl_nats"]) == (3, 6, 1.5)
    assert (health["gap_ratio"], health["gap_alarm"]) == (None, False)
    assert now(Look(), numbers={"frames": 400})["health"]["real_steps"] == 400


def test_why_it_is_slow():
    look = Look(metrics=[
        told("actor", 0, actor__share_env=0.2, actor__share_wait=0.8),
        told("actor", 1, actor__share_env=0.4, actor__share_wait=0.6),
        told("learner", learner__share_dream=0.95, learner__share_wait=0.05),
    ])  # fmt: skip
    slow = now(look)["slow"]
    assert [one["activity"] for one in slow["actors"]] == ["wait", "env"]
    assert abs(slow["actors"][0]["share"] - 0.7) < 1e-9
    assert slow["learner"][0] == {"activity": "dream", "share": 0.95}
    assert slow["bottleneck"] == "learner"
    assert "The learner is the limit" in slow["text"]
    assert now(look, trouble="Redis does not answer")["slow"]["bottleneck"] == "redis"
