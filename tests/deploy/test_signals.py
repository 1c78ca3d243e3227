"""Ctrl-C once asks, twice insists."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.signals import CAUGHT, Detached, Forced, Interrupts
from tests.waiting import DEADLINE_S, wait_until

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", CAUGHT)
def test_the_first_signal_asks_the_second_insists(number):
    asked = []
    before = signal.getsignal(number)
    with Interrupts(lambda: asked.append(number)) as interrupts:
        os.kill(os.getpid(), number)
        assert interrupts.stopping
        assert asked == [number]
        with pytest.raises(Forced):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_closed_terminal_is_no_wish_to_stop():
    asked = []
    with (
        Interrupts(lambda: asked.append(1), hangup_detaches=True) as interrupts,
        pytest.raises(Detached),
    ):
        os.kill(os.getpid(), signal.SIGHUP)
    assert not interrupts.stopping
    assert not asked


def test_what_was_ignored_stays_ignored():
    """`nohup dreamfleet actor &`: the shell closes, the actor goes on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts(lambda: None) as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupts.stopping
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.stopping
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    arguments = (
        "train --env CartPole-v1 --runner local --run one --frames 0 --copies 2 --set "
        "learner.dream_starts=8 learner.batch_size=4 learner.batch_length=8 replay.min_steps=64"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", *arguments.split()], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    metrics = tmp_path / "runs/one/metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 1, "trained")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said
    assert "stopping: actors drain, then the learner saves" in said
    assert "dreamfleet resume --run one" in said
    assert list((tmp_path / "runs/one/checkpoints").iterdir())
    assert "Traceback" not in said
