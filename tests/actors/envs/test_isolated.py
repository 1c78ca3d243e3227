"""Copies in processes of their own: the same Steps, and nothing a copy does reaches the actor."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actors.config import EnvConfig
from actors.envs import process
from actors.envs.isolated import ProcessCopies, ProcessEnv
from actors.envs.process import ChildProcess
from actors.envs.registry import env_spec, make_env
from system.errors import ConfigError, EnvironmentFault
from tests.unruly_for_tests import NAME, action_for
from tests.waiting import wait_until

SELF = Path("/proc/self")


@pytest.fixture
def build():
    made = []

    def build(num_copies=1, deadline_s=20.0, while_waiting=int, build_deadline_s=60.0, **args):
        faults = []
        config = EnvConfig(
            name=NAME,
            args=args,
            isolate=True,
            step_deadline_s=deadline_s,
            build_deadline_s=build_deadline_s,
        )
        env = make_env(
            config,
            num_copies=num_copies,
            seed=0,
            on_fault=lambda *fault: faults.append(fault),
            while_waiting=while_waiting,
        )
        made.append(env)
        return env, faults

    yield build
    for env in made:
        env.close()


def children():
    return set((SELF / "task" / str(os.getpid()) / "children").read_text().split())


def is_gone(pid):
    """Not there, or only waiting for whoever adopted it."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


@pytest.mark.parametrize("name", ["dm_control/cartpole-swingup", "tests.envs_for_tests:Walk-v0"])
def test_the_same_steps_as_in_a_thread(name):
    tracks = []
    for isolate in (False, True):
        config = EnvConfig(name=name, action_repeat=2, time_limit=40, isolate=isolate)
        env = make_env(config, num_copies=2, seed=3)
        size = (60, 2, env.spec.action.size)
        actions = np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)
        track = [env.reset(seed=5), *(env.step(action) for action in actions)]
        env.close()
        tracks.append((env.spec.digest, track))
    (digest, thread), (other, isolated) = tracks
    assert digest == other
    assert any(step.is_last.any() for step in thread)
    for mine, theirs in zip(thread, isolated, strict=True):
        assert all(np.array_equal(a, theirs.observation[k]) for k, a in mine.observation.items())
        for name in ("reward", "is_first", "is_last", "is_terminal"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name))


def test_whatever_a_copy_does_it_is_rebuilt_and_the_other_goes_on(build):
    expected = {
        "raise": ("raised", "the motor is on fire"),
        "nan": ("outside_space", r"vector\[0\] is nan"),
        "shape": ("outside_space", r"shape \(1,\) instead of \(2,\)"),
        "segv": ("died", r"(?s)SIGSEGV; Fatal Python error: Segmentation.*in do_segv"),
        "exit": ("died", "exit status 3"),
        "kill": ("died", "killed by SIGKILL"),
    }
    env, faults = build(2)
    mark = env.reset().observation["vector"][0, 0]
    count = 0
    for kind, (reported, detail) in expected.items():
        for action in ("good", kind):
            step = env.step(action_for("good", action))
            count += 1
            assert step.observation["vector"][0].tolist() == [mark, count]
            assert step.is_first.tolist() == [False, action == kind]
        copy, fault = faults[-1]
        assert (copy, fault.kind) == (1, reported)
        with pytest.raises(EnvironmentFault, match=detail):
            raise fault
    assert len(faults) == len(expected)


@pytest.mark.parametrize(("kind", "where"), [("hang", "do_hang"), ("gil", "do_gil")])
def test_a_hang_leaves_its_stack_and_is_killed(build, monkeypatch, kind, where):
    monkeypatch.setattr(process, "SLICE_S", 0.05)
    told = []
    env, faults = build(2, deadline_s=3.0, while_waiting=lambda: told.append(1))
    env.reset()
    before = children()
    told.clear()
    step = env.step(action_for(kind, "good"))
    assert step.is_first.tolist() == [True, False]
    ((copy, fault),) = faults
    assert (copy, fault.kind) == (0, "hang")
    assert "unruly_for_tests.py" in str(fault)
    assert where in str(fault)
    assert len(told) >= 8
    assert len(children() & before) == 1
    assert len(children()) == 2


