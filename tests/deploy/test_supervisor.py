"""The supervisor against a fleet that exists only on paper."""

from __future__ import annotations

import pytest

from deploy.fleet import Outcome, SupervisorSeams
from deploy.reconcile import EVALUATOR, LEARNER, Member, Rules
from deploy.supervisor import MAX_FAILURES, Supervisor
from system.clock import ManualClock
from system.control.memory import MemoryControl
from system.control.protocol import Lease
from system.errors import RunError, Unavailable

RULES = Rules(
    lost_after_s=60, start_after_s=180, grace_s=15, backoff_first_s=1, backoff_longest_s=8
)
ACTOR = Member("actor", 0)


def died(text):
    return Outcome(kind="died", text=text)


class PaperFleet:
    def __init__(self):
        self.calls = []
        self.over = {}
        self.lives = {}
        self.pending = "starting"
        self.left_behind = []
        self.asked = []
        self.room = {LEARNER, EVALUATOR, *(Member("actor", slot) for slot in range(4))}

    def adopt(self):
        return self.left_behind

    def start(self, member):
        self.calls.append(("start", member))
        self.lives[member] = self.lives.get(member, 0) + 1

    def drain(self, member, *, final):
        self.calls.append(("final" if final else "drain", member))
        self.over[member] = Outcome(kind="drained")

    def kill(self, member):
        self.calls.append(("kill", member))
        self.over[member] = Outcome(kind="died", text="the actor died")

    def ended(self):
        over, self.over = self.over, {}
        return over

    def placed(self, member):
        return member in self.room

    def why_pending(self, member):
        return self.pending

    def ask_for(self, members):
        self.asked = [str(member) for member in members]


class Server:
    def __init__(self):
        self.up, self.starts, self.restarts, self.refuses = True, 0, 0, False

    def alive(self):
        return self.up

    def start(self):
        self.starts += 1
        if self.refuses:
            raise RunError("it did not start")
        self.up = True

    def restart(self):
        self.restarts += 1
        self.start()


class Case:
    def __init__(self, actors=1):
        self.clock, self.fleet, self.server = ManualClock(), PaperFleet(), Server()
        self.control = MemoryControl(self.clock)
        self.control.change_desired(actors=actors)
        seams = SupervisorSeams(
            fleet=self.fleet, control=self.control, clock=self.clock, server=self.server
        )
        self.seams = seams
        self.supervisor = Supervisor(seams, RULES, who="me", actors=actors)

    def turn(self, seconds=1.0, beating=()):
        self.clock.sleep(seconds)
        for member in beating:
            life = self.fleet.lives[member]
            self.control.renew(
                Lease(
                    role=member.role, slot=member.slot, incarnation=life, who=f"{member}:{life}",
                    doing="", time_s=0.0,
                ),
                ttl_s=10,
            )  # fmt: skip
        self.supervisor.tick()

    def settle(self, beating=(LEARNER, ACTOR, EVALUATOR)):
        self.turn()
        self.turn(beating=beating)
        self.fleet.calls.clear()

    @property
    def kinds(self):
        untold = self.supervisor._presence._untold
        return [event.kind for event in [*self.control.events(), *untold]]


@pytest.fixture
def case():
    return Case()


def test_it_starts_what_is_wished(case):
    case.turn()
    assert case.fleet.calls == [("start", LEARNER), ("start", ACTOR), ("start", EVALUATOR)]


def test_a_dead_actor_is_restarted_and_told_of(case):
    case.settle()
    case.fleet.over[ACTOR] = died("the actor died")
    case.turn(0.1)
    assert case.fleet.calls == []
    case.turn(1.0)
    assert case.fleet.calls == [("start", ACTOR)]
    assert case.kinds == ["actor_died", "actor_restarted"]
    case.turn()
    assert case.control.events()[-1].text == "actor 0 restarted; the actor died"


def test_the_lease_of_the_life_before_is_no_sign_of_life(case):
    case.settle()
    case.fleet.over[ACTOR] = died("the actor died")
    case.turn(0.6)
    case.turn(1.0)
    assert case.supervisor._observed[ACTOR].seen_s is None
    case.turn(1.0, beating=[ACTOR])
    assert case.supervisor._observed[ACTOR].seen_s is not None


def test_silence_is_not_death_while_control_is_away(case, monkeypatch):
    case.settle()

    def unavailable(*_, **__):
        raise Unavailable("Redis is away")

    with monkeypatch.context() as patch:
        patch.setattr(case.control, "leases", unavailable)
        for _ in range(10):
            case.turn(20.0)
    assert case.fleet.calls == []
    for _ in range(4):
        case.turn(20.0, beating=[LEARNER, EVALUATOR])
    assert ("kill", ACTOR) in case.fleet.calls


