"""Submitting to a Ray cluster."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.launch import entrypoint
from deploy.options import build_parser
from deploy.redis_server import EmbeddedRedis
from deploy.registry import Registry
from deploy.run_entry import RunEntry
from deploy.run_folder import RunFolder

ROOT = Path(__file__).parents[2]


def test_the_job_runs_train_with_the_same_options():
    arguments = [
        "--env", "CartPole-v1", "--run", "x", "--actors", "3", "--replay-ratio", "32.0",
        "--action-repeat", "2", "--no-dashboard", "--env-arg", "a=1", "b=two words", "--set",
        "learner.horizon=9", "--pixels-with-state", "--pixels-size", "32",
        "--pixels-quality", "full",
    ]  # fmt: skip
    options = build_parser().parse_all(["launch", "--address", "http://h:8265", *arguments])
    line = entrypoint(options, "/data/my runs")
    place, _, command = line.rpartition(" && exec ")
    assert place == "mkdir -p '/data/my runs' && cd '/data/my runs'"
    words = shlex.split(command)
    assert words[:2] == ["dreamfleet", "train"]
    again = vars(build_parser().parse_all(words[1:]))
    wanted = {**vars(options), "command": "train", "print_config": False, "detach": False,
              "resume": False, "seeds": None, "parallel": None}  # fmt: skip
    assert again == {key: wanted[key] for key in again}


def check_token(environment, where):
    """Without the token, one line says what to do."""
    bare = {name: value for name, value in environment.items() if "RAY_AUTH" not in name}
    line = "launch --address http://127.0.0.1:28265 --env CartPole-v1 --run job"
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *line.split()], cwd=where,
        env={**bare, "HOME": str(where)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "wants its token" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_job_on_a_real_cluster(tmp_path):
    """A head with its dashboard; about a minute."""
    programs = Path(sys.executable).parent
    shim = tmp_path / "bin" / "dreamfleet"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m deploy.cli "$@"\n')
    shim.chmod(0o755)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "PATH": f"{shim.parent}:{programs}:{os.environ['PATH']}",
    }  # fmt: skip
    ray = str(programs / "ray")
    head = [ray, "start", "--head", "--node-ip-address=127.0.0.1", "--port=26379",
            "--dashboard-port=28265", "--num-cpus=2", "--include-dashboard=true",
            "--dashboard-agent-listen-port=28266",
            f"--temp-dir=/tmp/ray-{os.getpid()}"]  # fmt: skip
    process = subprocess.Popen(
        [*head, "--block"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(28265)
        check_token(environment, tmp_path)
        line = (
            "launch --address http://127.0.0.1:28265 --env CartPole-v1 --run job --frames 150 "
            "--actors 1 --copies 2 --replay-ratio 4 --set learner.dream_starts=8 "
            "learner.batch_size=4 learner.batch_length=8 replay.min_steps=64 "
            "replay.chunk_length=8 evaluation.episodes=2 evaluation.copies=2"
        )
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", *line.split()], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "run job in" in done.stdout
        assert "dreamfleet evaluate --run job" in done.stdout
        assert (tmp_path / "runs/job/curve.png").exists()
        resume_from_elsewhere(tmp_path, environment)
    finally:
        process.terminate()  # with --block it takes its own processes along, and no others
        process.wait(60)


def resume_from_elsewhere(where, environment):
    """The run's own server is gone with it: one of our own, which the folder is told of."""
    server = EmbeddedRedis(where / "server", max_memory_bytes=256 * 1024**2)
    server.start()
    try:
        here, away = RunFolder(where / "runs/job"), where / "away"
        away.mkdir()
        Registry(server.url).put(RunEntry.of(here))
        config = here.record().config
        here.reconfigure(replace(config, fleet=replace(config.fleet, redis=server.url)))
        line = (
            f"resume --run job --frames 250 --redis {server.url} --address http://127.0.0.1:28265"
        )
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", *line.split()], cwd=away, env=environment,
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert max(line["frames"] for line in here.metrics()) >= 250
    finally:
        server.stop()


def wait_for_port(port):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"nobody listens on {port}")