def test_a_stack_is_left_though_the_actor_blocks_the_signal(build):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        env, faults = build(deadline_s=2.0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    env.reset()
    env.step(action_for("hang"))
    assert "do_hang" in str(faults[0][1])


def test_a_stopped_copy_says_so(build):
    env, faults = build(deadline_s=2.0)
    env.reset()
    env.step(action_for("stop"))
    assert faults[0][1].kind == "hang"
    assert "T (stopped)" in str(faults[0][1])


def test_copies_step_at_the_same_time(build, tmp_path):
    env, faults = build(3, folder=str(tmp_path), together=3)
    env.reset()
    env.step(action_for("meet", "meet", "meet"))
    assert not faults


@pytest.mark.parametrize(("isolate", "deadline_s"), [(False, 0.5), (True, 3.0)])
def test_building_has_a_deadline(isolate, deadline_s):
    said = ""
    while "do_hang" not in said:  # on a busy machine it may not even come so far
        assert deadline_s < 60, said
        config = EnvConfig(
            name=NAME, args={"build": "hang"}, isolate=isolate, build_deadline_s=deadline_s
        )
        with pytest.raises(EnvironmentFault, match=r"hang: no answer within .* s; ") as raised:
            make_env(config, num_copies=2, seed=0)
        said, deadline_s = str(raised.value), 4 * deadline_s


@pytest.mark.parametrize("isolate", [False, True])
def test_a_build_that_raises_is_a_fault(isolate):
    config = EnvConfig(name=NAME, args={"build": "raise"}, isolate=isolate)
    with pytest.raises(EnvironmentFault, match=r"(?s)raised: .*on fire"):
        env_spec(config)


@pytest.mark.slow
def test_a_first_reset_that_hangs_stops_acting_in_the_end(build):
    env, faults = build(reset="hang", deadline_s=0.2, build_deadline_s=3.0)
    with pytest.raises(EnvironmentFault, match=r"(?s)copy 0 failed 5 times in a row.*do_hang"):
        env.reset()
    assert [fault.kind for _, fault in faults] == ["hang"] * 5


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("CartPol-v1", {}, "did you mean 'CartPole-v1'"),
        ("CartPole-v1", {"sutton_barto": True}, "takes no argument 'sutton_barto'"),
        ("CartPole-v1", {"render_mode": object()}, "cannot be sent to a process of its own"),
    ],
)
def test_mistakes_are_named(name, args, message):
    before = children()
    with pytest.raises(ConfigError, match=message):
        env_spec(EnvConfig(name=name, args=args, isolate=True))
    assert children() == before


def test_ctrl_c_is_for_the_actor_and_closing_ends_all():
    copies = ProcessCopies(EnvConfig(name=NAME, isolate=True), num_copies=2, while_waiting=int)
    assert all(os.getpgid(pid) == pid for pid in copies.pids)
    pids = copies.pids
    copies.close()
    copies.close()
    assert all(is_gone(pid) for pid in pids)
    assert not children() & {str(pid) for pid in pids}


def test_what_a_copy_started_ends_with_it(build):
    env, faults = build()
    env.reset()
    grandchild = int(env.step(action_for("child")).reward[0])
    assert not is_gone(grandchild)
    env.step(action_for("raise"))
    assert len(faults) == 1
    wait_until(lambda: is_gone(grandchild))


def test_copies_die_with_the_actor():
    program = f"""
import sys
from actors.config import EnvConfig
from actors.envs.isolated import Order, ProcessCopies
from tests.unruly_for_tests import action_for
copies = ProcessCopies(EnvConfig(name={NAME!r}, isolate=True), num_copies=3, while_waiting=int)
copies.run([Order()] * 3)
print(*copies.pids, flush=True)
copies.run([Order(action=action) for action in action_for("gil", "hang", "stop")])
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as actor:
        pids = [int(word) for word in actor.stdout.readline().split()]
        assert len(pids) == 3
        stopped = Path(f"/proc/{pids[2]}/status")
        wait_until(lambda: "State:\tT" in stopped.read_text())
        actor.kill()
    wait_until(lambda: all(is_gone(pid) for pid in pids))


def test_fifty_processes_leave_nothing():
    before = children(), len(os.listdir(SELF / "fd"))
    for i in range(50):
        child = ChildProcess(int)
        child.ask({"kind": "build"}, deadline_s=60.0)
        if i % 2:
            os.kill(child.pid, signal.SIGKILL)
            with pytest.raises(EnvironmentFault, match="died: killed by SIGKILL"):
                child.answer()
        child.kill()
    assert (children(), len(os.listdir(SELF / "fd"))) == before


@pytest.mark.slow
def test_fifty_rebuilds_leave_nothing(build):
    env, faults = build()
    env.reset()
    before = len(children()), len(os.listdir(SELF / "fd"))
    for kind in ("raise", "kill", "segv", "nan", "exit") * 10:
        env.step(action_for("good"))
        env.step(action_for(kind))
    assert len(faults) == 50
    assert (len(children()), len(os.listdir(SELF / "fd"))) == before


def test_an_answer_that_is_none_ends_the_process():
    env = ProcessEnv(EnvConfig(name=NAME, isolate=True), int)
    env.ready()
    impostor, ours = socket.socketpair()
    with impostor, ours:
        os.dup2(ours.fileno(), env._child._socket.fileno())
        impostor.sendall(b"\xff" * 64)
        with pytest.raises(EnvironmentFault, match="died: it answered what cannot be read"):
            env.reset(seed=0)
    assert is_gone(env.pid)