def test_a_silent_actor_is_killed_once_with_the_reason_where_it_was_stuck(case):
    case.supervisor._stack_of = lambda member: f"stack of {member}"
    case.settle()
    case.fleet.kill = lambda member: case.fleet.calls.append(("kill", member))
    for _ in range(80):
        case.turn(1.0, beating=[LEARNER, EVALUATOR])
    assert case.fleet.calls == [("kill", ACTOR)]
    case.fleet.over[ACTOR] = died("killed")
    case.turn(1.0, beating=[LEARNER, EVALUATOR])
    case.turn(1.0, beating=[LEARNER, EVALUATOR])
    assert case.fleet.calls[-1] == ("start", ACTOR)
    event = next(event for event in case.control.events() if event.kind == "actor_killed")
    assert "no sign of life" in event.text
    assert "stack of actor 0" in event.text


def test_a_kill_that_is_not_confirmed_is_repeated(case):
    case.settle()
    case.fleet.kill = lambda member: case.fleet.calls.append(("kill", member))
    for _ in range(120):
        case.turn(1.0, beating=[LEARNER, EVALUATOR])
    assert 2 <= case.fleet.calls.count(("kill", ACTOR)) <= 4


def test_a_new_supervisor_adopts_what_runs(case):
    newest = Member("actor", 1)
    case.settle()
    case.fleet.left_behind = [LEARNER, ACTOR, newest]
    case.fleet.lives[newest] = 1
    case.supervisor = Supervisor(case.seams, RULES, who="its successor", actors=7)
    for _ in range(3):
        case.turn(beating=[LEARNER, ACTOR])
    assert case.fleet.calls == [("start", EVALUATOR), ("drain", newest)]
    assert case.kinds.count("adopted") == 3


def test_waiting_for_room_is_no_silence(case):
    case.control.change_desired(actors=2)
    waiting = Member("actor", 1)
    case.fleet.room.discard(waiting)
    for _ in range(2000):
        case.turn(1.0, beating=[LEARNER, ACTOR, EVALUATOR] if case.fleet.lives else ())
    assert ("kill", waiting) not in case.fleet.calls
    assert not case.supervisor.failure
    case.fleet.room.add(waiting)
    for _ in range(200):
        case.turn(1.0, beating=[LEARNER, ACTOR, EVALUATOR])
    assert ("kill", waiting) in case.fleet.calls


def test_starting_takes_as_long_as_control_is_away(case, monkeypatch):
    case.turn()
    case.turn()

    def unavailable(*_, **__):
        raise Unavailable("Redis is away")

    case.fleet.calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(case.control, "leases", unavailable)
        for _ in range(600):
            case.turn(1.0)
    assert case.fleet.calls == []


def test_a_refused_actor_of_a_fleet_that_lives_on_its_own_actors_ends_nothing():
    case = Case(actors=0)
    case.settle(beating=[LEARNER, EVALUATOR])
    case.control.change_desired(actors=1)
    case.turn(beating=[LEARNER, EVALUATOR])
    case.fleet.over[ACTOR] = Outcome(kind="refused", text="NOAUTH")
    case.turn(0.1, beating=[LEARNER, EVALUATOR])
    assert not case.supervisor.failure
    assert not case.supervisor.ended


def test_a_countdown_is_told_once(case):
    case.settle()
    for _ in range(6):
        case.fleet.over[ACTOR] = Outcome(kind="failed", text="ImportError: no module")
        for _ in range(8):
            case.turn(1.0, beating=[LEARNER, EVALUATOR])
    assert case.kinds.count("actor_pending") == 0


def test_stopping_cuts_a_last_evaluation_short(case):
    case.settle()
    case.fleet.drain = lambda member, final: case.fleet.calls.append((final, member))
    case.fleet.over[LEARNER] = Outcome(kind="finished")
    case.fleet.over[ACTOR] = Outcome(kind="drained")
    case.turn()
    case.turn()
    case.supervisor.stop()
    case.turn()
    assert [call for call in case.fleet.calls if call[1] == EVALUATOR] == [
        (True, EVALUATOR), (False, EVALUATOR)
    ]  # fmt: skip
    for _ in range(30):
        case.turn()
    assert ("kill", EVALUATOR) in case.fleet.calls


def test_whoever_adds_machines_knows_the_whole_need(case):
    case.settle()
    assert case.fleet.asked == ["learner", "actor 0", "evaluator"]
    case.control.change_desired(stopping=True)
    while not case.supervisor.ended:
        case.turn()
    assert case.fleet.asked == []


def test_the_dead_are_forgotten_with_their_leases(case):
    case.settle()
    for _ in range(20):
        case.fleet.over[ACTOR] = died("the actor died")
        case.turn(70.0, beating=[LEARNER, EVALUATOR])
        case.turn(5.0, beating=[LEARNER, ACTOR, EVALUATOR])
    assert len(case.supervisor._dead) <= 1


def test_leaving_tells_what_is_untold(case):
    case.settle()
    case.fleet.over[ACTOR] = died("the actor died")
    case.supervisor.stop()
    while not case.supervisor.ended:
        case.turn(0.1)
    case.supervisor.leave()
    assert "actor_died" in [event.kind for event in case.control.events()]
    assert not [lease for lease in case.control.leases() if lease.role == "supervisor"]


def test_a_held_slot_is_drained_and_stays_empty_until_it_is_started(case):
    case.settle()
    case.control.ask_slot(0, "drain")
    case.turn(beating=[LEARNER, ACTOR, EVALUATOR])
    assert case.fleet.calls == [("drain", ACTOR)]
    for _ in range(5):
        case.turn(20.0, beating=[LEARNER, EVALUATOR])
    assert case.fleet.calls == [("drain", ACTOR)]
    assert case.fleet.asked == ["learner", "evaluator"]
    assert [e.text for e in case.control.events() if e.kind == "actor_drained"] == [
        "actor 0: drained by hand"
    ]
    case.control.ask_slot(0, "start")
    case.turn(beating=[LEARNER, EVALUATOR])
    assert case.fleet.calls[-1] == ("start", ACTOR)


def test_a_slot_is_restarted_once_for_each_time_it_is_asked(case):
    case.settle()
    for life in (1, 2):
        case.control.ask_slot(0, "restart")
        case.fleet.calls.clear()
        for _ in range(5):
            everybody = [LEARNER, ACTOR, EVALUATOR]
            case.turn(beating=everybody if case.fleet.lives[ACTOR] == life else [LEARNER])
        assert case.fleet.calls == [("drain", ACTOR), ("start", ACTOR)]
        case.turn(beating=[LEARNER, ACTOR, EVALUATOR])
    assert case.kinds.count("actor_drained") == 2
    assert "actor_died" not in case.kinds


def test_a_new_supervisor_repeats_no_restart_and_keeps_what_is_held(case):
    case.control.change_desired(actors=2)
    other = Member("actor", 1)
    case.settle(beating=[LEARNER, ACTOR, other, EVALUATOR])
    case.control.ask_slot(0, "restart")
    case.control.ask_slot(1, "drain")
    for _ in range(3):
        case.turn(beating=[LEARNER, EVALUATOR])
    case.turn(beating=[LEARNER, ACTOR, EVALUATOR])
    assert case.fleet.lives[ACTOR] == 2
    case.fleet.left_behind = [LEARNER, ACTOR, EVALUATOR]
    case.supervisor = Supervisor(case.seams, RULES, who="another", actors=2)
    case.fleet.calls.clear()
    for _ in range(3):
        case.turn(beating=[LEARNER, ACTOR, EVALUATOR])
    assert case.fleet.calls == []


def test_a_wiped_store_holds_a_slot_on(case):
    case.settle()
    case.control.ask_slot(0, "drain")
    case.turn(beating=[LEARNER, ACTOR, EVALUATOR])
    wiped = MemoryControl(case.clock)
    case.supervisor._control = case.control = wiped
    for _ in range(3):
        case.turn(beating=[LEARNER, EVALUATOR])
    assert wiped.desired().held == [0]
    assert ("start", ACTOR) not in case.fleet.calls


class CutOff(MemoryControl):
    """Answers one change of the wish; then it is away for some calls."""

    def __init__(self, clock):
        super().__init__(clock)
        self.away = 0

    def change_desired(self, **changes):
        wish = super().change_desired(**changes)
        self.away = 2
        return wish

    def _gone(self):
        if self.away:
            self.away -= 1
            raise Unavailable("cut off")

    def ask_slot(self, slot, action):
        self._gone()
        return super().ask_slot(slot, action)

    def leases(self):
        self._gone()
        return super().leases()


def test_a_wiped_store_that_goes_away_at_once_has_the_whole_wish(case):
    case.settle()
    case.control.ask_slot(0, "drain")
    case.turn(beating=[LEARNER, ACTOR, EVALUATOR])
    case.supervisor._control = case.control = CutOff(case.clock)
    for _ in range(5):
        case.turn(beating=[LEARNER, EVALUATOR])
    assert case.control.desired().held == [0]
    assert ("start", ACTOR) not in case.fleet.calls


def test_a_supervisor_counts_its_lives(case):
    case.turn()
    (first,) = [one for one in case.control.metrics() if one.role == "supervisor"]
    case.clock.sleep(5.0)
    case.supervisor = Supervisor(case.seams, RULES, who="another", actors=1)
    case.turn()
    (second,) = [one for one in case.control.metrics() if one.role == "supervisor"]
    assert second.values["supervisor/started_s"] == first.values["supervisor/started_s"] + 6.0


def test_scaling_down_drains_the_newest(case):
    case.control.change_desired(actors=2)
    newest = Member("actor", 1)
    case.settle(beating=[LEARNER, ACTOR, newest, EVALUATOR])
    case.control.change_desired(actors=1)
    case.turn(beating=[LEARNER, ACTOR, newest, EVALUATOR])
    assert case.fleet.calls == [("drain", newest)]


def test_stop_drains_actors_before_the_learner(case):
    case.settle()
    case.control.change_desired(stopping=True)
    while not case.supervisor.ended:
        case.turn()
    assert [call for call in case.fleet.calls if call[1] != EVALUATOR] == [
        ("drain", ACTOR), ("drain", LEARNER)
    ]  # fmt: skip
    assert not case.supervisor.finished


def test_a_finished_learner_ends_the_run_with_a_last_evaluation(case):
    case.settle()
    case.fleet.over[LEARNER] = Outcome(kind="finished")
    while not case.supervisor.ended:
        case.turn()
    assert case.fleet.calls == [("final", ACTOR), ("final", EVALUATOR)]
    assert case.supervisor.finished


def test_actors_of_a_finished_learner_need_not_flush_even_when_stopping(case):
    case.settle()
    case.fleet.over[LEARNER] = Outcome(kind="finished")
    case.supervisor.stop()
    while not case.supervisor.ended:
        case.turn()
    assert case.fleet.calls == [("final", ACTOR), ("drain", EVALUATOR)]


def test_a_mistake_of_the_user_is_not_restarted(case):
    case.settle()
    case.fleet.over[LEARNER] = Outcome(kind="refused", text="the checkpoint is damaged")
    case.turn()
    assert case.supervisor.ended
    assert case.supervisor.failure == "the checkpoint is damaged"


def test_a_fenced_learner_gives_way(case):
    case.settle()
    case.fleet.over[LEARNER] = Outcome(kind="fenced", text="epoch 3")
    case.turn()
    assert case.supervisor.failure == "another learner took over: epoch 3"


def test_a_fenced_actor_takes_its_slot_again(case):
    case.settle()
    case.fleet.over[ACTOR] = Outcome(kind="fenced", text="incarnation 9")
    case.turn(0.1)
    case.turn(1.0)
    assert ("start", ACTOR) in case.fleet.calls


def test_a_member_that_never_comes_up_ends_the_run(case):
    for _ in range(1000):
        if case.supervisor.ended:
            break
        case.turn(1.0, beating=[LEARNER, EVALUATOR] if case.fleet.lives else [])
        case.fleet.over[ACTOR] = died("ImportError: no module")
    wanted = f"actor 0 failed {MAX_FAILURES} times in a row: ImportError: no module"
    assert case.supervisor.failure.startswith(wanted)


def test_why_a_slot_is_pending_reaches_other_terminals(case):
    case.fleet.pending = "needs 0.25 CPU; 0 of 2 are free: scale down or add machines"
    case.turn()
    for _ in range(4):
        case.turn(2.0, beating=[LEARNER, EVALUATOR])
    case.turn(beating=[LEARNER, EVALUATOR])
    events = [event for event in case.control.events() if event.kind == "actor_pending"]
    assert [event.text for event in events] == [case.fleet.pending]


def test_a_dead_server_is_started(case):
    case.settle()
    case.server.up = False
    case.turn()
    assert (case.server.starts, case.server.restarts) == (1, 0)
    assert case.kinds == ["redis_died", "redis_restarted"]


def test_a_server_that_does_not_come_up_is_tried_again(case):
    case.settle()
    case.server.up, case.server.refuses = False, True
    case.turn()
    assert case.kinds == ["redis_died", "redis_down"]
    case.server.refuses = False
    case.turn()
    assert case.kinds[-1] == "redis_restarted"


def test_a_store_that_forgot_does_not_drain_the_fleet(case):
    case.settle()
    case.control = case.supervisor._control = MemoryControl(case.clock)
    for _ in range(3):
        case.turn(beating=(LEARNER, ACTOR, EVALUATOR))
    assert case.fleet.calls == []
    assert case.control.desired().actors == 1


def test_giving_up_because_of_an_actor_saves_the_learner_first(case):
    case.settle()
    case.fleet.over[ACTOR] = Outcome(kind="refused", text="no module named 'dm_control'")
    case.turn(beating=(LEARNER, EVALUATOR))
    assert not case.supervisor.ended
    for _ in range(5):
        case.turn()
    assert ("drain", LEARNER) in case.fleet.calls
    assert ("start", ACTOR) not in case.fleet.calls
    assert case.supervisor.ended
    assert case.supervisor.failure == "no module named 'dm_control'"
